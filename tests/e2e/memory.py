"""Memory stays within `[limits] memory`, whatever the input: ten thousand partitions in one epoch.

The input is assessments of 834 types in 12 months; each record is of another partition than the one before it. A worker reads
them into 10,000 partitions at several limits. Three things are checked for each limit:

- the worker's peak resident memory, as the system counts it for the whole process, is at most the limit and 48 MiB. The
  process itself needs these 48 MiB, as an empty run of a debug build shows;
- DuckDB finds every partition with all its rows, and `verify` finds no fault;
- a partition has at most one file more for each sixth of the limit that was read. (A partition that is written in one go has
  one file. The printed table shows what a smaller limit costs.)

    python -m e2e.memory [--records 300000] [--limits 512MiB,128MiB]
    python -m e2e.memory --records 1000000 --limits 512MiB,256MiB,128MiB     the long form
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time

from e2e.common.binary import binary, verify
from e2e.common.lake import connect, parquet_glob

PARTITIONS = 10_000
PROCESS_BYTES = 48 << 20
MONTHS = 12


def write_records(path, count):
    """Records that visit all partitions in turn."""
    with open(path, "w") as lines:
        for number in range(count):
            kind, month = divmod(number * 7919 % PARTITIONS, MONTHS)
            answers = ",".join(
                f'{{"question":"q{n:03}","answer":"{"ABCD"[(number + n) % 4]}","milliseconds":{500 + number % 9000}}}'
                for n in range(3))
            lines.write(
                f'{{"id":"assessment-{number:08}","user_id":"u-{number % 50_000:06}","type":"type-{kind:03}",'
                f'"score":{number % 1000 / 10},"duration":{number % 3600},'
                f'"timestamp":"2025-{month + 1:02}-{number % 28 + 1:02}T{number % 24:02}:30:00.{number % 1000:03}Z",'
                f'"user_age":{18 + number % 60},"user_region":"DE-{number % 16:02}","answers":[{answers}]}}\n')


# A child process begins with the resident memory of its parent, so the worker is started by a small one.
STARTER = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(usage.ru_maxrss * 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def run(source, lake, limit):
    """Reads everything. Returns the peak of resident bytes, and the seconds."""
    started = time.monotonic()
    args = [binary(), "run", "--source", str(source), "--lake", str(lake), "--until-caught-up", "--memory", limit]
    done = subprocess.run([sys.executable, "-c", STARTER, *args], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr}"
    return int(done.stdout), time.monotonic() - started


def bytes_of(limit):
    units = {"MiB": 1 << 20, "GiB": 1 << 30}
    return int(limit[:-3]) * units[limit[-3:]]


def check(source, lake, limit, records):
    """Runs a worker at one limit, prints a line of the table, and checks the lake."""
    peak, seconds = run(source, lake, limit)
    files = list((lake / "processed").rglob("*.parquet"))
    glob = parquet_glob(lake, "assessments")
    connection = connect()
    groups = connection.execute(
        f"SELECT count(*) FROM (SELECT DISTINCT file_name, row_group_id FROM parquet_metadata('{glob}'))"
    ).fetchone()[0]
    size = sum(file.stat().st_size for file in files)
    print(f"{limit:>10} {peak / (1 << 20):9.0f} {seconds:8.1f} {len(files):7,} {groups:10,} {size / 1e6:10.1f}", flush=True)
    assert peak <= bytes_of(limit) + PROCESS_BYTES, f"a peak of {peak:,} bytes exceeds {limit}"
    files_max = PARTITIONS * -(-6 * source.stat().st_size // bytes_of(limit))
    assert len(files) <= files_max, f"{len(files):,} files, more than the {files_max:,} allowed"
    partitions, fewest, most, distinct = connection.execute(
        f"SELECT count(*), min(rows), max(rows), sum(keys) FROM (SELECT type, year, month, count(*) AS rows, "
        f"count(DISTINCT ingest_sequence) AS keys FROM read_parquet('{glob}', hive_partitioning = true) "
        f"GROUP BY ALL)"
    ).fetchone()
    each = records // PARTITIONS
    assert (partitions, fewest, most, distinct) == (PARTITIONS, each, each, records), (
        f"{partitions} partitions of {fewest} to {most} rows, {distinct} different records")
    verify("--lake", lake)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=300_000, help=f"a multiple of {PARTITIONS:,}")
    parser.add_argument("--limits", default="512MiB,128MiB")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        source = pathlib.Path(work) / "records.ndjson"
        write_records(source, arguments.records)
        print(f"{arguments.records:,} records, {source.stat().st_size / 1e6:.0f} MB, {PARTITIONS:,} partitions")
        print(f"{'limit':>10} {'peak MiB':>9} {'seconds':>8} {'files':>7} {'row groups':>10} {'Parquet MB':>10}")
        for limit in arguments.limits.split(","):
            check(source, pathlib.Path(work) / f"lake-{limit}", limit, arguments.records)
    print("memory is bounded, and every partition is complete")


if __name__ == "__main__":
    main()
