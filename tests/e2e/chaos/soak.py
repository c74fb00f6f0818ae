"""A worker that runs for a long time keeps its size.

Two workers share a source that is fed all the time. One of them is left alone and watched: its memory, file descriptors and
threads are sampled from /proc every two seconds. The other one is killed or asked to stop every ten to twenty-five seconds and started
again, so that leases, readers and epochs come and go in the first. At the end each number must be flat (`slopes.py` defines that),
and every record must be in the lake exactly once.

    python -m e2e.chaos.soak --minutes 30 [--rate 400] [--out samples.csv] [--seed 1]
        files: some that grow, others that are moved into a folder; a lake in a folder; SQLite
    localstack/run python -m e2e.chaos.soak --kinesis --minutes 30 [--rate 150] [--out samples.csv]
        a stream that is being filled, a bucket, a lease table
    python -m e2e.chaos.soak --judge samples.csv
        judges samples again

Linux only: it reads /proc.
"""

import argparse
import csv
import os
import pathlib
import random
import shutil
import time

from e2e.chaos import slopes
from e2e.chaos.feeder import Feeder, Mover
from e2e.chaos.judge import judge_content
from e2e.chaos.supervised import Supervised, personal_values_of_file
from e2e.common import binary
from e2e.common.binary import shardlake
from e2e.common.session import in_folder, sleep
from e2e.fleet import suite

SAMPLE_EVERY = 2.0  # seconds
RESTART_EVERY = (10, 25)
COLUMNS = ["seconds", "rss", "anonymous", "descriptors", "threads", "others"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    binary.add_flag(parser)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, help="records a second [default: 400, 150 with --kinesis]")
    parser.add_argument("--arriving", type=float, default=0.5, metavar="PART",
                        help="the part of the records that arrives in complete files, not at the end of growing files")
    parser.add_argument("--file-lines", type=int, default=600, metavar="N", help="lines of such a file")
    parser.add_argument("--kinesis", action="store_true", help="read a stream of the local stack instead of files")
    parser.add_argument("--commit-interval", help="[default: 2s, 10s with --kinesis]")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--out", help="keep the samples in this file")
    parser.add_argument("--judge", metavar="FILE", help="judge the samples of this file, and do nothing else")
    parser.add_argument("--folder", help="use this folder and keep everything in it")
    args = parser.parse_args()
    args.rate = args.rate or (150 if args.kinesis else 400)
    args.commit_interval = args.commit_interval or ("10s" if args.kinesis else "2s")
    if not args.judge:
        binary.use(parser, args)
    if args.kinesis:
        binary.require_endpoint(parser)
    return args


def sample(pid):
    """What a process uses, as the system counts it."""
    status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    kib = lambda name: int(status[name].split()[0]) << 10  # noqa: E731
    return {"rss": kib("VmRSS"), "anonymous": kib("RssAnon"), "threads": int(status["Threads"]),
            "descriptors": len(os.listdir(f"/proc/{pid}/fd"))}


class SoakFleet(Supervised):
    """A fleet whose first worker is left alone."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.samples, self.began = [], time.monotonic()
        self.restart_at = self.began + RESTART_EVERY[0]
        self.sample_at = self.began

    def _any_awake(self):
        return self.rng.choice(self.workers[1:])

    def step(self):
        """Watches, samples, and restarts the other worker when it is time."""
        self.watch()
        now = time.monotonic()
        if now >= self.sample_at:
            self.sample_at = now + SAMPLE_EVERY
            taken = sample(self.workers[0].process.pid)
            self.samples.append({"seconds": round(now - self.began, 3), **taken, "others": self.started - 1})
        if now >= self.restart_at and len(self.workers) > 1:
            self.restart_at = now + self.rng.uniform(*RESTART_EVERY)
            self.log(self.kill() if self.rng.random() < 0.5 else self.stop())
        time.sleep(0.05)


class MinuteLog:
    """Prints at most one line a minute: restarts are too frequent to log them all."""

    def __init__(self):
        self.began = self.logged = time.monotonic()

    def __call__(self, text):
        if time.monotonic() > self.logged + 60:
            self.logged = time.monotonic()
            print(f"{self.logged - self.began:7.1f} s  {text}", flush=True)


def soak_files(args, folder):
    """Files in, a lake in a folder. Returns the samples."""
    rng = random.Random(args.seed)
    source, arriving, lake = folder / "in", folder / "in" / "arriving", folder / "lake"
    arriving.mkdir(parents=True)
    config = folder / "shardlake.toml"
    config.write_text('[leases]\nfailover = "4s"\nhand_off = "6s"\n\n[limits]\nmemory = "128 MiB"\n')
    records = [folder / "growing.ndjson", folder / "arriving.ndjson"]
    rates = [args.rate * (1 - args.arriving), args.rate * args.arriving]
    for number, (path, rate) in enumerate(zip(records, rates)):
        shardlake("produce", "--to", path, "--count", int(rate * (60 * args.minutes + 60)) + 1000, "--seed",
                  args.seed + number, "--bad-ratio", 0.005)
    # The number of growing files is fixed: each is a shard, for which a worker keeps a reader.
    feeders = [Feeder(records[0], source, rates[0], args.seed, files=(4, 4)) if rates[0] else None,
               Mover(records[1], folder / "staging", arriving, rates[1], args.seed, args.file_lines) if rates[1] else None]
    feeders = [feeder for feeder in feeders if feeder]
    lake_flags = ["--lake", lake]
    command = [args.bin, "run", "--config", str(config), "--source", str(source), *map(str, lake_flags), "--threads", "1",
               "--commit-interval", args.commit_interval]
    fleet = SoakFleet(command, 2, folder, rng, dict(os.environ), personal_values_of_file(records[0]), MinuteLog())
    try:
        for feeder in feeders:
            feeder.start()
        while time.monotonic() < fleet.began + 60 * args.minutes:
            fleet.step()
            for feeder in feeders:
                feeder.check()
        for feeder in feeders:
            feeder.finish()
        # A file counts as complete when it has not grown for two seconds.
        sleep(5, fleet.step)
        fleet.stop_all()
        fleet.read_the_rest(300)
    finally:
        for feeder in feeders:
            feeder.stop()
        fleet.end()
        write(args, fleet.samples)
    reference = folder / "reference"
    shutil.copy(f"{lake}.pseudonym.key", f"{reference}.pseudonym.key")
    counted = judge_content(lake, source, lake_flags, reference)
    moved = sum(getattr(feeder, "moved", 0) for feeder in feeders)
    print(f"\nexactly once: {counted}; {moved:,} files; the other worker was started {fleet.started - 2} times")
    return fleet.samples


class StreamSoak(suite.Suite):
    """The fleet's suite with one worker that is left alone, and nothing done to the shards."""

    def start_fleet(self):
        self.fleet = SoakFleet(self.worker_command(), 2, self.folder, self.rng, {"RUST_LOG": "warn", **os.environ},
                               personal_values_of_file(self.records), MinuteLog())

    def trouble(self, filling):
        filling.released.set()
        while filling.is_alive():
            filling.check()
            self.fleet.step()
        filling.join()
        filling.check()
        write(self.args, self.fleet.samples)

    def network_results(self):
        return []


def soak_stream(args, folder):
    """A stream in, a lake in a bucket. Returns the samples."""
    more = argparse.Namespace(
        bin=args.bin, records=int(args.rate * 60 * args.minutes), workers=2, shards=4, kills=0, reshards=0, rate=args.rate,
        lose=0, aggregate=50, commit_interval=args.commit_interval, timeout=60 * args.minutes + 1800, seed=args.seed,
        only_the_stream=False, out=args.out)
    soak = StreamSoak(more, folder)
    soak.run()
    return soak.fleet.samples


def write(args, samples):
    if args.out:
        with open(args.out, "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(samples)


def read(path):
    with open(path, newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def check_flat(samples):
    """Prints the table, and fails if a number grows."""
    fits = slopes.judge(samples)
    seconds = samples[-1]["seconds"] - samples[0]["seconds"]
    print(f"\n{len(samples):,} samples in {seconds / 60:.1f} minutes, without the first fifth:")
    for line in slopes.table(fits):
        print(f"  {line}")
    growing = [name for name, fit in fits.items() if fit.grows()]
    assert not growing, f"{', '.join(growing)} of the worker that was left alone grew"


def main():
    args = arguments()
    if args.judge:
        return check_flat(read(args.judge))
    soak = soak_stream if args.kinesis else soak_files
    in_folder(args, "soak", lambda folder: check_flat(soak(args, folder)))


if __name__ == "__main__":
    main()
