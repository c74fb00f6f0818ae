"""A million small objects: Shardlake reads them as a source, DuckDB reads them with `read_json`, on the same files.

    target/venv/bin/python benches/objects.py [--objects 1000000] [--bytes 700] [--binary target/release/shardlake] [--folder FOLDER]
    target/venv/bin/python benches/objects.py --s3 target/release/aws_server [--objects 1000000] [--bytes 700] [--binary …]

It writes small JSON documents into folders by day (unless FOLDER has them), and runs each program once on one core: first
`shardlake run --source objects://… --until-caught-up`, the whole process; then DuckDB, which reads the same columns and writes one Parquet
file. It prints one line of JSON for each: objects and megabytes a second of CPU time, wall time, and peak resident memory.

DuckDB does far less: it validates nothing, has no pseudonyms, no partitions, no provenance and no commit, and it expands the list of all
files before it reads. Linux only.

With `--s3` the same objects are in a bucket of `benches/aws_server`, which has a processor core of its own, and so are lake and leases.
DuckDB is not measured then.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

DUCKDB = """
import duckdb, sys
connection = duckdb.connect()
connection.execute("SET threads = 1")
connection.execute(f"COPY (SELECT id, user_id, type, score, duration, timestamp FROM read_json('{sys.argv[1]}/**/*.json')) "
                   f"TO '{sys.argv[2]}' (FORMAT parquet, COMPRESSION zstd)")
"""


def write_objects(folder, count, size):
    """Small documents as old Lambdas wrote them. Returns their bytes."""
    total = 0
    for n in range(count):
        day = folder / f"2025/{n // 28 % 12 + 1:02}/{n % 28 + 1:02}"
        if n < 12 * 28:
            day.mkdir(parents=True, exist_ok=True)
        document = {"id": f"a{n}", "user_id": f"u{n % 9973}", "type": "skills", "score": n % 101, "duration": n % 3600,
                    "timestamp": f"2025-{n // 28 % 12 + 1:02}-{n % 28 + 1:02}T10:00:00Z"}
        document["comment"] = "x" * max(0, size - len(json.dumps(document)) - 14)
        text = json.dumps(document)
        (day / f"{n:08x}.json").write_text(text)
        total += len(text)
    return total


def measure(name, command, objects, total, environment=None):
    """Runs a program on one core: what it took."""
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment, preexec_fn=lambda: os.sched_setaffinity(0, {0}))
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - begun
    assert os.waitstatus_to_exitcode(status) == 0, f"{name} ended with {os.waitstatus_to_exitcode(status)}"
    cpu = usage.ru_utime + usage.ru_stime
    print(json.dumps({"program": name, "objects_per_cpu_second": round(objects / cpu), "mb_per_cpu_second": round(total / cpu / 1e6, 1),
                      "cpu_seconds": round(cpu, 1), "wall_seconds": round(wall, 1), "peak_mb": usage.ru_maxrss // 1024}), flush=True)


def measure_s3(args):
    """The same objects in a bucket."""
    command = [str(args.s3), "--objects", str(args.objects), "--object-bytes", str(args.bytes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=lambda: os.sched_setaffinity(0, {1})) as server:
        try:
            served = json.loads(server.stdout.readline())
            environment = dict(
                os.environ, AWS_ENDPOINT_URL=served["url"], AWS_REGION="us-east-1", AWS_ACCESS_KEY_ID="none", AWS_SECRET_ACCESS_KEY="none",
                AWS_EC2_METADATA_DISABLED="true", SHARDLAKE_BENCH_KEY="07" * 32,
            )
            lake = ["--lake", "s3://lake", "--checkpoints", "dynamodb://leases"]
            args.folder.mkdir(parents=True, exist_ok=True)
            settings = args.folder / "s3.toml"
            settings.write_text('[anonymize]\nkey = "env:SHARDLAKE_BENCH_KEY"\n')
            lake += ["--config", str(settings)]
            run = ["run", "--source", "s3://source", *lake, "--until-caught-up", "--threads", "1", "--json"]
            measure("shardlake on S3", [str(args.binary), *run], args.objects, served["bytes"], environment)
            verify = subprocess.run([str(args.binary), "verify", *lake, "--json"], check=True, capture_output=True, env=environment)
            report = json.loads(verify.stdout)
            assert report["clean"] and report["records"] == args.objects, report
        finally:
            server.stdin.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--bytes", type=int, default=700)
    parser.add_argument("--binary", type=Path, default=Path("target/release/shardlake"))
    parser.add_argument("--folder", type=Path, default=Path("target/objects-bench"))
    parser.add_argument("--keep", action="store_true", help="keep the objects for the next run")
    parser.add_argument("--s3", type=Path, metavar="AWS_SERVER", help="the objects are in a bucket that this program serves")
    args = parser.parse_args()
    if args.s3:
        measure_s3(args)
        return
    source = args.folder / "in"
    known = args.folder / "bytes"
    if not known.exists():
        shutil.rmtree(args.folder, ignore_errors=True)
        total = write_objects(source, args.objects, args.bytes)
        known.write_text(f"{args.objects} {total}")
    objects, total = map(int, known.read_text().split())
    assert objects == args.objects, f"{args.folder} has {objects} objects: remove it, or name another folder"
    lake = args.folder / "lake"
    shutil.rmtree(lake, ignore_errors=True)
    command = [str(args.binary), "run", "--source", f"objects://{source}", "--lake", str(lake), "--until-caught-up", "--threads", "1", "--json"]
    measure("shardlake", command, objects, total)
    report = json.loads(subprocess.run([str(args.binary), "verify", "--lake", str(lake), "--json"], check=True, capture_output=True).stdout)
    assert report["clean"] and report["records"] == objects, report
    try:
        import duckdb  # noqa: F401
    except ModuleNotFoundError:
        print("DuckDB is not installed in this Python: it was not measured", file=sys.stderr)
    else:
        measure("duckdb", [sys.executable, "-c", DUCKDB, str(source), str(args.folder / "duckdb.parquet")], objects, total)
    if not args.keep:
        shutil.rmtree(args.folder)


if __name__ == "__main__":
    main()
