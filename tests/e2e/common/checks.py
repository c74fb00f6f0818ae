"""What must be in a lake: each record once, nothing else, with the right values.

Owns: every check of a lake's content that several suites need. Each failure names up to five examples. Does not own: reading the
lake (`lake.py`), or what was sent (`stream.py` for a stream).
"""

import base64
import collections
import hashlib
import hmac

from e2e.common.lake import datasets, dead_letters, parquet_glob, raw_lines, row_keys

KEY = "the end-to-end suites' pseudonym key"


def pseudonym(value):
    """The pseudonym of a value: HMAC-SHA256 under the key, 128 bits as hex digits."""
    return hmac.new(KEY.encode(), value.encode(), hashlib.sha256).hexdigest()[:32]


def some(things):
    """The number of things, and up to five of them."""
    things = list(things)
    listed = "\n  ".join(str(thing) for thing in things[:5])
    return f"{len(things):,}, such as\n  {listed}"


def check_once(expected, rows, dead):
    """Every expected position is one row or one dead letter, and there are no others. All are counters of positions."""
    both = rows + dead
    lost = [position for position in expected if position not in both]
    assert not lost, f"records that are neither a row nor a dead letter: {some(sorted(lost))}"
    unknown = [position for position in both if position not in expected]
    assert not unknown, f"rows or dead letters of no record in the source: {some(sorted(unknown))}"
    duplicates = [(position, rows[position], dead[position]) for position, count in both.items() if count > 1]
    assert not duplicates, f"records that landed more than once (position, rows, dead letters): {some(sorted(duplicates))}"


def check_objects(lake, keys, commits):
    """Readers see exactly the objects that the commit records name: nothing of an epoch that was not committed."""
    named = collections.Counter(item["key"] for commit in commits for item in commit["objects"])
    duplicates = [key for key, count in named.items() if count > 1]
    assert not duplicates, f"objects that two commit records name: {some(duplicates)}"
    visible = {key for key in keys if not key.startswith("_")}
    assert not visible - named.keys(), f"visible objects that no commit record names: {some(sorted(visible - named.keys()))}"
    assert not named.keys() - visible, f"committed objects that are missing: {some(sorted(named.keys() - visible))}"
    for commit in commits:
        for item in commit["objects"]:
            size = (lake / item["key"]).stat().st_size
            assert size == item["bytes"], f"{item['key']} has {size} bytes, its commit record says {item['bytes']}"


def check_stream_positions(connection, lake, stream, truth):
    """Every record of a stream is one row or one dead letter. Returns the number of rows, and dead letters by code."""
    rows, streams = collections.Counter(), set()
    for name, shard, sequence, sub in row_keys(connection, lake):
        rows[shard, str(sequence), sub] += 1
        streams.add(name)
    dead, codes = collections.Counter(), collections.Counter()
    for dead_letter in dead_letters(lake):
        position = (dead_letter["shardId"], dead_letter["sequenceNumber"], dead_letter["subSequenceNumber"])
        dead[position] += 1
        codes[dead_letter["errorCode"]] += 1
        streams.add(dead_letter["stream"])
        if (record := truth.users.get(position)) is not None:
            digest = hashlib.sha256(base64.b64decode(dead_letter["rawData"])).hexdigest()
            assert digest == record.sha256, f"the dead letter {position} holds other bytes than the record"
            expected = pseudonym(record.partition_key)
            assert dead_letter["partitionKey"] == expected, f"the dead letter {position} names another partition key"
    assert len(streams) == 1 and stream in next(iter(streams)), f"the lake names these streams: {sorted(streams)}"
    check_once(truth.users, rows, dead)
    return rows.total(), codes


def check_raw(lake, truth):
    """raw/ holds each record of a stream once, byte for byte."""
    expected = collections.Counter(record.line_sha256 for record in truth.users.values())
    found = collections.Counter(hashlib.sha256(line.rstrip(b"\n")).hexdigest() for line in raw_lines(lake))
    missing, extra = expected - found, found - expected
    assert not missing and not extra, (
        f"raw/ lacks {missing.total():,} lines and has {extra.total():,} that it should not; some of their hashes: "
        f"{some(list(missing)[:3] + list(extra)[:3])}")


def check_totals(commits, truth):
    """The commit records count as many records as the stream has."""
    records = sum(commit["totals"]["records"] for commit in commits)
    assert records == len(truth.users), f"commit records count {records:,} records, the stream has {len(truth.users):,}"


PROVENANCE = ("ingest_stream", "ingest_shard", "ingest_sequence", "ingest_subsequence", "ingest_arrival_time")


def check_values(connection, lake, reference, ignored=PROVENANCE):
    """Every row has the values that it has in a reference lake of the same records, except for the ignored columns."""
    assert datasets(lake) == datasets(reference), f"datasets differ: {datasets(lake)} and {datasets(reference)}"
    for dataset in datasets(lake):
        def rows(folder):
            return (f"SELECT * EXCLUDE ({', '.join(ignored)}) FROM "
                    f"read_parquet('{parquet_glob(folder, dataset)}', hive_partitioning = true)")
        for one, other in [(lake, reference), (reference, lake)]:
            extra = connection.execute(f"SELECT count(*) FROM ({rows(one)} EXCEPT ALL {rows(other)})").fetchone()[0]
            assert extra == 0, f"{dataset}: {extra:,} rows of {one} have values that are not in {other}"
