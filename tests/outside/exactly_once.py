"""Every record lands exactly once, though its workers are killed again and again.

Two processes on one store read files of a million records (0.5 % bad). Twenty times one of them is killed with SIGKILL at
a random moment and started again. Then DuckDB reads the lake, and what it finds is compared with the files, record by
record: (stream, shard, sequence, subsequence) of rows and dead letters are exactly the input, each once, and every row is
the same as in a lake that was written in one go. `verify` agrees, and finds each kind of tampering.

    python exactly_once.py [--records 1000000] [--files 8] [--kills 20] [--seed 1]
"""

import argparse
import collections
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import time

from common import (
    binary, connect, datasets, dead_letters, lines_of, parquet_glob, raw_lines, row_keys, shardlake,
)


def start(source, lake, log):
    """One worker, with short epochs, so that kills fall into every part of them."""
    args = [binary(), "run", "--source", str(source), "--lake", str(lake), "--until-caught-up", "--threads", "1",
            "--commit-interval", "400ms"]
    return subprocess.Popen(args, stdout=log, stderr=log)


def run_and_kill(source, lake, kills, rng, log):
    """Two workers until all is read; `kills` times one of them dies."""
    workers = [start(source, lake, log), start(source, lake, log)]
    killed = 0
    deadline = time.monotonic() + 1200
    while any(worker.poll() is None for worker in workers):
        assert time.monotonic() < deadline, "the workers did not catch up in time"
        if killed < kills:
            time.sleep(rng.uniform(0.05, 1.2))
            which = rng.randrange(2)
            workers[which].send_signal(signal.SIGKILL)
            workers[which].wait()
            killed += 1
            workers[which] = start(source, lake, log)
        else:
            time.sleep(0.1)
        # One that caught up while there are kills to come goes on as a new one would: there may be nothing to do.
    codes = [worker.wait() for worker in workers]
    assert codes == [0, 0], f"the last workers ended with {codes}"
    return killed


def same_rows(connection, one, other):
    """Compares every column of every row of two lakes but for the stream's name, which is a path."""
    for dataset in datasets(one):
        def rows(lake):
            return (f"SELECT * EXCLUDE (ingest_stream) FROM "
                    f"read_parquet('{parquet_glob(lake, dataset)}', hive_partitioning = true)")
        for left, right in [(one, other), (other, one)]:
            extra = connection.execute(f"SELECT count(*) FROM ({rows(left)} EXCEPT ALL {rows(right)})").fetchone()[0]
            assert extra == 0, f"{dataset}: {extra} rows of {left} are not in {right}"


def tamper(lake, scratch):
    """`verify` finds a deleted, a doubled, an altered object, and a missing commit record."""
    def copy():
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(lake, scratch)
        return pathlib.Path(scratch)

    def faults_of(changed):
        done = subprocess.run([binary(), "verify", "--lake", str(changed)], capture_output=True, text=True, timeout=600)
        assert done.returncode == 1, f"exit {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def one(changed, pattern):
        return sorted(changed.glob(pattern))[0]

    for pattern in ["processed/**/*.parquet", "raw/**/*.json.gz", "error/**/*.json.gz"]:
        changed = copy()
        gone = one(changed, pattern)
        gone.unlink()
        assert f"missing: {gone.relative_to(changed)}" in faults_of(changed)

        changed = copy()
        first = one(changed, pattern)
        double = first.with_name("copy-" + first.name)
        shutil.copy(first, double)
        assert f"unknown: {double.relative_to(changed)}" in faults_of(changed)

        changed = copy()
        altered = one(changed, pattern)
        content = bytearray(altered.read_bytes())
        content[len(content) // 2] ^= 1
        altered.write_bytes(content)
        assert f"altered: {altered.relative_to(changed)}" in faults_of(changed)

    records = sorted(p.name for p in (lake / "_commits").iterdir())
    for name in {records[0], records[len(records) // 2], records[-1]}:
        changed = copy()
        (changed / "_commits" / name).unlink()
        told = faults_of(changed)
        assert "gap: " in told and "unknown: " in told, told
    shutil.rmtree(scratch, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", help="work here, and leave everything behind")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    folder = pathlib.Path(args.folder or tempfile.mkdtemp(prefix="shardlake-"))
    source, lake, plain = folder / "in", folder / "lake", folder / "plain"
    shardlake("produce", "--to", f"{source}/", "--count", args.records, "--files", args.files, "--seed", args.seed,
              "--bad-ratio", 0.005)
    with open(folder / "workers.log", "wb") as log:
        begun = time.monotonic()
        killed = run_and_kill(source, lake, args.kills, rng, log)
        took = time.monotonic() - begun
    assert killed == args.kills, f"only {killed} kills: more records are needed"

    connection = connect()
    expected = collections.Counter(lines_of(source))
    assert sum(expected.values()) == args.records
    rows = collections.Counter((shard, sequence) for _, shard, sequence, _ in row_keys(connection, lake))
    letters = collections.Counter((letter["shardId"], letter["sequenceNumber"]) for letter in dead_letters(lake))
    assert max((rows + letters).values()) == 1, "a record is there twice"
    assert rows + letters == expected, "rows and dead letters are not the input"
    assert raw_lines(lake) == args.records, "raw lines are not the input"
    epochs = len(list((lake / "_commits").iterdir()))
    leftovers = [p for p in (lake / "_staging").iterdir() if not p.name.startswith("put-")]

    # The same in one go, under the same key: every row must be the same, column by column.
    shutil.copy(f"{lake}.pseudonym.key", f"{plain}.pseudonym.key")
    shardlake("run", "--source", source, "--lake", plain, "--until-caught-up")
    same_rows(connection, lake, plain)

    assert "no fault found" in shardlake("verify", "--lake", lake)
    shardlake("sweep", "--lake", lake)
    tamper(lake, folder / "tampered")
    print(f"exactly once: {args.records} records, {sum(rows.values())} rows, {sum(letters.values())} dead letters; "
          f"{killed} kills in {took:.0f} s, {epochs} epochs, {len(leftovers)} uploads left to be swept")
    if not args.folder:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
