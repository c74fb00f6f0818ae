"""Memory stays within `[limits] memory`, whatever the input: ten thousand partitions in one epoch.

A million assessments of 834 types in 12 months, each record of another partition than the one before it, are read into
10,000 partitions at several limits. The worker's peak resident memory, as the system counts it for the whole process, may
be the limit and 40 MiB for the process itself, which an empty run takes; DuckDB then finds every partition with all its rows, and
`verify` agrees. A lake whose partitions are written in one go has one file for each; the table says what a smaller limit costs: at
most one file more of a partition for each sixth of the limit that was read.

    python memory.py [--records 1000000] [--limits 512MiB,256MiB,128MiB]
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from common import binary, connect, parquet_glob, shardlake

PARTITIONS = 10_000
PROCESS_BYTES = 40 << 20
MONTHS = 12


def write_records(path, count):
    """Records that go through all partitions in turn."""
    with open(path, "w") as lines:
        for number in range(count):
            partition = number * 7919 % PARTITIONS
            kind, month = divmod(partition, MONTHS)
            record = {
                "id": f"assessment-{number:08}", "user_id": f"u-{number % 50_000:06}", "type": f"type-{kind:03}",
                "score": number % 1000 / 10, "duration": number % 3600,
                "timestamp": f"2025-{month + 1:02}-{number % 28 + 1:02}T{number % 24:02}:30:00.{number % 1000:03}Z",
                "user_age": 18 + number % 60, "user_region": f"DE-{number % 16:02}",
                "answers": [{"question": f"q{n:03}", "answer": "ABCD"[(number + n) % 4], "milliseconds": 500 + number % 9000}
                            for n in range(3)],
            }
            lines.write(json.dumps(record, separators=(",", ":")))
            lines.write("\n")


# A process begins with the memory of the one that starts it: this one is small.
STARTER = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(usage.ru_maxrss * 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def run(source, lake, limit):
    """Reads everything: peak resident bytes, and seconds."""
    begun = time.monotonic()
    args = [binary(), "run", "--source", str(source), "--lake", str(lake), "--until-caught-up", "--memory", limit]
    done = subprocess.run([sys.executable, "-c", STARTER, *args], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr}"
    return int(done.stdout), time.monotonic() - begun


def bytes_of(limit):
    units = {"MiB": 1 << 20, "GiB": 1 << 30}
    return int(limit[:-3]) * units[limit[-3:]]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--limits", default="512MiB,256MiB,128MiB")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        source = pathlib.Path(work) / "records.ndjson"
        write_records(source, arguments.records)
        print(f"{arguments.records:,} records, {source.stat().st_size / 1e6:.0f} MB, {PARTITIONS:,} partitions")
        print(f"{'limit':>10} {'peak MiB':>9} {'seconds':>8} {'files':>7} {'row groups':>10} {'Parquet MB':>10}")
        for limit in arguments.limits.split(","):
            lake = pathlib.Path(work) / f"lake-{limit}"
            peak, seconds = run(source, lake, limit)
            files = list((lake / "processed").rglob("*.parquet"))
            glob = parquet_glob(lake, "assessments")
            connection = connect()
            groups = connection.execute(
                f"SELECT count(*) FROM (SELECT DISTINCT file_name, row_group_id FROM parquet_metadata('{glob}'))"
            ).fetchone()[0]
            size = sum(file.stat().st_size for file in files)
            print(f"{limit:>10} {peak / (1 << 20):9.0f} {seconds:8.1f} {len(files):7,} {groups:10,} {size / 1e6:10.1f}",
                  flush=True)
            assert peak <= bytes_of(limit) + PROCESS_BYTES, f"a peak of {peak:,} bytes is over {limit}"
            files_max = PARTITIONS * -(-6 * source.stat().st_size // bytes_of(limit))
            assert len(files) <= files_max, f"{len(files):,} files, where {files_max:,} are enough"
            partitions, fewest, most, distinct = connection.execute(
                f"SELECT count(*), min(rows), max(rows), sum(keys) FROM (SELECT type, year, month, count(*) AS rows, "
                f"count(DISTINCT ingest_sequence) AS keys FROM read_parquet('{glob}', hive_partitioning = true) "
                f"GROUP BY ALL)"
            ).fetchone()
            each = arguments.records // PARTITIONS
            assert (partitions, fewest, most, distinct) == (PARTITIONS, each, each, arguments.records), (
                f"{partitions} partitions of {fewest} to {most} rows, {distinct} different records")
            shardlake("verify", "--lake", lake)
    print("memory is bounded, and every partition is complete")


if __name__ == "__main__":
    main()
