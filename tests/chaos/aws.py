"""Every record of a stream lands exactly once, on a network that cuts, holds and delays, whatever is done to the workers.

The fleet's test (`tests/fleet/fleet.py`), longer and rougher: every worker reaches Kinesis, DynamoDB and S3 through relays of its
own (`network.py`), which cut connections in the middle of requests and of answers, lose answers of requests that took effect,
hand requests on long after they were given up, and cut off one worker from one service for a while. Workers are killed,
stalled for up to four times the failover time, and told to stop; shards are split and merged.

A worker that was cut off for longer than it retries may end: with exit code 1 and a plain sentence, and is started again.
In the end the fleet's test judges the lake with DuckDB and boto3; then `shardlake sweep` runs a day later, and no upload and no
intent may be left. Each kind of fault must have occurred. What was done is told in a table.

    localstack/run --light python tests/chaos/aws.py --bin target/release/shardlake
        [--records 200000] [--workers 4] [--shards 8] [--kills 15] [--stalls 5] [--stops 4] [--partitions 2] [--seed 1]
"""

import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "fleet")]
import fleet as fleets  # noqa: E402
from judge import sweep_a_day_later  # noqa: E402
from network import PARTITIONS, PARTS, SERVICES, Network  # noqa: E402
from supervised import Supervised, personal_values  # noqa: E402
from workers import Worker  # noqa: E402

# Seconds that one service is cut off from one worker, from … to: within what it retries, and beyond.
PARTITION = (2, 40)
# Seconds after a fault that lasts in which a worker may give up: small requests are retried for 20, those of megabytes have 60.
GIVES_UP = 240
# The last words of a worker that the network failed.
FAILED_BY_THE_NETWORK = r"could not |stopped after 30 s without committing|not read to the end"


def parser():
    parser = fleets.parser(__doc__.splitlines()[0])
    parser.set_defaults(records=200_000, kills=15, reshards=3, lose=0)
    parser.add_argument("--stalls", type=int, default=5, help="each of a random length, up to four times the failover time")
    parser.add_argument("--stops", type=int, default=4)
    parser.add_argument("--partitions", type=int, default=2, help="for each service and each way")
    parser.add_argument("--rough", type=float, default=1, help="so many times as many faults of single requests")
    parser.add_argument("--first-port", type=int, default=0, help="relays listen from here on [default: free ports]")
    return parser


class CutOff(Supervised):
    """A fleet each of whose workers has a network of its own."""

    def __init__(self, network, *args, **more):
        self.network, self.calm = network, False
        super().__init__(*args, **more)
        self.allowed = FAILED_BY_THE_NETWORK

    def start(self, *more):
        self.started += 1
        links = self.network.links()
        environment = self.environment if self.calm else links.environment(self.environment)
        worker = Worker(self.started, [*self.command, *more], environment, self.folder)
        worker.links = links
        self.workers.append(worker)
        return worker

    def _judge(self, worker, code):
        assert worker.links.troubled(GIVES_UP), f"{worker.name} ended by itself, and its network was well:\n{worker.tail()}"
        super()._judge(worker, code)

    def partition(self, service, kind, seconds):
        worker = self._any_awake()
        worker.links.partition(service, kind, seconds)
        return f"{worker.name} is cut off from {service} for {seconds:.0f} s ({kind.split(', ')[1]})"


class Test(fleets.Test):
    def start_fleet(self):
        endpoint = os.environ.get("AWS_ENDPOINT_URL")
        targets = {service: os.environ.get(f"AWS_ENDPOINT_URL_{service.upper()}", endpoint) for service in SERVICES}
        parts = {kind: part * self.args.rough for kind, part in PARTS.items()}
        self.network = Network(targets, self.args.seed, parts, self.args.first_port)
        with open(self.records, "rb") as file:
            personal = personal_values(line for _, line in zip(range(20_000), file))
        self.fleet = CutOff(self.network, self.worker_command(), self.args.workers, self.folder, self.rng,
                            {"RUST_LOG": "warn", **os.environ}, personal, self.tell)

    def what_is_done(self):
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
            return self.fleet.stall(self.rng.uniform(0.3, 4) * fleets.FAILOVER)
        return super().do(action)

    def trouble(self, filling):
        super().trouble(filling)
        # The last one has no faults: whether it catches up is not a matter of luck.
        self.fleet.calm = True

    def check_lake(self, plain_in):
        super().check_lake(plain_in)
        self.fleet.hear_all()
        self.tell("no worker crashed, and none logged anything personal")
        os.environ["SHARDLAKE_BIN"] = self.args.bin
        self.tell(f"sweep, a day later: {sweep_a_day_later(*self.place)}")
        uploads = self.s3.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        assert not uploads, f"after a sweep {len(uploads)} uploads are left, such as {uploads[0]['Key']}"
        intents = self.s3.list_objects_v2(Bucket=self.bucket, Prefix="lake/_intents/").get("Contents", [])
        assert not intents, f"after a sweep {len(intents)} intents are left, such as {intents[0]['Key']}"
        assert "no fault found" in self.shardlake("verify", *self.place)
        missing = self.network.missing()
        assert not missing, f"these faults never occurred: {missing}; more records, or --rough 2"

    def network_results(self):
        ended = len(self.fleet.refusals)
        return [("workers that gave up, told why", f"{ended:,}"),
                ("stopped before they listened", f"{self.fleet.unheard:,}"),
                *[("network" if not number else "", line) for number, line in enumerate(self.network.table())]]


if __name__ == "__main__":
    fleets.main(Test, parser())
