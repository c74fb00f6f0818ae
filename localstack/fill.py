"""Puts records into a Kinesis stream, each at least once, and tells exactly what was accepted.

    localstack/fill --stream S --records FILE|COUNT [--aggregate N] [--plain F] [--broken F] [--rate N/s]
                    [--accepted FILE] [--create SHARDS] [--seed N] [--bin shardlake]

FILE has a record a line; COUNT records come from `shardlake produce`.

Owns: packing (plain records, aggregates of the Kinesis Producer Library, broken aggregates), pace, and trying again. Does
not own: what is in a record.

What is told of each user record that was accepted: (shard, sequence, sub, SHA-256 of its bytes). A request whose answer was
lost may have been accepted, too: its records are told as *uncertain*, by the hash of the whole Kinesis record, and put
again. So a stream holds everything accepted, and besides it at most what is uncertain, as often as it is.

Limits: 500 Kinesis records and 4 MiB a request; an aggregate is closed at 900 KiB; a record that is not accepted within
60 s ends the program.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import random
import subprocess
import sys
import time

import boto3
import botocore.config
import botocore.exceptions
# The module puts its own folder on the path, without which `messages_pb2` does not find its neighbour.
from aws_kinesis_agg.aggregator import messages_pb2

MAGIC = b"\xf3\x89\x9a\xc2"
REQUEST_RECORDS, REQUEST_BYTES, AGGREGATE_BYTES = 500, 4 << 20, 900 << 10
PATIENCE = 60


@dataclasses.dataclass
class Entry:
    """One Kinesis record: its partition key, its bytes, and the hashes of the user records in it."""

    key: str
    data: bytes
    users: list
    kind: str = "plain"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def seal(message):
    """An aggregate's bytes: magic, message, digest."""
    return MAGIC + message + hashlib.md5(message).digest()


def aggregate(records):
    """Packs (key, data) pairs as the Kinesis Producer Library does."""
    message, keys = messages_pb2.AggregatedRecord(), {}
    for key, data in records:
        index = keys.setdefault(key, len(keys))
        message.records.add(partition_key_index=index, data=data)
    message.partition_key_table.extend(keys)
    return Entry(records[0][0], seal(message.SerializeToString()), [sha256(data) for _, data in records], "aggregate")


def open_aggregate(data):
    """The (key, data) pairs of an aggregate; None if it is none, or can't be opened whole, or holds no record."""
    if not data.startswith(MAGIC) or len(data) < len(MAGIC) + 16 or hashlib.md5(data[4:-16]).digest() != data[-16:]:
        return None
    message = messages_pb2.AggregatedRecord()
    try:
        message.ParseFromString(data[4:-16])
        pairs = [(message.partition_key_table[record.partition_key_index], record.data) for record in message.records]
    except Exception:  # noqa: BLE001: whatever is wrong with it, it can't be opened
        return None
    return pairs or None


def broken(entry, rng):
    """A copy of an aggregate that can't be opened, in one of five ways; it counts as one record."""
    data, way = entry.data, rng.randrange(5)
    if way == 0:  # The digest is another message's.
        data = data[:-1] + bytes([data[-1] ^ 1])
    elif way == 1:  # A byte on the way was changed.
        place = rng.randrange(4, len(data) - 16)
        data = data[:place] + bytes([data[place] ^ 0x20]) + data[place + 1:]
    elif way == 2:  # It was cut off.
        data = data[: rng.randrange(4, len(data))]
    elif way == 3:  # No such partition key.
        message = messages_pb2.AggregatedRecord()
        message.ParseFromString(data[4:-16])
        message.records[-1].partition_key_index = len(message.partition_key_table) + 7
        data = seal(message.SerializeToString())
    else:  # No record.
        data = seal(messages_pb2.AggregatedRecord().SerializeToString())
    return Entry(entry.key, data, [sha256(data)], "broken")


def pack(lines, rng, per_aggregate=0, plain=0.0, broken_part=0.0):
    """Kinesis records from user records: every user record with a partition key of its own, a few of them plain, and
    for a part of the aggregates a broken copy besides."""
    waiting, size = [], 0

    def close():
        nonlocal waiting, size
        if waiting:
            entry = aggregate(waiting)
            waiting, size = [], 0
            yield entry
            if rng.random() < broken_part:
                yield broken(entry, rng)

    for data in lines:
        key = f"device-{rng.randrange(1 << 32):08x}"
        if per_aggregate < 2 or rng.random() < plain:
            yield Entry(key, data, [sha256(data)])
            continue
        if size + len(data) > AGGREGATE_BYTES:
            yield from close()
        waiting.append((key, data))
        size += len(data) + 32
        if len(waiting) >= per_aggregate:
            yield from close()
    yield from close()


class Filler:
    """Puts entries into one stream. `accepted` and `uncertain` grow as answers come, or do not."""

    def __init__(self, stream, rate=None):
        # No retries by the client: one that it hides may put a record twice, unseen.
        config = botocore.config.Config(connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 1})
        self.client = boto3.client("kinesis", config=config)
        self.stream, self.rate = stream, rate
        self.accepted = []  # (shard, sequence, sub, sha256)
        self.uncertain = []  # sha256 of a Kinesis record
        self.records = self.users = self.bytes = self.requests = self.refused = 0
        self.due = time.monotonic()

    def put(self, entries):
        """Puts them all; returns once each is accepted."""
        entries = iter(entries)
        users_max = self.rate / 4 if self.rate else float("inf")
        held = next(entries, None)
        while held is not None:
            batch, size, users = [], 0, 0
            while held is not None and len(batch) < REQUEST_RECORDS and (
                    not batch or (size + len(held.data) <= REQUEST_BYTES and users + len(held.users) <= users_max)):
                batch.append(held)
                size, users = size + len(held.data), users + len(held.users)
                held = next(entries, None)
            if self.rate:
                self.due = max(self.due, time.monotonic() - 1)
                time.sleep(max(0, self.due - time.monotonic()))
                self.due += users / self.rate
            self._put_until_accepted(batch)

    def _put_until_accepted(self, batch):
        patience, pause = time.monotonic() + PATIENCE, 0.05
        while batch:
            left, fault = self._put_once(batch)
            if len(left) < len(batch):
                patience, pause = time.monotonic() + PATIENCE, 0.05
            elif time.monotonic() > patience:
                raise RuntimeError(f"{len(left)} records were not accepted within {PATIENCE} s: {fault}")
            batch = left
            if batch:
                time.sleep(pause)
                pause = min(2, pause * 2)

    def _put_once(self, batch):
        """One request. What is left to put, and why."""
        self.requests += 1
        try:
            answer = self.client.put_records(StreamName=self.stream, Records=[
                {"Data": entry.data, "PartitionKey": entry.key} for entry in batch])
        except botocore.exceptions.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:
                self.uncertain += [sha256(entry.data) for entry in batch]
            elif error.response["Error"]["Code"] not in ("ProvisionedThroughputExceededException", "LimitExceededException",
                                                         "ThrottlingException", "ResourceInUseException"):
                raise
            self.refused += len(batch)
            return batch, error
        except (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError) as error:
            self.uncertain += [sha256(entry.data) for entry in batch]
            self.refused += len(batch)
            return batch, error
        left, fault = [], None
        for entry, result in zip(batch, answer["Records"], strict=True):
            if result.get("ErrorCode"):
                fault = result["ErrorCode"]
                if fault == "InternalFailure":
                    self.uncertain.append(sha256(entry.data))
                left.append(entry)
                continue
            for sub, user in enumerate(entry.users):
                self.accepted.append((result["ShardId"], result["SequenceNumber"], sub, user))
            self.records += 1
            self.users += len(entry.users)
            self.bytes += len(entry.data)
        self.refused += len(left)
        return left, fault


def records_of(what, binary, seed, bad_ratio):
    """The lines of a file, or so many records from `shardlake produce`. Blank lines are no records."""
    if what.isdecimal():
        command = [binary, "produce", "--to", "-", "--count", what, "--seed", str(seed), "--bad-ratio", str(bad_ratio)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            yield from filter(None, (line.rstrip(b"\n") for line in process.stdout))
        if process.returncode != 0:
            sys.exit(f"{binary} produce: exit {process.returncode}")
    else:
        with sys.stdin.buffer if what == "-" else open(what, "rb") as file:
            yield from filter(None, (line.rstrip(b"\n") for line in file))


def create(client, stream, shards):
    """Makes the stream if it is not there, and waits until it can be used."""
    try:
        client.create_stream(StreamName=stream, ShardCount=shards)
    except client.exceptions.ResourceInUseException:
        pass
    client.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1, "MaxAttempts": 60})


def main():
    default = pathlib.Path(__file__).resolve().parents[1] / "target" / "release" / "shardlake"
    parser = argparse.ArgumentParser(prog="localstack/fill", description=__doc__.splitlines()[0])
    parser.add_argument("--stream", required=True)
    parser.add_argument("--records", required=True, help="a file of a record a line, - for standard input, or how many")
    parser.add_argument("--create", type=int, metavar="SHARDS", help="make the stream, if it is not there")
    parser.add_argument("--aggregate", type=int, default=0, metavar="N", help="pack so many user records into one")
    parser.add_argument("--plain", type=float, default=0.0, metavar="F", help="the part of them that is not packed")
    parser.add_argument("--broken", type=float, default=0.0, metavar="F",
                        help="for this part of the aggregates, put a broken copy as well")
    parser.add_argument("--rate", type=float, metavar="N", help="user records a second at most")
    parser.add_argument("--accepted", metavar="FILE", help="write what was accepted here, a line for each user record")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bad-ratio", type=float, default=0.005, help="of produced records")
    parser.add_argument("--bin", default=os.environ.get("SHARDLAKE_BIN", str(default)), help="the shardlake that produces")
    args = parser.parse_args()

    filler = Filler(args.stream, args.rate)
    if args.create:
        create(filler.client, args.stream, args.create)
    begun = time.monotonic()
    lines = records_of(args.records, args.bin, args.seed, args.bad_ratio)
    filler.put(pack(lines, random.Random(args.seed), args.aggregate, args.plain, args.broken))
    took = time.monotonic() - begun
    if args.accepted:
        with open(args.accepted, "w") as file:
            for shard, sequence, sub, user in filler.accepted:
                file.write(json.dumps({"shard": shard, "sequence": sequence, "sub": sub, "sha256": user}) + "\n")
            for record in filler.uncertain:
                file.write(json.dumps({"uncertain": record}) + "\n")
    print(f"{filler.users:,} user records in {filler.records:,} Kinesis records, {filler.bytes / 1e6:.1f} MB, "
          f"in {took:.1f} s; {filler.requests:,} requests, {filler.refused:,} records refused and put again, "
          f"{len(filler.uncertain):,} uncertain")


if __name__ == "__main__":
    main()
