"""The lake's side of the fleet test: all of a bucket, downloaded, and compared with what is in the stream.

Owns: every check on what was written, with tools that are not ours (boto3, DuckDB, gzip). Each names examples.
"""

import base64
import collections
import gzip
import hashlib
import hmac
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "outside"))
from common import datasets, dead_letters, parquet_glob, row_keys  # noqa: E402


KEY = "the fleet test's key of pseudonyms"


def pseudonym(value):
    """What stands for a value where readers may see it: HMAC-SHA256 under the key, 128 bits."""
    return hmac.new(KEY.encode(), value.encode(), hashlib.sha256).hexdigest()[:32]


def download(client, bucket, prefix, folder):
    """Copies every object below the prefix; the keys, without it."""
    keys = []
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            key = item["Key"][len(prefix):]
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, item["Key"], str(path))
            keys.append(key)
    return keys


def some(things):
    """Up to five of them, to be told."""
    things = list(things)
    listed = "\n  ".join(str(thing) for thing in things[:5])
    return f"{len(things):,}, such as\n  {listed}"


def commit_records(lake):
    return [json.loads(path.read_bytes()) for path in sorted((lake / "_commits").glob("*.json"))]


def check_objects(lake, keys, commits):
    """What readers see is exactly what the commit records name: nothing of an epoch that did not happen."""
    named = collections.Counter(item["key"] for commit in commits for item in commit["objects"])
    twice = [key for key, count in named.items() if count > 1]
    assert not twice, f"objects of two commit records: {some(twice)}"
    visible = {key for key in keys if not key.startswith("_")}
    assert not visible - named.keys(), f"visible objects of no commit record: {some(sorted(visible - named.keys()))}"
    assert not named.keys() - visible, f"committed objects that are not there: {some(sorted(named.keys() - visible))}"
    for commit in commits:
        for item in commit["objects"]:
            size = (lake / item["key"]).stat().st_size
            assert size == item["bytes"], f"{item['key']} has {size} bytes, its commit record says {item['bytes']}"


def check_positions(connection, lake, stream, truth):
    """Every record of the stream is one row or one dead letter. (rows, dead letters by code)."""
    rows = collections.Counter()
    streams = set()
    for name, shard, sequence, sub in row_keys(connection, lake):
        rows[shard, str(sequence), sub] += 1
        streams.add(name)
    letters, codes = collections.Counter(), collections.Counter()
    for letter in dead_letters(lake):
        place = (letter["shardId"], letter["sequenceNumber"], letter["subSequenceNumber"])
        letters[place] += 1
        codes[letter["errorCode"]] += 1
        streams.add(letter["stream"])
        known = truth.users.get(place)
        if known is not None:
            digest = hashlib.sha256(base64.b64decode(letter["rawData"])).hexdigest()
            assert digest == known.sha256, f"the dead letter {place} holds other bytes than the record"
            expected = pseudonym(known.partition_key)
            assert letter["partitionKey"] == expected, f"the dead letter {place} names another partition key"
    assert len(streams) == 1 and stream in next(iter(streams)), f"the lake names these streams: {sorted(streams)}"
    both = rows + letters
    lost = [place for place in truth.users if place not in both]
    assert not lost, f"records that are neither a row nor a dead letter: {some(sorted(lost))}"
    alien = [place for place in both if place not in truth.users]
    assert not alien, f"rows or dead letters of no record of the stream: {some(sorted(alien))}"
    twice = [(place, rows[place], letters[place]) for place, count in both.items() if count > 1]
    assert not twice, f"records that are there more than once (place, rows, dead letters): {some(sorted(twice))}"
    return sum(rows.values()), codes


def check_raw(lake, truth):
    """raw/ holds each record once, byte by byte."""
    expected = collections.Counter(record.line_sha256 for record in truth.users.values())
    found = collections.Counter()
    for path in lake.glob("raw/**/*.json.gz"):
        with gzip.open(path, "rb") as file:
            for line in file:
                found[hashlib.sha256(line.rstrip(b"\n")).hexdigest()] += 1
    missing, extra = expected - found, found - expected
    assert not missing and not extra, (
        f"raw/ lacks {sum(missing.values()):,} lines and has {sum(extra.values()):,} that it should not; hashes of some: "
        f"{some(list(missing)[:3] + list(extra)[:3])}")


def check_sums(commits, truth):
    """The commit records count what there is."""
    records = sum(commit["totals"]["records"] for commit in commits)
    assert records == len(truth.users), f"commit records count {records:,} records, the stream has {len(truth.users):,}"


def check_values(connection, lake, plain):
    """Every row has the values that it has in a lake made of the same records from a file."""
    assert datasets(lake) == datasets(plain), f"datasets: {datasets(lake)} and {datasets(plain)}"
    for dataset in datasets(lake):
        def rows(folder):
            return (f"SELECT * EXCLUDE (ingest_stream, ingest_shard, ingest_sequence, ingest_subsequence, "
                    f"ingest_arrival_time) FROM read_parquet('{parquet_glob(folder, dataset)}', hive_partitioning = true)")
        for one, other in [(lake, plain), (plain, lake)]:
            extra = connection.execute(f"SELECT count(*) FROM ({rows(one)} EXCEPT ALL {rows(other)})").fetchone()[0]
            assert extra == 0, f"{dataset}: {extra:,} rows of {one} have values that are not in {other}"
