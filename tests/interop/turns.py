"""One stream, one lease table, one lake, and the turns that read it: the library's and ours, one after the other.

Owns: filling and resharding the stream, starting and stopping who reads it, and the positions that the table has after each
turn. Does not own: how the library is run (`client_library.py`), what must have come of it (`audit.py`).
"""

import collections
import hashlib
import math
import os
import pathlib
import random
import subprocess
import sys
import time
import uuid

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "fleet"), str(HERE.parent / "outside")]
import boto3  # noqa: E402

import lake as lakes  # noqa: E402, F401: for those who import this
import stream as streams  # noqa: E402
from client_library import ClientLibrary  # noqa: E402

fill = streams.fill
TURN_MAX = 120  # seconds for a turn of ours
SUBS = 8  # records of an aggregate
BEGINNING, END = (-1, 0), (math.inf, 0)


def position(item):
    """What lies behind a row's reader, to be compared with (sequence, sub)."""
    checkpoint = item["checkpoint"]["S"]
    sentinels = {"TRIM_HORIZON": BEGINNING, "SHARD_END": END}
    return sentinels.get(checkpoint) or (int(checkpoint), int(item["checkpointSubSequenceNumber"]["N"]))


def parse(text):
    """The same of a commit record's text."""
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
        self.turns = []  # (the library, or None for ours; {shard: position} after it)
        self.begun = time.monotonic()
        folder.mkdir()
        config = folder / "shardlake.toml"
        config.write_text('[anonymize]\nkey = "env:SHARDLAKE_TEST_KEY"\n\n[leases]\nfailover = "4s"\nhand_off = "10s"\n\n'
                          '[limits]\nmemory = "128 MiB"\n')
        self.place = ["--config", config, "--lake", f"s3://{self.name}/lake", "--checkpoints", f"dynamodb://{self.name}"]
        self.s3.create_bucket(Bucket=self.name)
        records = folder / "records.ndjson"
        self.shardlake("produce", "--to", records, "--count", 4000, "--seed", args.seed, "--bad-ratio", 0.02)
        self.lines = iter(records.read_bytes().splitlines())

    def tell(self, text):
        print(f"{time.monotonic() - self.begun:7.1f} s  {text}", flush=True)

    def shardlake(self, *args):
        done = subprocess.run([self.args.bin, *map(str, args)], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"shardlake {args}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def end(self):
        for library in self.libraries:
            library.end()
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()

    # --- the stream -----------------------------------------------------------------------------------------------------

    def make_stream(self, shards):
        fill.create(self.kinesis, self.name, shards)

    def open_shards(self):
        """Ids in the order of their hash keys."""
        return [shard for _, _, shard in streams.open_shards(self.kinesis, self.name)]

    def key_in(self, first, last):
        """A partition key of a shard. (KCL drops an aggregate that holds a record of another shard.)"""
        while True:
            key = f"device-{self.rng.randrange(1 << 32):08x}"
            if first <= int(hashlib.md5(key.encode()).hexdigest(), 16) <= last:
                return key

    def put(self, but=()):
        """Records of all kinds into each open shard: plain ones, aggregates, and one that only looks like an aggregate."""
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
                if kind == "broken":  # The digest is another message's: one record for both.
                    data = entry.data[:-1] + bytes([entry.data[-1] ^ 1])
                    entry = fill.Entry(key, data, [fill.sha256(data)])
                entries.append(entry)
        self.filler.put(entries)
        assert not self.filler.uncertain, "the stand-in left requests unanswered"

    def accepted(self):
        """{shard: places of what is in the stream}"""
        found = collections.defaultdict(list)
        for shard, sequence, sub, _ in self.filler.accepted:
            found[shard].append((int(sequence), sub))
        return found

    def split(self, shard):
        first, last, _ = next(found for found in streams.open_shards(self.kinesis, self.name) if found[2] == shard)
        middle = (first + last) // 2
        self.kinesis.split_shard(StreamName=self.name, ShardToSplit=shard, NewStartingHashKey=str(middle))
        self.until_active()

    def merge(self, left, right):
        self.kinesis.merge_shards(StreamName=self.name, ShardToMerge=left, AdjacentShardToMerge=right)
        self.until_active()

    def until_active(self):
        self.kinesis.get_waiter("stream_exists").wait(StreamName=self.name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})

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
        except self.dynamodb.exceptions.ResourceNotFoundException:  # Nobody has made it yet.
            return {}

    def positions(self):
        """Where each shard stands now. A row that is gone was that of a shard that had been read to its end."""
        before = self.turns[-1][1] if self.turns else {}
        now = {shard: position(item) for shard, item in self.leases().items()}
        return {**{shard: at for shard, at in before.items() if at == END}, **now}

    def before(self, shard):
        return self.turns[-1][1].get(shard, BEGINNING) if self.turns else BEGINNING

    # --- turns ----------------------------------------------------------------------------------------------------------

    def library(self, plan):
        """Starts a turn of the library."""
        library = ClientLibrary(self.folder / f"kcl-{len(self.libraries) + 1}", self.name, self.name, plan)
        self.libraries.append(library)
        return library

    def until_given(self, library):
        """Waits until the library was given all that is behind the turn before, and has ended every closed shard."""
        wanted = {(shard, place) for shard, places in self.accepted().items() for place in places
                  if place > self.before(shard)}
        ends = {shard for shard in self.closed() if self.before(shard) != END}

        def given():
            found = {(shard, (int(sequence), sub)) for shard, sequence, sub in library.records()}
            ended = {shard for shard, item in self.leases().items() if position(item) == END}
            return wanted <= found and ends <= ended
        library.until(f"given {len(wanted)} records and the ends of {len(ends)} shards", given)
        time.sleep(2)  # The last checkpoints.

    def library_is_done(self, library, how):
        if how == "kill":
            library.end()
        else:
            code = library.stop()
            assert code in (0, 143), f"the library ended with {code}:\n{library.tail()}"
        self.turns.append((library, self.positions()))
        given = library.records()
        self.tell(f"KCL was given {len(given):,} records, and stopped ({how})")

    def ours(self, *more):
        """Starts a turn of ours."""
        command = [self.args.bin, "run", *self.place, "--source", f"kinesis://{self.name}", "--threads", "1", *more]
        if "--listen" in self.shardlake("run", "--help"):
            command += ["--listen", "127.0.0.1:0"]
        with open(self.folder / f"shardlake-{len(self.workers) + 1}.log", "wb") as log:
            worker = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                      env={"RUST_LOG": "info", **os.environ})
        worker.log = log.name
        self.workers.append(worker)
        return worker

    def until_committed(self, worker):
        """Waits until all that is in the stream is committed, and every closed shard's end."""
        wanted = {shard: max(places) for shard, places in self.accepted().items()} | dict.fromkeys(self.closed(), END)
        deadline = time.monotonic() + TURN_MAX
        while any(self.positions().get(shard, BEGINNING) < at for shard, at in wanted.items()):
            assert worker.poll() is None, f"the worker ended with {worker.returncode}:\n{self.tail(worker)}"
            assert time.monotonic() < deadline, f"not committed within {TURN_MAX} s:\n{self.tail(worker)}"
            time.sleep(0.3)

    def ours_is_done(self, worker):
        """Waits for the worker's end."""
        code = worker.wait(TURN_MAX)
        assert code == 0, f"the worker ended with {code}:\n{self.tail(worker)}"
        held = [shard for shard, item in self.leases().items()
                if "leaseOwner" in item and item["leaseOwner"]["S"] not in {one.folder.name for one in self.libraries}]
        assert not held, f"the worker left these leases held: {held}"
        for shard, item in self.leases().items():
            extra = {name for name in item if name.startswith("pending") or name == "checkpointOwner"}
            assert not extra, f"the worker left in the row of {shard}: {extra}"
        self.turns.append((None, self.positions()))
        self.tell("Shardlake stopped by itself, caught up" if "--until-caught-up" in worker.args else
                  "Shardlake was told to stop, and stopped")

    def tail(self, worker):
        return "\n".join(pathlib.Path(worker.log).read_text(errors="replace").splitlines()[-20:])
