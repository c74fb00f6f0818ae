"""A worker that runs for a long time stays as large as it is.

Two workers share a source that is fed all the time. One of them is left alone and watched: its memory, file descriptors and
threads are sampled from /proc every few seconds. The other one is killed or told to stop every ten to twenty-five seconds and started
again, so that leases, readers and epochs come and go in the one that stays. At the end each number must be flat
(`slopes.py` says what that means), and every record must be in the lake exactly once.

    python tests/chaos/soak.py --minutes 30 [--rate 400] [--out samples.csv] [--seed 1]
        files: some that grow, others that are moved into a folder, a lake in a folder, SQLite
    localstack/run python tests/chaos/soak.py --kinesis --minutes 30 [--rate 150] [--out samples.csv]
        a stream that is being filled, a bucket, a lease table
    python tests/chaos/soak.py --judge samples.csv
        judges samples again

Linux only: it reads /proc.
"""

import argparse
import csv
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "fleet"), str(HERE.parent / "outside")]
import fleet as fleets  # noqa: E402
import judge as judges  # noqa: E402
import slopes  # noqa: E402
from common import shardlake  # noqa: E402
from feeder import Feeder, Mover  # noqa: E402
from supervised import Supervised, personal_values  # noqa: E402

SAMPLE_EVERY = 2.0  # seconds
RESTART_EVERY = (10, 25)
COLUMNS = ["seconds", "rss", "anonymous", "descriptors", "threads", "others"]


def arguments():
    default = pathlib.Path(__file__).resolve().parents[2] / "target" / "release" / "shardlake"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=os.environ.get("SHARDLAKE_BIN", str(default)), help="the worker")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, help="records a second [default: 400, 150 with --kinesis]")
    parser.add_argument("--arriving", type=float, default=0.5, metavar="PART",
                        help="the part of the records that comes in files of its own, not at the end of files that grow")
    parser.add_argument("--file-lines", type=int, default=600, metavar="N", help="lines of such a file")
    parser.add_argument("--kinesis", action="store_true", help="read a stream of the local stack, not files")
    parser.add_argument("--commit-interval", help="[default: 2s, 10s with --kinesis]")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--out", help="keep the samples in this file")
    parser.add_argument("--judge", metavar="FILE", help="judge these samples, and do nothing else")
    parser.add_argument("--folder", help="work here, and leave everything behind")
    args = parser.parse_args()
    args.rate = args.rate or (150 if args.kinesis else 400)
    args.commit_interval = args.commit_interval or ("10s" if args.kinesis else "2s")
    args.bin = str(pathlib.Path(args.bin).resolve())
    if not args.judge and not pathlib.Path(args.bin).is_file():
        parser.error(f"there is no {args.bin}: cargo build --release")
    if args.kinesis and not any(name.startswith("AWS_ENDPOINT_URL") for name in os.environ):
        parser.error("no AWS_ENDPOINT_URL is set: run it under localstack/run")
    return args


def sample(pid):
    """What a process takes, as the system counts it."""
    status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    kib = lambda name: int(status[name].split()[0]) << 10  # noqa: E731
    return {"rss": kib("VmRSS"), "anonymous": kib("RssAnon"), "threads": int(status["Threads"]),
            "descriptors": len(os.listdir(f"/proc/{pid}/fd"))}


class Soaking(Supervised):
    """Of its workers the first is left alone."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.samples, self.begun = [], time.monotonic()
        self.restart_at = self.begun + RESTART_EVERY[0]
        self.sample_at = self.begun

    def _any_awake(self):
        return self.rng.choice(self.workers[1:])

    def step(self):
        """Watches, samples, and restarts the other one when it is time."""
        self.watch()
        now = time.monotonic()
        if now >= self.sample_at:
            self.sample_at = now + SAMPLE_EVERY
            taken = sample(self.workers[0].process.pid)
            self.samples.append({"seconds": round(now - self.begun, 3), **taken, "others": self.started - 1})
        if now >= self.restart_at and len(self.workers) > 1:
            self.restart_at = now + self.rng.uniform(*RESTART_EVERY)
            self.tell(self.kill() if self.rng.random() < 0.5 else self.stop())
        time.sleep(0.05)


class Quiet:
    """Tells the time now and then, not every restart."""

    def __init__(self):
        self.begun = self.told = time.monotonic()

    def __call__(self, text):
        if time.monotonic() > self.told + 60:
            self.told = time.monotonic()
            print(f"{self.told - self.begun:7.1f} s  {text}", flush=True)


def soak_files(args, folder):
    """Files in, a lake in a folder. The samples."""
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
    with open(records[0], "rb") as file:
        personal = personal_values(line for _, line in zip(range(20_000), file))
    # The number of growing files is fixed: each is a shard, for which a worker keeps a reader.
    feeders = [Feeder(records[0], source, rates[0], args.seed, files=(4, 4)) if rates[0] else None,
               Mover(records[1], folder / "making", arriving, rates[1], args.seed, args.file_lines) if rates[1] else None]
    feeders = [feeder for feeder in feeders if feeder]
    place = ["--lake", lake]
    command = [args.bin, "run", "--config", str(config), "--source", str(source), *map(str, place), "--threads", "1",
               "--commit-interval", args.commit_interval]
    fleet = Soaking(command, 2, folder, rng, dict(os.environ), personal, Quiet())
    try:
        for feeder in feeders:
            feeder.start()
        while time.monotonic() < fleet.begun + 60 * args.minutes:
            fleet.step()
            for feeder in feeders:
                feeder.check()
        for feeder in feeders:
            feeder.finish()
        # A file must have been still for two seconds before it is taken for complete.
        until = time.monotonic() + 5
        while time.monotonic() < until:
            fleet.step()
        fleet.stop_all()
        fleet.read_the_rest(300)
    finally:
        for feeder in feeders:
            feeder.stop()
        fleet.end()
        write(args, fleet.samples)
    plain = folder / "plain"
    shutil.copy(f"{lake}.pseudonym.key", f"{plain}.pseudonym.key")
    found = judges.judge_content(lake, source, place, plain)
    moved = sum(getattr(feeder, "moved", 0) for feeder in feeders)
    print(f"\nexactly once: {found}; {moved:,} files; the other worker was started {fleet.started - 2} times")
    return fleet.samples


class SoakOfAStream(fleets.Test):
    """The fleet's test, with one worker that is left alone, and nothing done to the shards."""

    def start_fleet(self):
        with open(self.records, "rb") as file:
            personal = personal_values(line for _, line in zip(range(20_000), file))
        self.fleet = Soaking(self.worker_command(), 2, self.folder, self.rng, {"RUST_LOG": "warn", **os.environ}, personal,
                             Quiet())

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


def soak_a_stream(args, folder):
    more = argparse.Namespace(
        bin=args.bin, records=int(args.rate * 60 * args.minutes), workers=2, shards=4, kills=0, reshards=0, rate=args.rate,
        lose=0, aggregate=50, commit_interval=args.commit_interval, timeout=60 * args.minutes + 1800, seed=args.seed,
        only_the_stream=False, out=args.out)
    test = SoakOfAStream(more, folder)
    test.run()
    return test.fleet.samples


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
    """Prints the table, and fails if something grows."""
    fits = slopes.judge(samples)
    took = samples[-1]["seconds"] - samples[0]["seconds"]
    print(f"\n{len(samples):,} samples in {took / 60:.1f} minutes, the first fifth left out:")
    for line in slopes.table(fits):
        print(f"  {line}")
    growing = [name for name, fit in fits.items() if fit.grows()]
    assert not growing, f"{', '.join(growing)} of a worker that was left alone grew"


def main():
    args = arguments()
    if args.judge:
        return check_flat(read(args.judge))
    os.environ["SHARDLAKE_BIN"] = args.bin
    folder = pathlib.Path(args.folder or tempfile.mkdtemp(prefix="shardlake-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        check_flat((soak_a_stream if args.kinesis else soak_files)(args, folder))
    except BaseException:
        print(f"\nFAILED, with --seed {args.seed}; what is left is in {folder}", file=sys.stderr, flush=True)
        raise
    if not args.folder:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
