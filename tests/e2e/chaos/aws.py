"""Every record of a stream lands exactly once, on a network that cuts, holds and delays, whatever happens to the workers.

The fleet's suite (`e2e.fleet`), longer and rougher: every worker reaches Kinesis, DynamoDB and S3 through relays of its own
(`network.py`). They cut connections in the middle of requests and of responses, lose responses of requests that took effect, hand
requests on long after they timed out, and cut off one worker from one service for a while. Workers are killed, stalled for up to four
times the failover time, and asked to stop; shards are split and merged.

A worker that was cut off for longer than it retries may end with exit code 1 and a plain sentence, and is started again. In the end
the fleet's suite judges the lake with DuckDB and boto3. Then `shardlake sweep` runs a day later, after which no upload and no intent
may be left. Each kind of fault must have occurred. A table shows what was done.

    localstack/run --light python -m e2e.chaos.aws --bin target/release/shardlake
        [--records 200000] [--workers 4] [--shards 8] [--kills 15] [--stalls 5] [--stops 4] [--partitions 2] [--seed 1]
"""

import os

from e2e.chaos.judge import sweep_a_day_later
from e2e.chaos.messages import FAILED_BY_THE_NETWORK
from e2e.chaos.network import PARTITIONS, PARTS, SERVICES, Network
from e2e.chaos.supervised import Supervised, personal_values_of_file
from e2e.common.binary import verify
from e2e.common.workers import Worker
from e2e.fleet import suite

# Shortest and longest partition in seconds: within what a worker retries, and beyond.
PARTITION = (2, 40)
# Seconds after a lasting fault in which a worker may end: small requests are retried for 20, those of megabytes for 60.
MAY_END_WITHIN = 240


def parser():
    parser = suite.parser(__doc__.splitlines()[0])
    parser.set_defaults(records=200_000, kills=15, reshards=3, lose=0)
    parser.add_argument("--stalls", type=int, default=5, help="each of a random length, up to four times the failover time")
    parser.add_argument("--stops", type=int, default=4)
    parser.add_argument("--partitions", type=int, default=2, help="for each service, of each of the two kinds")
    parser.add_argument("--rough", type=float, default=1, help="multiplies the faults of single requests")
    parser.add_argument("--first-port", type=int, default=0, help="the relays' first port [default: free ports]")
    return parser


class CutOffFleet(Supervised):
    """A fleet each of whose workers has a network of its own."""

    def __init__(self, network, *args, **more):
        self.network, self.calm = network, False
        super().__init__(*args, **more)
        self.allowed = FAILED_BY_THE_NETWORK

    def start(self, *more_flags):
        self.started += 1
        links = self.network.links()
        environment = self.environment if self.calm else links.environment(self.environment)
        worker = Worker(self.started, [*self.command, *more_flags], environment, self.folder)
        worker.links = links
        self.workers.append(worker)
        return worker

    def _judge(self, worker, code):
        assert worker.links.was_faulty(MAY_END_WITHIN), (
            f"{worker.name} ended by itself, although its network worked:\n{worker.tail()}")
        super()._judge(worker, code)

    def partition(self, service, kind, seconds):
        worker = self._any_awake()
        worker.links.partition(service, kind, seconds)
        return f"{worker.name} is cut off from {service} for {seconds:.0f} s ({kind.split(', ')[1]})"


class Suite(suite.Suite):
    def start_fleet(self):
        endpoint = os.environ.get("AWS_ENDPOINT_URL")
        targets = {service: os.environ.get(f"AWS_ENDPOINT_URL_{service.upper()}", endpoint) for service in SERVICES}
        parts = {kind: part * self.args.rough for kind, part in PARTS.items()}
        self.network = Network(targets, self.args.seed, parts, self.args.first_port)
        self.fleet = CutOffFleet(self.network, self.worker_command(), self.args.workers, self.folder, self.rng,
                                 {"RUST_LOG": "warn", **os.environ}, personal_values_of_file(self.records), self.log)

    def all_actions(self):
        args = self.args
        actions = ["split", "merge"] * args.reshards
        if self.fleet:
            actions += ["kill"] * args.kills + ["stall"] * args.stalls + ["stop"] * args.stops
            actions += [(service, kind) for service in SERVICES for kind in PARTITIONS] * args.partitions
        return actions

    def do(self, action):
        if isinstance(action, tuple):
            return self.fleet.partition(*action, self.rng.uniform(*PARTITION))
        if action == "stall":
            self.done[action] += 1
            return self.fleet.stall(self.rng.uniform(0.3, 4) * suite.FAILOVER)
        return super().do(action)

    def trouble(self, filling):
        super().trouble(filling)
        # The last worker has no faults, so that it always catches up.
        self.fleet.calm = True

    def check_lake(self, reference_source):
        super().check_lake(reference_source)
        self.fleet.check_all_logs()
        self.log("no worker crashed, and none logged anything personal")
        self.log(f"sweep, a day later: {sweep_a_day_later(*self.lake_flags)}")
        uploads = self.s3.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        assert not uploads, f"{len(uploads)} uploads are left after a sweep, such as {uploads[0]['Key']}"
        intents = self.s3.list_objects_v2(Bucket=self.bucket, Prefix="lake/_intents/").get("Contents", [])
        assert not intents, f"{len(intents)} intents are left after a sweep, such as {intents[0]['Key']}"
        verify(*self.lake_flags)
        missing = self.network.missing()
        assert not missing, f"these faults never occurred: {missing}; use more records, or --rough 2"

    def network_results(self):
        return [("workers that ended by themselves, with the reason", f"{len(self.fleet.refusals):,}"),
                ("stopped before they handled signals", f"{self.fleet.died_of_signal:,}"),
                *[("network" if not number else "", line) for number, line in enumerate(self.network.table())]]


if __name__ == "__main__":
    suite.main(Suite, parser())
