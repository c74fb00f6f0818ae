"""Every record of a stream lands in the lake exactly once, whatever happens to the fleet and to the stream's shards.

A fleet of workers reads a stream while it is filled. The records are mixed, 0.5 % of them bad; most are in aggregates of the Kinesis
Producer Library, some plain, some in broken aggregates. Meanwhile

- workers are killed (SIGKILL) and replaced;
- one is stalled (SIGSTOP) for three times the failover time and resumes as a zombie;
- one is asked to stop;
- shards are split and merged;
- a part of the workers' requests is lost, before or after the service has carried them out (`lossy.py`).

In the end the stream is read again with AWS's own client, and the lake with DuckDB:

- every record of the stream is one row or one dead letter, by (shard, sequence, subsequence), and one line of `raw/`, byte by byte;
- every row has the values that it has in a lake made of the same records from a file;
- no object is visible that no commit record names, and `shardlake verify` finds no fault.

    localstack/run python -m e2e.fleet --bin target/release/shardlake
        [--records 400000] [--workers 4] [--shards 8] [--kills 10] [--reshards 2] [--rate 1500] [--lose 0.005] [--seed 1]

The AWS_ENDPOINT_URL variables name the services. Without them the suite refuses to run.
"""

import argparse
import collections
import os
import pathlib
import random
import time
import uuid

import boto3

from e2e.common import binary, checks, fill, stream as streams
from e2e.common.binary import shardlake, verify
from e2e.common.lake import commit_records, connect, download
from e2e.common.session import Log, in_folder, print_pairs
from e2e.common.workers import Fleet
from e2e.fleet.lossy import LossyNetwork

FAILOVER, HAND_OFF = 4, 10  # seconds


def parser(description):
    parser = argparse.ArgumentParser(description=description)
    binary.add_flag(parser)
    parser.add_argument("--records", type=int, default=400_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--reshards", type=int, default=2, help="each is one split and one merge")
    parser.add_argument("--rate", type=float, default=1500, help="maximal records a second that are put")
    parser.add_argument("--lose", type=float, default=0.005, help="the part of the workers' requests that is lost")
    parser.add_argument("--aggregate", type=int, default=100, help="records in one aggregate")
    parser.add_argument("--commit-interval", default="5s")
    parser.add_argument("--timeout", type=float, default=3000, help="seconds for the whole suite")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--folder", help="use this folder and keep everything in it")
    parser.add_argument("--only-the-stream", action="store_true",
                        help="no workers and no lake: only fill, reshard and read the stream")
    return parser


def arguments(parser):
    args = parser.parse_args()
    binary.require_endpoint(parser)
    binary.use(parser, args)
    if args.workers < 2:
        parser.error("--workers must be 2 or more, because one is stalled")
    return args


class Suite:
    """One run. `e2e.chaos.aws` and `e2e.chaos.soak` derive from it."""

    def __init__(self, args, folder):
        self.args, self.folder = args, folder
        self.rng = random.Random(args.seed)
        self.log = Log()
        self.kinesis, self.s3 = boto3.client("kinesis"), boto3.client("s3")
        name = f"fleet-{uuid.uuid4().hex[:8]}"
        self.stream, self.bucket, self.table = name, name, name
        self.fleet = None
        self.done = collections.Counter()

    def prepare(self):
        os.environ["SHARDLAKE_TEST_KEY"] = checks.KEY
        self.config = self.folder / "shardlake.toml"
        self.config.write_text(
            f'[anonymize]\nkey = "env:SHARDLAKE_TEST_KEY"\n\n[leases]\nfailover = "{FAILOVER}s"\n'
            f'hand_off = "{HAND_OFF}s"\n\n[limits]\nmemory = "256 MiB"\n')
        self.records = self.folder / "records.ndjson"
        shardlake("produce", "--to", self.records, "--count", self.args.records, "--seed", self.args.seed, "--bad-ratio", 0.005)
        fill.create(self.kinesis, self.stream, self.args.shards)
        self.s3.create_bucket(Bucket=self.bucket)
        self.lake_flags = ["--config", self.config, "--lake", f"s3://{self.bucket}/lake",
                           "--checkpoints", f"dynamodb://{self.table}"]
        self.log(f"stream, bucket and table are named {self.stream}; {self.args.records:,} records are produced")

    def worker_command(self):
        command = [self.args.bin, "run", *map(str, self.lake_flags), "--source", f"kinesis://{self.stream}", "--threads", "1",
                   "--commit-interval", self.args.commit_interval]
        # A free port for each worker of this machine.
        if "--listen" in shardlake("run", "--help"):
            command += ["--listen", "127.0.0.1:0"]
        return command

    def start_fleet(self):
        self.network = LossyNetwork({"RUST_LOG": "warn", **os.environ}, self.args.lose, self.args.seed)
        self.fleet = Fleet(self.worker_command(), self.args.workers, self.folder, self.rng, self.network.environment)

    def all_actions(self):
        """Every action of the run, in any order."""
        actions = ["split", "merge"] * self.args.reshards
        if self.fleet:
            actions += ["kill"] * self.args.kills + ["stall", "stop"]
        return actions

    def scheduled_actions(self):
        """(progress of the fill, action): all actions in random order, spread over the fill."""
        actions = self.all_actions()
        self.rng.shuffle(actions)
        share = (1 - streams.HELD_BACK - 0.05) / len(actions) if actions else 0
        return collections.deque((0.03 + (number + self.rng.random()) * share, action)
                                 for number, action in enumerate(actions))

    def do(self, action):
        """Carries out one action. Returns a line for the log."""
        self.done[action] += 1
        if action in ("split", "merge"):
            return getattr(streams, action)(self.kinesis, self.stream, self.rng)
        if action == "stall":
            return self.fleet.stall(3 * FAILOVER)
        return getattr(self.fleet, action)()

    def trouble(self, filling):
        """Carries out all actions while the stream is filled."""
        actions = self.scheduled_actions()
        while filling.is_alive():
            assert self.log.seconds() < self.args.timeout, f"the suite did not end within {self.args.timeout} s"
            filling.check()
            if self.fleet:
                self.fleet.watch()
            if actions and filling.progress() >= actions[0][0]:
                self.log(self.do(actions.popleft()[1]))
            if not actions and not (self.fleet and self.fleet.any_stalled()):
                filling.released.set()
            time.sleep(0.05)
        filling.join()
        filling.check()
        assert not actions, f"actions that were not carried out: {actions}"
        filler = filling.filler
        self.log(f"{filler.users:,} records are in the stream, in {filler.records:,} Kinesis records, "
                 f"{filler.bytes / 1e6:.0f} MB; {filler.rejected:,} were rejected and put again")

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
                self.log("all workers were asked to stop, and stopped; one worker reads the rest")
                self.fleet.read_the_rest(max(60, self.args.timeout - self.log.seconds()))
                self.log("everything is read")
        finally:
            filling.stop()
            if self.fleet:
                self.fleet.end()
        reference_source = self.folder / "reference-in"
        reference_source.mkdir()
        self.truth = streams.read(self.kinesis, self.stream, reference_source / "records.ndjson")
        self.duplicates = streams.check_accepted(filling.filler, self.truth)
        self.log(f"the stream holds everything that it accepted: {len(self.truth.users):,} records in "
                 f"{len(self.truth.kinesis):,} Kinesis records of {self.truth.shards} shards")
        if self.fleet:
            self.check_lake(reference_source)

    def check_lake(self, reference_source):
        lake, reference = self.folder / "lake", self.folder / "reference"
        keys = download(self.s3, self.bucket, "lake/", lake)
        commits = commit_records(lake)
        checks.check_objects(lake, keys, commits)
        connection = connect()
        rows, codes = checks.check_stream_positions(connection, lake, self.stream, self.truth)
        checks.check_raw(lake, self.truth)
        checks.check_totals(commits, self.truth)
        writers = {commit["worker"] for commit in commits}
        assert len(writers) >= self.args.workers, f"only {len(writers)} workers committed anything: this does not test a fleet"
        self.log("each record landed exactly once")
        shardlake("run", "--config", self.config, "--source", reference_source, "--lake", reference, "--until-caught-up",
                  "--raw", "off")
        checks.check_values(connection, lake, reference)
        self.log("all values are as in a lake made of the same records from a file")
        verify(*self.lake_flags)
        self.log("verify finds no fault")
        self.print_results(keys, commits, rows, codes)

    def network_results(self):
        network = self.network
        return [("workers' requests, lost, responses lost",
                 f"{network.requests:,}, {network.lost_before:,}, {network.lost_after:,}")]

    def print_results(self, keys, commits, rows, codes):
        intents = {pathlib.PurePosixPath(key).name for key in keys if key.startswith("_intents/")}
        committed = {commit["epoch"] + ".json" for commit in commits}
        uploads = self.s3.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        print_pairs("exactly once", [
            ("seed", self.args.seed),
            ("workers at a time, started in all", f"{self.args.workers}, {self.fleet.started}"),
            ("killed, stalled, asked to stop", f"{self.done['kill']}, {self.done['stall']}, {self.done['stop']}"),
            ("splits, merges, shards in all", f"{self.done['split']}, {self.done['merge']}, {self.truth.shards}"),
            *self.network_results(),
            ("records, in Kinesis records", f"{len(self.truth.users):,}, {len(self.truth.kinesis):,}"),
            ("aggregates, broken ones", f"{self.truth.aggregates:,}, {self.truth.broken:,}"),
            ("put twice by the filler", f"{self.duplicates:,}"),
            ("rows, dead letters", f"{rows:,}, {codes.total():,} of {len(codes)} codes"),
            ("committed epochs, by workers", f"{len(commits):,}, {len({commit['worker'] for commit in commits})}"),
            ("intents of epochs that were not committed", f"{len(intents - committed):,}"),
            ("objects that readers see", f"{sum(not key.startswith('_') for key in keys):,}"),
            ("uploads left for sweep", f"{len(uploads):,}"),
            ("seconds", f"{self.log.seconds():.0f}"),
        ])


def main(suite=Suite, parser=parser(__doc__.splitlines()[0])):
    args = arguments(parser)
    in_folder(args, "fleet", lambda folder: suite(args, folder).run())


if __name__ == "__main__":
    main()
