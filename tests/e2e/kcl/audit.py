"""Whose turn each record belonged to, and whether it is where it should be: the checks after all turns.

Owns: comparing what the KCL was given, and what the lake has, with the stream, by the positions that the table had after each turn;
and which of the KCL's attributes must be unchanged. Does not own: the turns (`turns.py`).
"""

import collections
import json
import subprocess

from e2e.common import checks, stream as streams
from e2e.common.binary import shardlake
from e2e.common.lake import commit_records, connect, download
from e2e.kcl.turns import BEGINNING, END, parse

# The attributes of an item of the KCL that Shardlake may change or add.
SHARDLAKE_ATTRIBUTES = {"checkpoint", "checkpointSubSequenceNumber", "leaseCounter", "leaseOwner", "ownerSwitchesSinceCheckpoint",
                        "throughputKBps", "childShardIds", "lastManifest", "shardlakeStream"}


def begin(shard):
    """Where the range of a shard in a commit record begins."""
    return parse(shard["range"]["after"])


def turn_of(test, shard, place):
    """The number of the turn that a record belongs to."""
    for number, (_, after) in enumerate(test.turns):
        if place <= after.get(shard, BEGINNING):
            return number
    raise AssertionError(f"no turn reached {shard} {place}: the table's position is {test.turns[-1][1].get(shard)}")


def audit(test):
    truth = streams.read(test.kinesis, test.name, test.folder / "plain.ndjson")
    duplicates = streams.check_accepted(test.filler, truth)
    assert duplicates == 0, f"{duplicates} records were put twice"
    in_lake, counts = {}, collections.Counter()
    for (shard, sequence, sub), record in truth.users.items():
        number = turn_of(test, shard, (int(sequence), sub))
        counts[number] += 1
        library = test.turns[number][0]
        if library is None:
            in_lake[shard, sequence, sub] = record
        else:
            hashes = library.records().get((shard, sequence, sub))
            assert hashes, f"turn {number + 1} was the KCL's, but the KCL was never given {shard} {sequence} {sub}"
            assert set(hashes) == {record.sha256}, f"the KCL was given other bytes: {shard} {sequence} {sub}"
    for number, (library, _) in enumerate(test.turns):
        start = test.turns[number - 1][1] if number else {}
        for shard, sequence, sub in library.records() if library else []:
            assert (int(sequence), sub) > start.get(shard, BEGINNING), (
                f"in turn {number + 1} the KCL was given {shard} {sequence} {sub}, which precedes the turn")
            assert (shard, sequence, sub) in truth.users, f"the KCL was given a record that the stream lacks: {sequence} {sub}"
    test.log("records by turns: " + ", ".join(
        f"{'KCL' if library else 'Shardlake'} {counts[number]:,}" for number, (library, _) in enumerate(test.turns)))
    assert all(counts[number] for number in range(len(test.turns))), f"a turn had no records: {counts}"
    audit_lake(test, truth, in_lake)


def audit_lake(test, truth, in_lake):
    lake = test.folder / "lake"
    keys = download(test.s3, test.name, "lake/", lake)
    commits = commit_records(lake)
    part = streams.Truth(in_lake, truth.kinesis, truth.shards, truth.aggregates, truth.broken)
    checks.check_objects(lake, keys, commits)
    rows, codes = checks.check_stream_positions(connect(), lake, test.name, part)
    checks.check_raw(lake, part)
    checks.check_totals(commits, part)
    test.log(f"the lake has each record of Shardlake's turns exactly once: {rows:,} rows, {codes.total():,} dead letters")
    check_taken_over(commits)
    done = subprocess.run([test.args.bin, "verify", *map(str, test.lake_flags), "--json"], capture_output=True, text=True)
    assert done.returncode in (0, 1), f"shardlake verify: exit code {done.returncode}\n{done.stderr}"
    found, expected = set(json.loads(done.stdout)["faults"]), gaps_between(test, commits)
    assert found == expected, f"verify reports what it should not: {checks.some(found - expected)}\n" \
                              f"and does not report: {checks.some(expected - found)}"
    listed = json.loads(shardlake("leases", "list", *test.lake_flags, "--json", "--watch", "1s"))
    assert {row["shard"] for row in listed["leases"]} == set(test.leases()), listed
    assert not listed["findings"], listed["findings"]
    test.log(f"verify finds no fault except the {len(found)} gaps that KCL read in between" if found else
             "verify finds no fault, and leases list reads the table")


def check_taken_over(commits):
    """A shard's first range is marked `taken_over` if it begins where the KCL had stopped; no other range is."""
    first = {}
    for commit in commits:
        for shard in commit["shards"]:
            at = begin(shard)
            first[shard["shard"]] = min(at, first.get(shard["shard"], END))
    for commit in commits:
        for shard in commit["shards"]:
            at, marked = begin(shard), shard.get("taken_over", False)
            expected = BEGINNING < at == first[shard["shard"]]
            assert marked == expected, f"taken_over is {marked} in {commit['epoch']}: {shard}"


def gaps_between(test, commits):
    """What the KCL read between two ranges of Shardlake, as `verify` reports it, which can't know that nothing is missing."""
    begins = {(shard["shard"], begin(shard)) for commit in commits for shard in commit["shards"]}
    texts = collections.defaultdict(dict)
    for commit in commits:
        for shard in commit["shards"]:
            for text in shard["range"].values():
                texts[shard["shard"]][parse(text)] = text
    found = set()
    for number, (library, after) in enumerate(test.turns):
        start = test.turns[number - 1][1] if number else {}
        for shard, at in after.items() if library else []:
            before = start.get(shard, BEGINNING)
            known = texts[shard]
            if (shard, at) in begins and before != at and before in known and before > BEGINNING:
                found.add(f"gap: shard {shard} of stream {test.name} has no commit record for "
                          f"({known[before]}, {known[at]}]")
    return found


def check_untouched(before, after):
    """Compares the items of the KCL's lease table before and after a turn of Shardlake."""
    for shard, item in before.items():
        now = after.get(shard)
        assert now is not None, f"the row of {shard} is gone"
        for name in item.keys() - SHARDLAKE_ATTRIBUTES:
            assert now.get(name) == item[name], f"{name} of {shard} was {item[name]} and is {now.get(name)}"
        assert int(now["leaseCounter"]["N"]) >= int(item["leaseCounter"]["N"]), f"the counter of {shard} decreased"
        added = now.keys() - item.keys() - SHARDLAKE_ATTRIBUTES
        assert not added, f"the row of {shard} has new attributes: {added}"
