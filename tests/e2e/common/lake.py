"""Reading a lake without the product: DuckDB for Parquet, gzip and JSON for the rest, boto3 for a bucket.

Owns: every access of the suites to a lake's objects. Does not own: what must be in them (`checks.py`).
"""

import collections
import gzip
import json
import pathlib

import duckdb


def connect():
    """A DuckDB connection in UTC, on two threads."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; SET threads = 2")
    return connection


def datasets(lake):
    processed = pathlib.Path(lake) / "processed"
    return sorted(path.name for path in processed.iterdir()) if processed.is_dir() else []


def parquet_glob(lake, dataset):
    return f"{lake}/processed/{dataset}/**/*.parquet"


def row_keys(connection, lake):
    """(stream, shard, sequence, subsequence) of every row of every dataset."""
    keys = []
    for dataset in datasets(lake):
        keys += connection.execute(
            "SELECT ingest_stream, ingest_shard, ingest_sequence, ingest_subsequence "
            f"FROM read_parquet('{parquet_glob(lake, dataset)}', hive_partitioning = true)"
        ).fetchall()
    return keys


def dead_letters(lake):
    """Every dead letter, parsed."""
    for path in sorted(pathlib.Path(lake).glob("error/**/*.json.gz")):
        with gzip.open(path, "rt") as file:
            for line in file:
                yield json.loads(line)


def raw_lines(lake):
    """Every line below raw/, with its line end."""
    for path in pathlib.Path(lake).glob("raw/**/*.json.gz"):
        with gzip.open(path, "rb") as file:
            yield from file


def commit_records(lake):
    """Every commit record, parsed, in the order of their names."""
    return [json.loads(path.read_bytes()) for path in sorted((pathlib.Path(lake) / "_commits").glob("*.json"))]


def keys_of(lake):
    """The key of every object of a lake in a folder."""
    return [str(path.relative_to(lake)) for path in sorted(pathlib.Path(lake).rglob("*")) if path.is_file()]


def download(client, bucket, prefix, folder):
    """Copies every object below the prefix into a folder, and returns their keys without the prefix."""
    keys = []
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            key = item["Key"][len(prefix):]
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, item["Key"], str(path))
            keys.append(key)
    return keys


def source_lines(folder, pattern="*.ndjson"):
    """(shard, offset, line) of every record in a folder of NDJSON files. A blank line is not a record."""
    for path in sorted(pathlib.Path(folder).rglob(pattern)):
        shard, offset = str(path.relative_to(folder)), 0
        with open(path, "rb") as file:
            for line in file:
                if line.strip():
                    yield shard, offset, line
                offset += len(line)


def source_positions(folder):
    """How often each (shard, sequence) occurs in a folder of NDJSON files: once, if the reader is right."""
    return collections.Counter((shard, str(offset)) for shard, offset, _ in source_lines(folder))
