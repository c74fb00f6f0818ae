"""A reader that never stops reading a lake, and must never see anything half done.

    python -m e2e.chaos.watcher LAKE     until its standard input ends; then it prints what it saw, as JSON

It opens every object as soon as the object is visible, and reads it whole: Parquet with pyarrow, JSON lines with gzip. Once a second
DuckDB counts all rows: no row may be there twice at any moment, and rows never become fewer. Each fault is reported; the exit code is
1 if there was one.

While a lake is not there or not readable, it waits: the suites take lakes away.
"""

import gzip
import json
import os
import pathlib
import sys
import threading
import time

import duckdb
import pyarrow.parquet

from e2e.common.lake import connect, datasets, parquet_glob

PAUSE = 0.02
COUNT_EVERY = 1.0  # seconds


def visible(lake):
    """Every object that a reader of the lake may open."""
    for area in ["processed", "raw", "error"]:
        for folder, _, names in os.walk(pathlib.Path(lake) / area):
            for name in names:
                yield pathlib.Path(folder) / name


def read_whole(path):
    """Reads every value of an object."""
    if path.suffix == ".parquet":
        with open(path, "rb") as file:
            table = pyarrow.parquet.ParquetFile(file)
            return sum(batch.num_rows for batch in table.iter_batches())
    with gzip.open(path, "rb") as file:
        return sum(1 for _ in file)


class Watcher:
    def __init__(self, lake):
        self.lake = pathlib.Path(lake)
        self.seen, self.faults = set(), []
        self.passes = self.counts = self.rows = self.parquet = 0
        self.connection = connect()
        self.counted = 0.0

    def lake_exists(self):
        return (self.lake / "_staging").is_dir()

    def scan(self):
        """Reads every object that is new."""
        self.passes += 1
        for path in visible(self.lake):
            if path in self.seen:
                continue
            try:
                read_whole(path)
            except Exception as fault:  # noqa: BLE001: whatever it is, a reader met it
                if not path.exists() and not self.lake_exists():
                    continue  # The lake was taken away.
                self.faults.append(f"{path.relative_to(self.lake)}: {type(fault).__name__}: {fault}")
            self.seen.add(path)
            self.parquet += path.suffix == ".parquet"

    def count(self):
        """Counts all rows at once."""
        rows = distinct = 0
        try:
            for dataset in datasets(self.lake):
                glob = parquet_glob(self.lake, dataset)
                if not any((self.lake / "processed" / dataset).rglob("*.parquet")):
                    continue
                found = self.connection.execute(
                    "SELECT count(*), count(DISTINCT (ingest_stream, ingest_shard, ingest_sequence, ingest_subsequence)) "
                    f"FROM read_parquet('{glob}', hive_partitioning = true)").fetchone()
                rows, distinct = rows + found[0], distinct + found[1]
        except (duckdb.Error, OSError) as fault:
            if self.lake_exists():
                self.faults.append(f"DuckDB: {fault}")
            return
        if not self.lake_exists():
            return
        self.counts += 1
        if rows != distinct:
            self.faults.append(f"{rows - distinct} of {rows} rows were there twice")
        if rows < self.rows:
            self.faults.append(f"there were {self.rows} rows, and then {rows}")
        self.rows = rows

    def watch(self, ended):
        while not ended.is_set() and not self.faults:
            self.scan()
            if time.monotonic() - self.counted > COUNT_EVERY:
                self.count()
                self.counted = time.monotonic()
            ended.wait(PAUSE)
        self.scan()
        self.count()

    def report(self):
        return {"passes": self.passes, "objects": len(self.seen), "parquet": self.parquet, "counts": self.counts,
                "rows": self.rows, "faults": self.faults}


def main():
    watcher, ended = Watcher(sys.argv[1]), threading.Event()

    def until_end_of_input():
        sys.stdin.buffer.read()
        ended.set()

    threading.Thread(target=until_end_of_input, daemon=True).start()
    watcher.watch(ended)
    print(json.dumps(watcher.report()))
    sys.exit(1 if watcher.faults else 0)


if __name__ == "__main__":
    main()
