"""Puts records into a Kinesis stream, each at least once, and reports exactly what the stream accepted.

    localstack/fill --stream S --records FILE|COUNT [--aggregate N] [--plain F] [--broken F] [--rate N/s]
                    [--accepted FILE] [--create SHARDS] [--seed N] [--bin shardlake]

FILE has one record a line; COUNT records come from `shardlake produce`. This file imports nothing else of the suites, so that
`localstack/fill` and the demonstration image can run it alone.

Owns: packing (plain records, aggregates of the Kinesis Producer Library, broken aggregates), pace, and retries. Does not own:
what is in a record.

It reports (shard, sequence, sub, SHA-256 of its bytes) for each accepted user record. A request whose response was lost may have
been accepted, too. Its records are reported as *uncertain*, by the hash of the whole Kinesis record, and put again. So a stream
holds everything accepted, and beside it at most what is uncertain, as often as it is listed.

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
ACCEPTED_WITHIN = 60


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
    """The (key, data) pairs of an aggregate. None for other data, a malformed aggregate, and one without a record."""
    if not data.startswith(MAGIC) or len(data) < len(MAGIC) + 16 or hashlib.md5(data[4:-16]).digest() != data[-16:]:
        return None
    message = messages_pb2.AggregatedRecord()
    try:
        message.ParseFromString(data[4:-16])
        pairs = [(message.partition_key_table[record.partition_key_index], record.data) for record in message.records]
    except Exception:  # noqa: BLE001: any error means that it is malformed
        return None
    return pairs or None


def broken(entry, rng):
    """A malformed copy of an aggregate, in one of five ways. It counts as one record."""
    data, way = entry.data, rng.randrange(5)
    if way == 0:  # The digest is that of another message.
        data = data[:-1] + bytes([data[-1] ^ 1])
    elif way == 1:  # One byte was changed.
        index = rng.randrange(4, len(data) - 16)
        data = data[:index] + bytes([data[index] ^ 0x20]) + data[index + 1:]
    elif way == 2:  # It is truncated.
        data = data[: rng.randrange(4, len(data))]
    elif way == 3:  # A partition key that is not in the table.
        message = messages_pb2.AggregatedRecord()
        message.ParseFromString(data[4:-16])
        message.records[-1].partition_key_index = len(message.partition_key_table) + 7
        data = seal(message.SerializeToString())
    else:  # No record.
        data = seal(messages_pb2.AggregatedRecord().SerializeToString())
    return Entry(entry.key, data, [sha256(data)], "broken")


def pack(lines, rng, per_aggregate=0, plain=0.0, broken_part=0.0):
    """Kinesis records from user records, each of which gets a partition key of its own.

    `plain`: the part of the user records that is not packed. `broken_part`: the part of the aggregates that is followed by a
    broken copy.
    """
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
    """Puts entries into one stream. `accepted` and `uncertain` grow with every response, or lack of one."""

    def __init__(self, stream, rate=None):
        # No retries by the client: a hidden retry may put a record twice without this program seeing it.
        config = botocore.config.Config(connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 1})
        self.client = boto3.client("kinesis", config=config)
        self.stream, self.rate = stream, rate
        self.accepted = []  # (shard, sequence, sub, sha256)
        self.uncertain = []  # sha256 of a Kinesis record
        self.records = self.users = self.bytes = self.requests = self.rejected = 0
        self.due = time.monotonic()

    def put(self, entries):
        """Puts all entries. Returns once each is accepted."""
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
        deadline, pause = time.monotonic() + ACCEPTED_WITHIN, 0.05
        while batch:
            left, fault = self._put_once(batch)
            if len(left) < len(batch):
                deadline, pause = time.monotonic() + ACCEPTED_WITHIN, 0.05
            elif time.monotonic() > deadline:
                raise RuntimeError(f"{len(left)} records were not accepted within {ACCEPTED_WITHIN} s: {fault}")
            batch = left
            if batch:
                time.sleep(pause)
                pause = min(2, pause * 2)

    def _put_once(self, batch):
        """One request. Returns the entries that were not accepted, and why."""
        self.requests += 1
        try:
            response = self.client.put_records(StreamName=self.stream, Records=[
                {"Data": entry.data, "PartitionKey": entry.key} for entry in batch])
        except botocore.exceptions.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:
                self.uncertain += [sha256(entry.data) for entry in batch]
            elif error.response["Error"]["Code"] not in ("ProvisionedThroughputExceededException", "LimitExceededException",
                                                         "ThrottlingException", "ResourceInUseException"):
                raise
            self.rejected += len(batch)
            return batch, error
        except (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError) as error:
            self.uncertain += [sha256(entry.data) for entry in batch]
            self.rejected += len(batch)
            return batch, error
        left, fault = [], None
        for entry, result in zip(batch, response["Records"], strict=True):
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
        self.rejected += len(left)
        return left, fault


def records_of(what, binary, seed, bad_ratio):
    """The lines of a file, or of `shardlake produce` if `what` is a number. A blank line is not a record."""
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
    """Creates the stream if it does not exist, and waits until it is active."""
    try:
        client.create_stream(StreamName=stream, ShardCount=shards)
    except client.exceptions.ResourceInUseException:
        pass
    client.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1, "MaxAttempts": 60})


def main():
    default_binary = pathlib.Path(__file__).resolve().parents[3] / "target" / "release" / "shardlake"
    parser = argparse.ArgumentParser(prog="localstack/fill", description=__doc__.splitlines()[0])
    parser.add_argument("--stream", required=True)
    parser.add_argument("--records", required=True, help="a file with one record a line, - for standard input, or a number")
    parser.add_argument("--create", type=int, metavar="SHARDS", help="create the stream if it does not exist")
    parser.add_argument("--aggregate", type=int, default=0, metavar="N", help="user records in one aggregate")
    parser.add_argument("--plain", type=float, default=0.0, metavar="F", help="the part of the records that is not packed")
    parser.add_argument("--broken", type=float, default=0.0, metavar="F",
                        help="the part of the aggregates that is followed by a broken copy")
    parser.add_argument("--rate", type=float, metavar="N", help="maximal user records a second")
    parser.add_argument("--accepted", metavar="FILE", help="write one line for each accepted user record to this file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bad-ratio", type=float, default=0.005, help="the part of the produced records that is bad")
    parser.add_argument("--bin", default=os.environ.get("SHARDLAKE_BIN", str(default_binary)), help="the shardlake binary that produces records")
    args = parser.parse_args()

    filler = Filler(args.stream, args.rate)
    if args.create:
        create(filler.client, args.stream, args.create)
    started = time.monotonic()
    lines = records_of(args.records, args.bin, args.seed, args.bad_ratio)
    filler.put(pack(lines, random.Random(args.seed), args.aggregate, args.plain, args.broken))
    seconds = time.monotonic() - started
    if args.accepted:
        with open(args.accepted, "w") as file:
            for shard, sequence, sub, user in filler.accepted:
                file.write(json.dumps({"shard": shard, "sequence": sequence, "sub": sub, "sha256": user}) + "\n")
            for record in filler.uncertain:
                file.write(json.dumps({"uncertain": record}) + "\n")
    print(f"{filler.users:,} user records in {filler.records:,} Kinesis records, {filler.bytes / 1e6:.1f} MB, "
          f"in {seconds:.1f} s; {filler.requests:,} requests, {filler.rejected:,} records rejected and put again, "
          f"{len(filler.uncertain):,} uncertain")


if __name__ == "__main__":
    main()
