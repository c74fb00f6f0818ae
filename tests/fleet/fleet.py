"""Every record of a stream lands in the lake exactly once, whatever is done to the fleet and to the stream's shards.

A fleet of workers reads a stream that is being filled: mixed records, 0.5 % of them bad, most in aggregates of the Kinesis
Producer Library, some plain, some aggregates broken. Meanwhile workers are killed (SIGKILL) and replaced, one is stalled
(SIGSTOP) for three times the failover time and wakes up as a zombie, one is told to stop, shards are split and merged, and
of the workers' requests a part is lost, before or after the service has carried it out (`lossy.py`).
In the end the stream is read again with AWS's own client, and the lake with DuckDB:

- every record of the stream is one row or one dead letter, by (shard, sequence, subsequence), and one line of `raw/`,
  byte by byte;
- every row has the values that it has in a lake which is made of the same records from a file;
- no object is visible that no commit record names; `shardlake verify` finds no fault.

    localstack/run python tests/fleet/fleet.py --bin target/release/shardlake
        [--records 400000] [--workers 4] [--shards 8] [--kills 10] [--reshards 2] [--rate 1500] [--lose 0.005] [--seed 1]

What is used of AWS is whatever AWS_ENDPOINT_URL and the like say: it refuses to run without one.
"""

import argparse
import collections
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import boto3  # noqa: E402

import lake as lakes  # noqa: E402
import stream as streams  # noqa: E402
from lossy import LossyNetwork  # noqa: E402
from workers import Fleet  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "outside"))
from common import connect  # noqa: E402

FAILOVER, HAND_OFF = 4, 10  # seconds


def parser(description):
    """What can be asked for."""
    parser = argparse.ArgumentParser(description=description)
    default = pathlib.Path(__file__).resolve().parents[2] / "target" / "release" / "shardlake"
    parser.add_argument("--bin", default=os.environ.get("SHARDLAKE_BIN", str(default)), help="the worker")
    parser.add_argument("--records", type=int, default=400_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--reshards", type=int, default=2, help="each is one split and one merge")
    parser.add_argument("--rate", type=float, default=1500, help="records a second at most that are put")
    parser.add_argument("--lose", type=float, default=0.005, help="the part of the workers' requests that is lost")
    parser.add_argument("--aggregate", type=int, default=100, help="records in one aggregate")
    parser.add_argument("--commit-interval", default="5s")
    parser.add_argument("--timeout", type=float, default=3000, help="seconds for all of it")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--folder", help="work here, and leave everything behind")
    parser.add_argument("--only-the-stream", action="store_true",
                        help="no workers and no lake: try filling, resharding and reading alone")
    return parser


def arguments(parser):
    """What was asked for, if it makes sense."""
    args = parser.parse_args()
    if not any(name.startswith("AWS_ENDPOINT_URL") for name in os.environ):
        parser.error("no AWS_ENDPOINT_URL is set: run it under localstack/run")
    if not pathlib.Path(args.bin).is_file():
        parser.error(f"there is no {args.bin}: cargo build --release")
    if args.workers < 2:
        parser.error("--workers must be 2 or more: one is stalled")
    return args


class Test:
    def __init__(self, args, folder):
        self.args, self.folder = args, folder
        self.rng = random.Random(args.seed)
        self.begun = time.monotonic()
        self.kinesis, self.s3 = boto3.client("kinesis"), boto3.client("s3")
        name = f"fleet-{uuid.uuid4().hex[:8]}"
        self.stream, self.bucket, self.table = name, name, name
        self.fleet = None
        self.done = collections.Counter()

    def tell(self, text):
        print(f"{time.monotonic() - self.begun:7.1f} s  {text}", flush=True)

    def shardlake(self, *args):
        done = subprocess.run([self.args.bin, *map(str, args)], capture_output=True, text=True, timeout=900,
                              env={**os.environ, "SHARDLAKE_TEST_KEY": lakes.KEY})
        assert done.returncode == 0, f"shardlake {args}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def prepare(self):
        os.environ["SHARDLAKE_TEST_KEY"] = lakes.KEY
        self.config = self.folder / "shardlake.toml"
        self.config.write_text(
            f'[anonymize]\nkey = "env:SHARDLAKE_TEST_KEY"\n\n[leases]\nfailover = "{FAILOVER}s"\n'
            f'hand_off = "{HAND_OFF}s"\n\n[limits]\nmemory = "256 MiB"\n')
        self.records = self.folder / "records.ndjson"
        self.shardlake("produce", "--to", self.records, "--count", self.args.records, "--seed", self.args.seed,
                       "--bad-ratio", 0.005)
        streams.fill.create(self.kinesis, self.stream, self.args.shards)
        self.s3.create_bucket(Bucket=self.bucket)
        self.place = ["--config", self.config, "--lake", f"s3://{self.bucket}/lake",
                      "--checkpoints", f"dynamodb://{self.table}"]
        self.tell(f"stream, bucket and table are named {self.stream}; {self.args.records:,} records are made")

    def worker_command(self):
        command = [self.args.bin, "run", *map(str, self.place), "--source", f"kinesis://{self.stream}", "--threads", "1",
                   "--commit-interval", self.args.commit_interval]
        # Every worker of this machine would otherwise want the same port for its page.
        if "--listen" in self.shardlake("run", "--help"):
            command += ["--listen", "127.0.0.1:0"]
        return command

    def start_fleet(self):
        self.network = LossyNetwork({"RUST_LOG": "warn", **os.environ}, self.args.lose, self.args.seed)
        self.fleet = Fleet(self.worker_command(), self.args.workers, self.folder, self.rng, self.network.environment)

    def what_is_done(self):
        """Every action, in any order."""
        actions = ["split", "merge"] * self.args.reshards
        if self.fleet:
            actions += ["kill"] * self.args.kills + ["stall", "stop"]
        return actions

    def actions(self):
        """What is done, in random order, each at its part of the fill."""
        actions = self.what_is_done()
        self.rng.shuffle(actions)
        room = (1 - streams.HELD_BACK - 0.05) / len(actions) if actions else 0
        return collections.deque((0.03 + (number + self.rng.random()) * room, action)
                                 for number, action in enumerate(actions))

    def do(self, action):
        self.done[action] += 1
        if action in ("split", "merge"):
            return getattr(streams, action)(self.kinesis, self.stream, self.rng)
        if action == "stall":
            return self.fleet.stall(3 * FAILOVER)
        return getattr(self.fleet, action)()

    def trouble(self, filling):
        """Everything is done while the stream is filled."""
        actions = self.actions()
        while filling.is_alive():
            assert time.monotonic() < self.begun + self.args.timeout, "the time is up"
            filling.check()
            if self.fleet:
                self.fleet.watch()
            if actions and filling.progress() >= actions[0][0]:
                self.tell(self.do(actions.popleft()[1]))
            if not actions and not (self.fleet and self.fleet.asleep()):
                filling.released.set()
            time.sleep(0.05)
        filling.join()
        filling.check()
        assert not actions, f"not done: {actions}"
        filler = filling.filler
        self.tell(f"{filler.users:,} records are in the stream, in {filler.records:,} Kinesis records, "
                  f"{filler.bytes / 1e6:.0f} MB; {filler.refused:,} were refused and put again")

    def run(self):
        self.prepare()
        filling = streams.BackgroundFill(self.stream, self.records, self.args.records, self.args.seed, self.args.rate,
                                         self.args.aggregate)
        try:
            if not self.args.only_the_stream:
                self.start_fleet()
            filling.start()
            self.trouble(filling)
            if self.fleet:
                self.fleet.stop_all()
                self.tell("all workers were told to stop, and stopped; one reads the rest")
                self.fleet.read_the_rest(max(60, self.begun + self.args.timeout - time.monotonic()))
                self.tell("everything is read")
        finally:
            filling.stop()
            if self.fleet:
                self.fleet.end()
        plain = self.folder / "plain-in"
        plain.mkdir()
        self.truth = streams.read(self.kinesis, self.stream, plain / "records.ndjson")
        self.doubled = streams.check_accepted(filling.filler, self.truth)
        self.tell(f"the stream holds all that was accepted: {len(self.truth.users):,} records in "
                  f"{len(self.truth.kinesis):,} Kinesis records of {self.truth.shards} shards")
        if self.fleet:
            self.check_lake(plain)

    def check_lake(self, plain_in):
        lake, plain = self.folder / "lake", self.folder / "plain"
        keys = lakes.download(self.s3, self.bucket, "lake/", lake)
        commits = lakes.commit_records(lake)
        lakes.check_objects(lake, keys, commits)
        connection = connect()
        rows, codes = lakes.check_positions(connection, lake, self.stream, self.truth)
        lakes.check_raw(lake, self.truth)
        lakes.check_sums(commits, self.truth)
        writers = {commit["worker"] for commit in commits}
        assert len(writers) >= self.args.workers, f"only {len(writers)} workers ever committed anything: no test of a fleet"
        self.tell("each record is there exactly once")
        self.shardlake("run", "--config", self.config, "--source", plain_in, "--lake", plain, "--until-caught-up",
                       "--raw", "off")
        lakes.check_values(connection, lake, plain)
        self.tell("all values are as in a lake made of the same records from a file")
        told = self.shardlake("verify", *self.place)
        assert "no fault found" in told, told
        self.tell("verify finds no fault")
        self.table_of_results(keys, commits, rows, codes)

    def network_results(self):
        network = self.network
        return [("workers' requests, lost, answers lost",
                 f"{network.requests:,}, {network.lost_before:,}, {network.lost_after:,}")]

    def table_of_results(self, keys, commits, rows, codes):
        intents = {pathlib.PurePosixPath(key).name for key in keys if key.startswith("_intents/")}
        happened = {commit["epoch"] + ".json" for commit in commits}
        uploads = self.s3.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        lines = [
            ("seed", self.args.seed),
            ("workers at a time, started in all", f"{self.args.workers}, {self.fleet.started}"),
            ("killed, stalled, told to stop", f"{self.done['kill']}, {self.done['stall']}, {self.done['stop']}"),
            ("splits, merges, shards in all", f"{self.done['split']}, {self.done['merge']}, {self.truth.shards}"),
            *self.network_results(),
            ("records, in Kinesis records", f"{len(self.truth.users):,}, {len(self.truth.kinesis):,}"),
            ("aggregates, broken ones", f"{self.truth.aggregates:,}, {self.truth.broken:,}"),
            ("put twice by the filler", f"{self.doubled:,}"),
            ("rows, dead letters", f"{rows:,}, {sum(codes.values()):,} of {len(codes)} codes"),
            ("epochs that happened, by workers", f"{len(commits):,}, {len({commit['worker'] for commit in commits})}"),
            ("intents of epochs that did not", f"{len(intents - happened):,}"),
            ("objects that readers see", f"{sum(not key.startswith('_') for key in keys):,}"),
            ("uploads left for sweep", f"{len(uploads):,}"),
            ("seconds", f"{time.monotonic() - self.begun:.0f}"),
        ]
        width = max(len(name) for name, _ in lines)
        print("\nexactly once:")
        for name, value in lines:
            print(f"  {name:{width}}  {value}")


def main(test=Test, parser=parser(__doc__.splitlines()[0])):
    args = arguments(parser)
    folder = pathlib.Path(args.folder or tempfile.mkdtemp(prefix="shardlake-fleet-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        test(args, folder).run()
    except BaseException:
        print(f"\nFAILED, with --seed {args.seed}; what is left is in {folder}", file=sys.stderr, flush=True)
        raise
    if not args.folder:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
