"""What the outside checks share: running the worker, and reading a lake with tools that are not ours."""

import gzip
import json
import os
import pathlib
import subprocess

import duckdb


def binary():
    """The worker's binary: SHARDLAKE_BIN, or the release build of this checkout."""
    default = pathlib.Path(__file__).resolve().parents[2] / "target" / "release" / "shardlake"
    return os.environ.get("SHARDLAKE_BIN", str(default))


def shardlake(*args, cwd=None, check=True):
    """Runs a command to its end and gives its standard output."""
    done = subprocess.run([binary(), *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=600)
    if check and done.returncode != 0:
        raise AssertionError(f"shardlake {args}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def connect():
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; SET threads = 2")
    return connection


def lines_of(folder):
    """Every record of a folder of NDJSON files: (shard, offset of its first byte). Blank lines are no records."""
    found = []
    for path in sorted(pathlib.Path(folder).rglob("*.ndjson")):
        shard = str(path.relative_to(folder))
        offset = 0
        with open(path, "rb") as file:
            for line in file:
                if line.strip():
                    found.append((shard, str(offset)))
                offset += len(line)
    return found


def datasets(lake):
    processed = pathlib.Path(lake) / "processed"
    return sorted(p.name for p in processed.iterdir()) if processed.is_dir() else []


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
    """How many lines there are below raw/."""
    count = 0
    for path in pathlib.Path(lake).glob("raw/**/*.json.gz"):
        with gzip.open(path, "rb") as file:
            count += sum(1 for _ in file)
    return count
