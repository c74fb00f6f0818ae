"""The stream's side of the fleet test: what goes in, how its shards change, and what is in it in the end.

Owns: filling in the background, splitting and merging, and reading the whole stream with AWS's own client, which is what
the lake is compared with. Does not own: how records are packed and put (`localstack/fill.py`).
"""

import collections
import dataclasses
import pathlib
import random
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "localstack"))
import fill  # noqa: E402

# The last part of the records is put only when everything has been done to the fleet: nothing is done to an idle one.
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
        except Exception as fault:  # noqa: BLE001: told by `check`, in the main thread
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
            raise AssertionError(f"filling the stream failed: {self.fault!r}") from self.fault

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


def _until_active(client, stream):
    deadline = time.monotonic() + 60
    while client.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]["StreamStatus"] != "ACTIVE":
        assert time.monotonic() < deadline, "the stream does not become active"
        time.sleep(0.05)


def split(client, stream, rng):
    """Splits a shard anywhere. What was done, for people."""
    first, last, shard = rng.choice([s for s in open_shards(client, stream) if s[1] - s[0] > 1 << 64])
    at = rng.randrange(first + (last - first) // 4, last - (last - first) // 4)
    client.split_shard(StreamName=stream, ShardToSplit=shard, NewStartingHashKey=str(at))
    _until_active(client, stream)
    return f"{shard} was split"


def merge(client, stream, rng):
    """Merges two neighbours. What was done, for people."""
    shards = open_shards(client, stream)
    pairs = [(left, right) for left, right in zip(shards, shards[1:]) if left[1] + 1 == right[0]]
    left, right = rng.choice(pairs)
    client.merge_shards(StreamName=stream, ShardToMerge=left[2], AdjacentShardToMerge=right[2])
    _until_active(client, stream)
    return f"{left[2]} and {right[2]} were merged"


@dataclasses.dataclass(frozen=True)
class UserRecord:
    """One record as it is in the stream, an aggregate opened."""

    sha256: str
    line_sha256: str  # as a line of raw/: a line end in it is a space
    partition_key: str


@dataclasses.dataclass
class Truth:
    """All that is in a stream."""

    users: dict  # (shard, sequence, sub) → UserRecord
    kinesis: dict  # (shard, sequence) → sha256 of the Kinesis record
    shards: int
    aggregates: int
    broken: int


def read(client, stream, plain_path):
    """Reads the stream from its beginning, all shards, closed ones too. Every record that can be a line of a file is
    written to `plain_path`."""
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
        # kinesis-local has no limit of bytes for an answer.
        answer = client.get_records(ShardIterator=iterator, Limit=50)
        for record in answer["Records"]:
            _take(truth, shard, record, plain)
        if not answer["Records"] and answer["MillisBehindLatest"] == 0:
            return
        iterator = answer.get("NextShardIterator")


def _take(truth, shard, record, plain):
    sequence, data = record["SequenceNumber"], record["Data"]
    assert (shard, sequence) not in truth.kinesis, f"the stand-in has {shard} {sequence} twice"
    truth.kinesis[shard, sequence] = fill.sha256(data)
    users = fill.open_aggregate(data)
    if users is None:
        truth.broken += data.startswith(fill.MAGIC)
        users = [(record["PartitionKey"], data)]
    else:
        truth.aggregates += 1
    for sub, (key, user) in enumerate(users):
        digest = fill.sha256(user)
        line = fill.sha256(user.replace(b"\n", b" ")) if b"\n" in user else digest
        truth.users[shard, sequence, sub] = UserRecord(digest, line, key)
        if b"\n" not in user and not user.startswith(fill.MAGIC):
            plain.write(user + b"\n")


def check_accepted(filler, truth):
    """Everything accepted is in the stream, and besides it nothing but what was put again after a lost answer. How many
    Kinesis records are there twice for that."""
    for shard, sequence, sub, digest in filler.accepted:
        found = truth.users.get((shard, sequence, sub))
        assert found is not None, f"the stand-in lost what it had accepted: {shard} {sequence} {sub}"
        assert found.sha256 == digest, f"the stand-in changed what it had accepted: {shard} {sequence} {sub}"
    known = {(shard, sequence) for shard, sequence, _, _ in filler.accepted}
    doubled = collections.Counter(digest for place, digest in truth.kinesis.items() if place not in known)
    unexplained = doubled - collections.Counter(filler.uncertain)
    assert not unexplained, f"{sum(unexplained.values())} Kinesis records are in the stream that nobody put"
    return sum(doubled.values())
