"""A stream: what goes in, how its shards change, and what it holds in the end.

Owns: filling in the background, splitting and merging shards, and reading the whole stream with AWS's own client. What it read is
the truth that a lake is compared with. Does not own: how records are packed and put (`fill.py`).
"""

import collections
import dataclasses
import random
import threading

from e2e.common import fill
from e2e.common.session import until

# The last part of the records, put only after everything has been done to the fleet: nothing must be done to an idle one.
HELD_BACK = 0.05


class BackgroundFill(threading.Thread):
    """Puts the records of a file into the stream."""

    def __init__(self, stream, path, count, seed, rate, per_aggregate):
        super().__init__(daemon=True)
        self.filler = fill.Filler(stream, rate)
        self.path, self.count, self.per_aggregate = path, count, per_aggregate
        self.rng = random.Random(seed)
        self.released = threading.Event()
        self.stopped = threading.Event()
        self.fault = None

    def run(self):
        try:
            entries = fill.pack(self.lines(), self.rng, self.per_aggregate, plain=0.004, broken_part=0.02)
            self.filler.put(entries)
        except Exception as fault:  # noqa: BLE001: `check` raises it in the main thread
            self.fault = fault

    def lines(self):
        with open(self.path, "rb") as file:
            for number, line in enumerate(file):
                if number >= self.count * (1 - HELD_BACK):
                    self.released.wait()
                if self.stopped.is_set():
                    return
                yield line.rstrip(b"\n")

    def progress(self):
        return self.filler.users / self.count

    def check(self):
        if self.fault:
            raise AssertionError(f"failed to fill the stream: {self.fault!r}") from self.fault

    def stop(self):
        self.stopped.set()
        self.released.set()


def open_shards(client, stream):
    """(first hash key, last hash key, id) of each shard that takes records."""
    found = []
    for page in client.get_paginator("list_shards").paginate(StreamName=stream):
        for shard in page["Shards"]:
            if "EndingSequenceNumber" not in shard["SequenceNumberRange"]:
                keys = shard["HashKeyRange"]
                found.append((int(keys["StartingHashKey"]), int(keys["EndingHashKey"]), shard["ShardId"]))
    return sorted(found)


def until_active(client, stream):
    def active():
        return client.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE"

    until(active, 60, f"the stream {stream} did not become active within 60 s", every=0.05)


def split(client, stream, rng):
    """Splits a random shard at a random hash key. Returns a line for the log."""
    first, last, shard = rng.choice([s for s in open_shards(client, stream) if s[1] - s[0] > 1 << 64])
    at = rng.randrange(first + (last - first) // 4, last - (last - first) // 4)
    client.split_shard(StreamName=stream, ShardToSplit=shard, NewStartingHashKey=str(at))
    until_active(client, stream)
    return f"{shard} was split"


def merge(client, stream, rng):
    """Merges two random neighbours. Returns a line for the log."""
    shards = open_shards(client, stream)
    pairs = [(left, right) for left, right in zip(shards, shards[1:]) if left[1] + 1 == right[0]]
    left, right = rng.choice(pairs)
    client.merge_shards(StreamName=stream, ShardToMerge=left[2], AdjacentShardToMerge=right[2])
    until_active(client, stream)
    return f"{left[2]} and {right[2]} were merged"


@dataclasses.dataclass(frozen=True)
class UserRecord:
    """One record of the stream; those of an aggregate are counted one by one."""

    sha256: str
    line_sha256: str  # of its line in raw/, where a line end inside the record becomes a space
    partition_key: str


@dataclasses.dataclass
class Truth:
    """Everything that a stream holds."""

    users: dict  # (shard, sequence, sub) → UserRecord
    kinesis: dict  # (shard, sequence) → sha256 of the Kinesis record
    shards: int
    aggregates: int
    broken: int

    def take(self, shard, record, plain):
        """Adds one Kinesis record, and writes those of its user records that can be lines of a file to `plain`."""
        sequence, data = record["SequenceNumber"], record["Data"]
        assert (shard, sequence) not in self.kinesis, f"the stand-in for Kinesis has {shard} {sequence} twice"
        self.kinesis[shard, sequence] = fill.sha256(data)
        users = fill.open_aggregate(data)
        if users is None:
            self.broken += data.startswith(fill.MAGIC)
            users = [(record["PartitionKey"], data)]
        else:
            self.aggregates += 1
        for sub, (key, user) in enumerate(users):
            digest = fill.sha256(user)
            line = fill.sha256(user.replace(b"\n", b" ")) if b"\n" in user else digest
            self.users[shard, sequence, sub] = UserRecord(digest, line, key)
            if b"\n" not in user and not user.startswith(fill.MAGIC):
                plain.write(user + b"\n")


def read(client, stream, plain_path):
    """Reads all shards of the stream from the beginning, closed shards too. `plain_path` gets every record that can be a line."""
    truth = Truth({}, {}, 0, 0, 0)
    with open(plain_path, "wb") as plain:
        for page in client.get_paginator("list_shards").paginate(StreamName=stream):
            for shard in page["Shards"]:
                truth.shards += 1
                _read_shard(client, stream, shard["ShardId"], truth, plain)
    return truth


def _read_shard(client, stream, shard, truth, plain):
    iterator = client.get_shard_iterator(
        StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    while iterator:
        # kinesis-local does not limit the bytes of a response.
        response = client.get_records(ShardIterator=iterator, Limit=50)
        for record in response["Records"]:
            truth.take(shard, record, plain)
        if not response["Records"] and response["MillisBehindLatest"] == 0:
            return
        iterator = response.get("NextShardIterator")


def check_accepted(filler, truth):
    """The stream holds everything that it accepted, and otherwise only records that were put again after a lost response.

    Returns how many Kinesis records are duplicates for that reason.
    """
    for shard, sequence, sub, digest in filler.accepted:
        found = truth.users.get((shard, sequence, sub))
        assert found is not None, f"the stand-in for Kinesis lost a record that it had accepted: {shard} {sequence} {sub}"
        assert found.sha256 == digest, f"the stand-in for Kinesis changed a record that it had accepted: {shard} {sequence} {sub}"
    known = {(shard, sequence) for shard, sequence, _, _ in filler.accepted}
    duplicates = collections.Counter(digest for position, digest in truth.kinesis.items() if position not in known)
    unexplained = duplicates - collections.Counter(filler.uncertain)
    assert not unexplained, f"{unexplained.total()} Kinesis records are in the stream that nobody put"
    return duplicates.total()
