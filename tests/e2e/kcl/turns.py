"""One stream, one lease table, one lake, and the turns that read it: the KCL's and Shardlake's, one after the other.

Owns: filling and resharding the stream, starting and stopping its readers, and the positions that the table has after each turn.
Does not own: how the KCL runs (`client_library.py`), what must have happened (`audit.py`).
"""

import collections
import hashlib
import math
import os
import pathlib
import random
import subprocess
import time
import uuid

import boto3

from e2e.common import fill, stream as streams
from e2e.common.binary import shardlake
from e2e.common.session import Log, until
from e2e.kcl.client_library import ClientLibrary

TURN_MAX = 120  # seconds for a turn of Shardlake
SUBS = 8  # records of an aggregate
BEGINNING, END = (-1, 0), (math.inf, 0)


def position(item):
    """The position of a lease, comparable with (sequence, sub)."""
    checkpoint = item["checkpoint"]["S"]
    sentinels = {"TRIM_HORIZON": BEGINNING, "SHARD_END": END}
    return sentinels.get(checkpoint) or (int(checkpoint), int(item["checkpointSubSequenceNumber"]["N"]))


def parse(text):
    """The same for the text of a commit record."""
    sequence, _, sub = text.partition(":")
    return {"TRIM_HORIZON": BEGINNING, "SHARD_END": END}.get(text) or (int(sequence), int(sub or 0))


class Turns:
    """One stream, one table, one lake, and the turns that read it."""

    def __init__(self, args, folder, name):
        self.args, self.folder = args, folder
        self.name = f"{name.replace('_', '-')}-{uuid.uuid4().hex[:6]}"
        self.rng = random.Random(f"{name} {args.seed}")
        self.kinesis, self.s3, self.dynamodb = boto3.client("kinesis"), boto3.client("s3"), boto3.client("dynamodb")
        self.filler = fill.Filler(self.name)
        self.libraries, self.workers = [], []
        self.turns = []  # (the KCL, or None for Shardlake; {shard: position} after the turn)
        self.log = Log()
        folder.mkdir()
        config = folder / "shardlake.toml"
        config.write_text('[anonymize]\nkey = "env:SHARDLAKE_TEST_KEY"\n\n[leases]\nfailover = "4s"\nhand_off = "10s"\n\n'
                          '[limits]\nmemory = "128 MiB"\n')
        self.lake_flags = ["--config", config, "--lake", f"s3://{self.name}/lake", "--checkpoints", f"dynamodb://{self.name}"]
        self.s3.create_bucket(Bucket=self.name)
        records = folder / "records.ndjson"
        shardlake("produce", "--to", records, "--count", 4000, "--seed", args.seed, "--bad-ratio", 0.02)
        self.lines = iter(records.read_bytes().splitlines())

    def end(self):
        for library in self.libraries:
            library.end()
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()

    # --- the stream -----------------------------------------------------------------------------------------------------

    def create_stream(self, shards):
        fill.create(self.kinesis, self.name, shards)

    def open_shards(self):
        """The ids of the open shards, in the order of their hash keys."""
        return [shard for _, _, shard in streams.open_shards(self.kinesis, self.name)]

    def key_in(self, first, last):
        """A partition key of a shard. (The KCL drops an aggregate that holds a record of another shard.)"""
        while True:
            key = f"device-{self.rng.randrange(1 << 32):08x}"
            if first <= int(hashlib.md5(key.encode()).hexdigest(), 16) <= last:
                return key

    def put(self, but=()):
        """Puts records of all kinds into each open shard: plain ones, aggregates, and a broken aggregate."""
        kinds = ["plain", "aggregate", "plain", "aggregate", "broken", "plain", "aggregate", "plain", "aggregate"]
        shards = [shard for shard in streams.open_shards(self.kinesis, self.name) if shard[2] not in but]
        entries = []
        for kind in kinds:
            for first, last, _ in shards:
                key = self.key_in(first, last)
                if kind == "plain":
                    data = next(self.lines)
                    entries.append(fill.Entry(key, data, [fill.sha256(data)]))
                    continue
                entry = fill.aggregate([(key, next(self.lines)) for _ in range(SUBS)])
                if kind == "broken":  # With a wrong digest, both readers take it for one plain record.
                    data = entry.data[:-1] + bytes([entry.data[-1] ^ 1])
                    entry = fill.Entry(key, data, [fill.sha256(data)])
                entries.append(entry)
        self.filler.put(entries)
        assert not self.filler.uncertain, "the stand-in for Kinesis did not respond to some requests"

    def accepted(self):
        """{shard: (sequence, sub) of each record of the stream}"""
        found = collections.defaultdict(list)
        for shard, sequence, sub, _ in self.filler.accepted:
            found[shard].append((int(sequence), sub))
        return found

    def split(self, shard):
        first, last, _ = next(found for found in streams.open_shards(self.kinesis, self.name) if found[2] == shard)
        middle = (first + last) // 2
        self.kinesis.split_shard(StreamName=self.name, ShardToSplit=shard, NewStartingHashKey=str(middle))
        streams.until_active(self.kinesis, self.name)

    def merge(self, left, right):
        self.kinesis.merge_shards(StreamName=self.name, ShardToMerge=left, AdjacentShardToMerge=right)
        streams.until_active(self.kinesis, self.name)

    def shards(self):
        pages = self.kinesis.get_paginator("list_shards").paginate(StreamName=self.name)
        return {shard["ShardId"]: shard for page in pages for shard in page["Shards"]}

    def children(self, shard):
        parents = ("ParentShardId", "AdjacentParentShardId")
        return {child for child, item in self.shards().items() if shard in [item.get(parent) for parent in parents]}

    def closed(self):
        return {shard for shard, item in self.shards().items() if "EndingSequenceNumber" in item["SequenceNumberRange"]}

    # --- the table ------------------------------------------------------------------------------------------------------

    def items(self, table, key):
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
        return {item[key]["S"]: item for page in pages for item in page["Items"]}

    def leases(self):
        try:
            return self.items(self.name, "leaseKey")
        except self.dynamodb.exceptions.ResourceNotFoundException:  # It is not created yet.
            return {}

    def positions(self):
        """The position of each shard now. The cleaner removes only rows of shards that were read to their ends."""
        before = self.turns[-1][1] if self.turns else {}
        now = {shard: position(item) for shard, item in self.leases().items()}
        return {**{shard: at for shard, at in before.items() if at == END}, **now}

    def before(self, shard):
        return self.turns[-1][1].get(shard, BEGINNING) if self.turns else BEGINNING

    # --- turns ----------------------------------------------------------------------------------------------------------

    def start_library(self, plan):
        """Starts a turn of the KCL."""
        library = ClientLibrary(self.folder / f"kcl-{len(self.libraries) + 1}", self.name, self.name, plan)
        self.libraries.append(library)
        return library

    def until_given(self, library):
        """Waits until the KCL was given every record after the turn before, and has ended every closed shard."""
        wanted = {(shard, place) for shard, places in self.accepted().items() for place in places
                  if place > self.before(shard)}
        ends = {shard for shard in self.closed() if self.before(shard) != END}

        def given():
            found = {(shard, (int(sequence), sub)) for shard, sequence, sub in library.records()}
            ended = {shard for shard, item in self.leases().items() if position(item) == END}
            return wanted <= found and ends <= ended
        library.until(f"KCL was given {len(wanted)} records and the ends of {len(ends)} shards", given)
        time.sleep(2)  # For its last checkpoints.

    def end_library_turn(self, library, how):
        if how == "kill":
            library.end()
        else:
            code = library.stop()
            assert code in (0, 143), f"KCL ended with exit code {code}:\n{library.tail()}"
        self.turns.append((library, self.positions()))
        given = library.records()
        self.log(f"KCL was given {len(given):,} records, and stopped ({how})")

    def start_worker(self, *more_flags):
        """Starts a turn of Shardlake."""
        command = [self.args.bin, "run", *self.lake_flags, "--source", f"kinesis://{self.name}", "--threads", "1",
                   *more_flags]
        if "--listen" in shardlake("run", "--help"):
            command += ["--listen", "127.0.0.1:0"]
        with open(self.folder / f"shardlake-{len(self.workers) + 1}.log", "wb") as log:
            worker = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                      env={"RUST_LOG": "info", **os.environ})
        worker.log = log.name
        self.workers.append(worker)
        return worker

    def until_committed(self, worker):
        """Waits until everything in the stream is committed, and the end of every closed shard."""
        wanted = {shard: max(places) for shard, places in self.accepted().items()} | dict.fromkeys(self.closed(), END)

        def committed():
            positions = self.positions()
            return all(positions.get(shard, BEGINNING) >= at for shard, at in wanted.items())

        def check_running():
            assert worker.poll() is None, f"the worker ended with exit code {worker.returncode}:\n{self.tail(worker)}"

        until(committed, TURN_MAX, lambda: f"not committed within {TURN_MAX} s:\n{self.tail(worker)}", check_running, every=0.3)

    def end_worker_turn(self, worker):
        """Waits until the worker has ended, and checks the leases that it leaves."""
        code = worker.wait(TURN_MAX)
        assert code == 0, f"the worker ended with exit code {code}:\n{self.tail(worker)}"
        held = [shard for shard, item in self.leases().items()
                if "leaseOwner" in item and item["leaseOwner"]["S"] not in {one.folder.name for one in self.libraries}]
        assert not held, f"the worker still holds these leases: {held}"
        for shard, item in self.leases().items():
            extra = {name for name in item if name.startswith("pending") or name == "checkpointOwner"}
            assert not extra, f"the worker left these attributes in the row of {shard}: {extra}"
        self.turns.append((None, self.positions()))
        self.log("Shardlake caught up and ended" if "--until-caught-up" in worker.args else
                  "Shardlake was asked to stop, and stopped")

    def tail(self, worker):
        return "\n".join(pathlib.Path(worker.log).read_text(errors="replace").splitlines()[-20:])
