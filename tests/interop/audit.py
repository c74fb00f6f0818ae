"""Whose each record was, and whether it is where it should be: the checks, when all turns are over.

Owns: comparing what the library was given and what is in the lake with the stream, by the positions that the table had after
each turn; and what of the library's table must be as it was. Does not own: the turns (`turns.py`).
"""

import collections
import json
import subprocess

from turns import BEGINNING, END, lakes, parse, streams  # noqa: I001: it puts the fleet test's modules on the path
from common import connect

# What a worker of ours may change or add in an item of the library's.
OURS = {"checkpoint", "checkpointSubSequenceNumber", "leaseCounter", "leaseOwner", "ownerSwitchesSinceCheckpoint",
        "throughputKBps", "childShardIds", "lastManifest", "shardlakeStream"}


def begin(shard):
    """Where the range of a shard in a commit record begins."""
    return parse(shard["range"]["after"])


def turn_of(test, shard, place):
    """The number of the turn that a record belongs to."""
    for number, (_, after) in enumerate(test.turns):
        if place <= after.get(shard, BEGINNING):
            return number
    raise AssertionError(f"no turn ever got to {shard} {place}: the table stands at {test.turns[-1][1].get(shard)}")


def audit(test):
    truth = streams.read(test.kinesis, test.name, test.folder / "plain.ndjson")
    doubled = streams.check_accepted(test.filler, truth)
    assert doubled == 0, f"{doubled} records were put twice"
    ours, counts = {}, collections.Counter()
    for (shard, sequence, sub), record in truth.users.items():
        number = turn_of(test, shard, (int(sequence), sub))
        counts[number] += 1
        library = test.turns[number][0]
        if library is None:
            ours[shard, sequence, sub] = record
        else:
            hashes = library.records().get((shard, sequence, sub))
            assert hashes, f"turn {number + 1} was the library's, and it was never given {shard} {sequence} {sub}"
            assert set(hashes) == {record.sha256}, f"the library was given other bytes: {shard} {sequence} {sub}"
    for number, (library, _) in enumerate(test.turns):
        start = test.turns[number - 1][1] if number else {}
        for shard, sequence, sub in library.records() if library else []:
            assert (int(sequence), sub) > start.get(shard, BEGINNING), (
                f"the library was given {shard} {sequence} {sub} in turn {number + 1}, which begins behind it")
            assert (shard, sequence, sub) in truth.users, f"the library was given what is no record: {sequence} {sub}"
    test.tell("records by turns: " + ", ".join(
        f"{'KCL' if library else 'Shardlake'} {counts[number]:,}" for number, (library, _) in enumerate(test.turns)))
    assert all(counts[number] for number in range(len(test.turns))), f"a turn had no records: {counts}"
    audit_lake(test, truth, ours)


def audit_lake(test, truth, ours):
    lake = test.folder / "lake"
    keys = lakes.download(test.s3, test.name, "lake/", lake)
    commits = lakes.commit_records(lake)
    part = streams.Truth(ours, truth.kinesis, truth.shards, truth.aggregates, truth.broken)
    lakes.check_objects(lake, keys, commits)
    rows, codes = lakes.check_positions(connect(), lake, test.name, part)
    lakes.check_raw(lake, part)
    lakes.check_sums(commits, part)
    test.tell(f"the lake has each record of ours exactly once: {rows:,} rows, {sum(codes.values()):,} dead letters")
    check_marks(commits)
    told = subprocess.run([test.args.bin, "verify", *map(str, test.place), "--json"], capture_output=True, text=True)
    assert told.returncode in (0, 1), f"shardlake verify: exit {told.returncode}\n{told.stderr}"
    found, expected = set(json.loads(told.stdout)["faults"]), stretches_between(test, commits)
    assert found == expected, f"verify tells what it should not: {lakes.some(found - expected)}\n" \
                              f"and does not tell: {lakes.some(expected - found)}"
    listed = json.loads(test.shardlake("leases", "list", *test.place, "--json", "--watch", "1s"))
    assert {row["shard"] for row in listed["leases"]} == set(test.leases()), listed
    assert not listed["findings"], listed["findings"]
    test.tell(f"verify finds no fault but {len(found)} stretches that KCL read in between" if found else
              "verify finds no fault, and leases list reads the table")


def check_marks(commits):
    """A shard's first range says whether it begins where the library had got to; no other does."""
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


def stretches_between(test, commits):
    """What the library read between two ranges of ours, as `verify` tells it: it can't know that nothing is missing."""
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
            behind = start.get(shard, BEGINNING)
            known = texts[shard]
            if (shard, at) in begins and behind != at and behind in known and behind > BEGINNING:
                found.add(f"gap: shard {shard} of stream {test.name} has no commit record for "
                          f"({known[behind]}, {known[at]}]")
    return found


def check_untouched(before, after):
    """Items of the library's lease table, before and after a turn of ours."""
    for shard, item in before.items():
        now = after.get(shard)
        assert now is not None, f"the row of {shard} is gone"
        for name in item.keys() - OURS:
            assert now.get(name) == item[name], f"{name} of {shard} was {item[name]} and is {now.get(name)}"
        assert int(now["leaseCounter"]["N"]) >= int(item["leaseCounter"]["N"]), f"the counter of {shard} went back"
        added = now.keys() - item.keys() - OURS
        assert not added, f"the row of {shard} has these attributes that it had not: {added}"
