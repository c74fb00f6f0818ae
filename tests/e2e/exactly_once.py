"""Every record lands exactly once, although workers are killed again and again.

Two processes with one lease store read files of records, 0.5 % of them bad. The files arrive one after the other, so that there is
always something to read. Twenty times, one of the processes is killed with SIGKILL at a random moment and started again. Then DuckDB
reads the lake, and the lake is compared with the files record by record:

- the positions (stream, shard, sequence, subsequence) of rows and dead letters are exactly those of the input, each once;
- every row has the values that it has in a lake that one worker wrote without interruption;
- `verify` finds no fault in this lake, and finds each kind of tampering in a smaller one.

    python -m e2e.exactly_once [--records 400000] [--files 20] [--kills 20] [--seed 1] [--folder FOLDER]
"""

import argparse
import collections
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

from e2e.common.binary import binary, shardlake, verify
from e2e.common.checks import check_once, check_values
from e2e.common.lake import connect, dead_letters, raw_lines, row_keys, source_positions
from e2e.common.session import in_folder

CAUGHT_UP_WITHIN = 1200  # seconds
TAMPERED_RECORDS = 20_000


class Workers:
    """Two workers with short epochs, so that kills hit every part of them."""

    def __init__(self, source, lake, log):
        self.lake, self.log = lake, log
        self.command = [binary(), "run", "--source", str(source), "--lake", str(lake), "--threads", "1", "--commit-interval", "400ms"]
        self.processes = [self.start(), self.start()]

    def start(self, *more_flags):
        return subprocess.Popen([*self.command, *more_flags], stdout=self.log, stderr=self.log)

    def kill(self, victim):
        process = self.processes[victim]
        assert process.poll() is None, f"a worker ended by itself with exit code {process.returncode}"
        process.send_signal(signal.SIGKILL)
        process.wait()

    def epochs(self):
        commits = self.lake / "_commits"
        return len(os.listdir(commits)) if commits.is_dir() else 0

    def read_the_rest(self):
        """Starts both again, and waits until they have read and committed everything."""
        for number in range(2):
            self.kill(number)
            self.processes[number] = self.start("--until-caught-up")
        codes = [process.wait(CAUGHT_UP_WITHIN) for process in self.processes]
        assert codes == [0, 0], f"the last workers ended with exit codes {codes}"

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()


def run_and_kill(arriving, source, lake, kills, rng, log):
    """Moves the files into the source one after the other, kills a worker `kills` times, and lets two read the rest."""
    files = sorted(arriving.iterdir())
    source.mkdir()
    workers = Workers(source, lake, log)
    try:
        for number in range(kills):
            for file in files[len(files) * number // kills:len(files) * (number + 1) // kills]:
                file.rename(source / file.name)
            # Half of the kills hit a worker in its first moments, the other half after an epoch of either was committed.
            if rng.random() < 0.5:
                before, deadline = workers.epochs(), time.monotonic() + 3
                while workers.epochs() == before and time.monotonic() < deadline:
                    time.sleep(0.02)
            time.sleep(rng.uniform(0.02, 0.6))
            victim = rng.randrange(2)
            workers.kill(victim)
            workers.processes[victim] = workers.start()
        workers.read_the_rest()
    finally:
        workers.end()


def check_tampering(folder):
    """`verify` reports a deleted, a copied and an altered object of each area, and a missing commit record."""
    folder.mkdir()
    source, lake, tampered = folder / "in", folder / "lake", folder / "tampered"
    # Three runs, so that the lake has three epochs at least.
    for part in range(3):
        shardlake("produce", "--to", source / f"part-{part}.ndjson", "--count", TAMPERED_RECORDS // 3, "--seed", part,
                  "--bad-ratio", 0.005)
        shardlake("run", "--source", source, "--lake", lake, "--until-caught-up")

    def copy():
        shutil.rmtree(tampered, ignore_errors=True)
        shutil.copytree(lake, tampered)
        return tampered

    def faults():
        done = subprocess.run([binary(), "verify", "--lake", str(tampered)], capture_output=True, text=True, timeout=600)
        assert done.returncode == 1, f"exit code {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def check(kind, path):
        report = faults()
        assert f"{kind}: {path.relative_to(tampered)}" in report, report

    for pattern in ["processed/**/*.parquet", "raw/**/*.json.gz", "error/**/*.json.gz"]:
        deleted = sorted(copy().glob(pattern))[0]
        deleted.unlink()
        check("missing", deleted)

        original = sorted(copy().glob(pattern))[0]
        copied = original.with_name("copy-" + original.name)
        shutil.copy(original, copied)
        check("unknown", copied)

        altered = sorted(copy().glob(pattern))[0]
        content = bytearray(altered.read_bytes())
        content[len(content) // 2] ^= 1
        altered.write_bytes(content)
        check("altered", altered)

    records = sorted(os.listdir(lake / "_commits"))
    assert len(records) >= 3, records
    for name in {records[0], records[len(records) // 2], records[-1]}:
        (copy() / "_commits" / name).unlink()
        report = faults()
        assert "gap: " in report and "unknown: " in report, report


def run(args, folder):
    rng = random.Random(args.seed)
    arriving, source, lake, reference = folder / "arriving", folder / "in", folder / "lake", folder / "reference"
    shardlake("produce", "--to", f"{arriving}/", "--count", args.records, "--files", args.files, "--seed", args.seed,
              "--bad-ratio", 0.005)
    with open(folder / "workers.log", "wb") as log:
        started = time.monotonic()
        run_and_kill(arriving, source, lake, args.kills, rng, log)
        seconds = time.monotonic() - started

    connection = connect()
    expected = source_positions(source)
    assert expected.total() == args.records
    rows = collections.Counter((shard, sequence) for _, shard, sequence, _ in row_keys(connection, lake))
    dead = collections.Counter((dead["shardId"], dead["sequenceNumber"]) for dead in dead_letters(lake))
    check_once(expected, rows, dead)
    raw = sum(1 for _ in raw_lines(lake))
    assert raw == args.records, f"raw/ has {raw:,} lines, the input {args.records:,} records"
    epochs = len(os.listdir(lake / "_commits"))
    staged = [name for name in os.listdir(lake / "_staging") if not name.startswith("put-")]

    # The same input in one run, under the same pseudonym key. Only the stream's name differs, which is a path.
    shutil.copy(f"{lake}.pseudonym.key", f"{reference}.pseudonym.key")
    shardlake("run", "--source", source, "--lake", reference, "--until-caught-up")
    check_values(connection, lake, reference, ignored=["ingest_stream"])

    verify("--lake", lake)
    shardlake("sweep", "--lake", lake)
    check_tampering(folder / "small")
    print(f"exactly once: {args.records:,} records, {rows.total():,} rows, {dead.total():,} dead letters; "
          f"{args.kills} kills in {seconds:.0f} s, {epochs} epochs, {len(staged)} uploads that a sweep may remove")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=400_000)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", help="use this folder and keep everything in it")
    args = parser.parse_args()
    in_folder(args, "exactly-once", lambda folder: run(args, folder))


if __name__ == "__main__":
    main()
