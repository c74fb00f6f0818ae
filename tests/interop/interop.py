"""A stream is read by the real Kinesis Client Library (KCL) and by Shardlake in turns, on one lease table; no record is lost.

Never both at once: the library's leader gives leases away as it sees fit. Each turn reads some of what is there, is stopped,
and leaves its checkpoints to the next one. In the end the stream is read again with AWS's own client. The positions that the
table had after each turn say whose each record was, by (shard, sequence, subsequence):

- a record of a turn of the library was given to its consumer, with the bytes of the stream, and is not in the lake;
- a record of a turn of ours is exactly once in the lake, a row or a dead letter, and once in `raw/`; no later turn of the
  library was given it;
- each turn begins right behind the one before it: the library is given nothing that lies before its turn;
- `shardlake verify` finds no fault, `shardlake leases list` reads the table, and what Shardlake does not know of the
  library's items, and its other tables, are as they were.

    localstack/run python tests/interop/interop.py --bin target/debug/shardlake [--only kcl_first] [--folder F] [--seed N]

Exit codes: 0 done; 77 it could not be run here (no java, no jars), and nothing was checked; 1 failed.
"""

import argparse
import collections
import json
import math
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
import uuid

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "fleet"), str(HERE.parent / "outside")]
import client_library  # noqa: E402

COULD_NOT_RUN = 77
try:
    import boto3

    import lake as lakes
    import stream as streams
    from common import connect
except ImportError as absent:
    print(f"could not run, nothing was checked: {absent}: pip install -r tests/interop/requirements.txt", file=sys.stderr)
    sys.exit(COULD_NOT_RUN)
from client_library import ClientLibrary  # noqa: E402

fill = streams.fill
KEY = "the interop test's key of pseudonyms"
TURN_MAX = 120  # seconds for a turn of ours
SUBS = 8  # records of an aggregate
# What a worker of ours may change or add in an item of the library's.
OURS = {"checkpoint", "checkpointSubSequenceNumber", "leaseCounter", "leaseOwner", "ownerSwitchesSinceCheckpoint",
        "throughputKBps", "childShardIds", "lastManifest", "shardlakeStream"}
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


def begin(shard):
    """Where the range of a shard in a commit record begins."""
    return parse(shard["range"]["after"])


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
            if first <= int(fill.hashlib.md5(key.encode()).hexdigest(), 16) <= last:
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

    # --- what came of it ------------------------------------------------------------------------------------------------

    def turn_of(self, shard, place):
        """The number of the turn that a record belongs to."""
        for number, (_, after) in enumerate(self.turns):
            if place <= after.get(shard, BEGINNING):
                return number
        raise AssertionError(f"no turn ever got to {shard} {place}: the table stands at {self.turns[-1][1].get(shard)}")

    def audit(self):
        truth = streams.read(self.kinesis, self.name, self.folder / "plain.ndjson")
        doubled = streams.check_accepted(self.filler, truth)
        assert doubled == 0, f"{doubled} records were put twice"
        ours, counts = {}, collections.Counter()
        for (shard, sequence, sub), record in truth.users.items():
            number = self.turn_of(shard, (int(sequence), sub))
            counts[number] += 1
            library = self.turns[number][0]
            if library is None:
                ours[shard, sequence, sub] = record
            else:
                hashes = library.records().get((shard, sequence, sub))
                assert hashes, f"turn {number + 1} was the library's, and it was never given {shard} {sequence} {sub}"
                assert set(hashes) == {record.sha256}, f"the library was given other bytes: {shard} {sequence} {sub}"
        for number, (library, _) in enumerate(self.turns):
            start = self.turns[number - 1][1] if number else {}
            for shard, sequence, sub in library.records() if library else []:
                assert (int(sequence), sub) > start.get(shard, BEGINNING), (
                    f"the library was given {shard} {sequence} {sub} in turn {number + 1}, which begins behind it")
                assert (shard, sequence, sub) in truth.users, f"the library was given what is no record: {sequence} {sub}"
        self.tell("records by turns: " + ", ".join(
            f"{'KCL' if library else 'Shardlake'} {counts[number]:,}" for number, (library, _) in enumerate(self.turns)))
        assert all(counts[number] for number in range(len(self.turns))), f"a turn had no records: {counts}"
        self.audit_lake(truth, ours)

    def audit_lake(self, truth, ours):
        lake = self.folder / "lake"
        keys = lakes.download(self.s3, self.name, "lake/", lake)
        commits = lakes.commit_records(lake)
        part = streams.Truth(ours, truth.kinesis, truth.shards, truth.aggregates, truth.broken)
        lakes.check_objects(lake, keys, commits)
        rows, codes = lakes.check_positions(connect(), lake, self.name, part)
        lakes.check_raw(lake, part)
        lakes.check_sums(commits, part)
        self.tell(f"the lake has each record of ours exactly once: {rows:,} rows, {sum(codes.values()):,} dead letters")
        self.check_marks(commits)
        told = subprocess.run([self.args.bin, "verify", *map(str, self.place), "--json"], capture_output=True, text=True)
        assert told.returncode in (0, 1), f"shardlake verify: exit {told.returncode}\n{told.stderr}"
        found, expected = set(json.loads(told.stdout)["faults"]), self.stretches_between(commits)
        assert found == expected, f"verify tells what it should not: {lakes.some(found - expected)}\n" \
                                  f"and does not tell: {lakes.some(expected - found)}"
        listed = json.loads(self.shardlake("leases", "list", *self.place, "--json", "--watch", "1s"))
        assert {row["shard"] for row in listed["leases"]} == set(self.leases()), listed
        assert not listed["findings"], listed["findings"]
        self.tell(f"verify finds no fault but {len(found)} stretches that KCL read in between" if found else
                  "verify finds no fault, and leases list reads the table")

    def check_marks(self, commits):
        """A shard's first range says whether it begins where the library had got to; no other does."""
        first = {}
        for commit in commits:
            for shard in commit["shards"]:
                at = begin(shard)
                first[shard["shard"]] = min(at, first.get(shard["shard"], END))
        for commit in commits:
            for shard in commit["shards"]:
                at, marked = begin(shard), shard.get("taken_over", False)
                expected = BEGINNING < at == first[shard["shard"]]
                assert marked == expected, f"taken_over is {marked} in {commit['epoch']}: {shard}"

    def stretches_between(self, commits):
        """What the library read between two ranges of ours, as `verify` tells it: it can't know that nothing is missing."""
        begins = {(shard["shard"], begin(shard)) for commit in commits for shard in commit["shards"]}
        texts = collections.defaultdict(dict)
        for commit in commits:
            for shard in commit["shards"]:
                for text in shard["range"].values():
                    texts[shard["shard"]][parse(text)] = text
        found = set()
        for number, (library, after) in enumerate(self.turns):
            start = self.turns[number - 1][1] if number else {}
            for shard, at in after.items() if library else []:
                behind = start.get(shard, BEGINNING)
                known = texts[shard]
                if (shard, at) in begins and behind != at and behind in known and behind > BEGINNING:
                    found.add(f"gap: shard {shard} of stream {self.name} has no commit record for "
                              f"({known[behind]}, {known[at]}]")
        return found


def check_untouched(before, after):
    """Items of the library's lease table, before and after a turn of ours."""
    for shard, item in before.items():
        now = after.get(shard)
        assert now is not None, f"the row of {shard} is gone"
        for name in item.keys() - OURS:
            assert now.get(name) == item[name], f"{name} of {shard} was {item[name]} and is {now.get(name)}"
        assert int(now["leaseCounter"]["N"]) >= int(item["leaseCounter"]["N"]), f"the counter of {shard} went back"
        added = now.keys() - item.keys() - OURS
        assert not added, f"the row of {shard} has these attributes that it had not: {added}"


def kcl_first(args, folder):
    """KCL, which is killed; then Shardlake."""
    test = Turns(args, folder, "kcl_first")
    try:
        test.make_stream(6)
        middle, plain, behind_all, never, to_split, cleaned = test.open_shards()
        test.put()
        library = test.library({"": "middle", middle: "middle", plain: "plain", behind_all: "all", never: "never"})
        test.until_given(library)
        test.tell("KCL was given the first records; two shards are split")
        for shard in [to_split, cleaned]:
            test.split(shard)
        # In the empty ones, and in one where KCL has checkpointed everything, nothing more arrives for now.
        test.put(but={middle, plain, behind_all, never})
        test.until_given(library)
        test.library_is_done(library, "kill")
        at = test.positions()
        assert at[to_split] == at[cleaned] == END and at[never] == BEGINNING, at
        in_the_middle = [shard for shard, (_, sub) in at.items() if 0 < sub < SUBS - 1]
        assert middle in in_the_middle and at[plain][1] == 0 < at[plain][0], at
        assert at[behind_all] == max(test.accepted()[behind_all]), at
        # What KCL's cleaner does 5 minutes after the children are being read (a plain DeleteItem): the stream still has
        # the shard, the table has not.
        assert all(at[child] > BEGINNING for child in test.children(cleaned)), at
        test.dynamodb.delete_item(TableName=test.name, Key={"leaseKey": {"S": cleaned}})
        # An attribute that nobody knows, of the kind that later versions add.
        for shard in test.leases():
            test.dynamodb.update_item(TableName=test.name, Key={"leaseKey": {"S": shard}},
                                      UpdateExpression="SET ofALaterVersion = :v",
                                      ExpressionAttributeValues={":v": {"S": "as it was"}})
        others = {f"{test.name}-CoordinatorState": "key", f"{test.name}-WorkerMetricStats": "wid"}
        before, before_others = test.leases(), {table: test.items(table, key) for table, key in others.items()}
        test.put(but={behind_all})
        worker = test.ours("--until-caught-up")
        test.ours_is_done(worker)
        check_untouched(before, test.leases())
        assert before_others == {table: test.items(table, key) for table, key in others.items()}, "another table changed"
        test.tell(f"KCL had stopped inside {len(in_the_middle)} aggregates; its attributes and tables are as they were")
        test.audit()
    finally:
        test.end()


def shardlake_first(args, folder):
    """Shardlake, which is told to stop; then KCL. Shards are split before and after."""
    test = Turns(args, folder, "shardlake_first")
    try:
        test.make_stream(3)
        first, second, _ = test.open_shards()
        test.put()
        worker = test.ours("--commit-interval", "1s")
        test.until_committed(worker)
        test.split(first)
        test.put()
        test.until_committed(worker)
        test.tell("Shardlake has committed all, through a split")
        test.put()
        worker.terminate()
        test.ours_is_done(worker)
        rows = test.leases()
        assert position(rows[first]) == END and set(rows[first]["childShardIds"]["SS"]) == test.children(first), rows
        for child in test.children(first):
            assert rows[child]["parentShardId"]["SS"] == [first], rows[child]
        test.split(second)
        test.put()
        library = test.library({"": "all"})
        test.until_given(library)
        test.library_is_done(library, "stop")
        twice = [place for place, hashes in library.records().items() if len(hashes) > 1]
        assert not twice, f"the library was given records twice: {lakes.some(twice)}"
        after = test.leases()
        for shard, item in rows.items():
            kept = {name: item[name] for name in ("shardlakeStream", "lastManifest") if name in item}
            assert all(after[shard].get(name) == value for name, value in kept.items()), f"{shard}: KCL dropped {kept}"
        test.audit()
    finally:
        test.end()


def in_turns(args, folder):
    """KCL, Shardlake, KCL, Shardlake, with a split and a merge on the way."""
    test = Turns(args, folder, "in_turns")
    try:
        test.make_stream(4)
        shards = test.open_shards()
        plan = {"": "middle", shards[1]: "plain", shards[2]: "all"}
        test.put()
        library = test.library(plan)
        test.until_given(library)
        test.library_is_done(library, "stop")
        test.put()
        worker = test.ours("--commit-interval", "1s")
        test.until_committed(worker)
        test.split(shards[0])
        test.put()
        test.until_committed(worker)
        worker.terminate()
        test.ours_is_done(worker)
        test.put()
        library = test.library(plan)
        test.until_given(library)
        left, right = test.open_shards()[-2:]
        test.merge(left, right)
        test.put()
        test.until_given(library)
        test.library_is_done(library, "stop")
        test.put()
        test.ours_is_done(test.ours("--until-caught-up"))
        test.audit()
    finally:
        test.end()


def main():
    scenarios = [kcl_first, shardlake_first, in_turns]
    default = HERE.parents[1] / "target" / "release" / "shardlake"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=os.environ.get("SHARDLAKE_BIN", str(default)), help="the worker")
    parser.add_argument("--only", choices=[scenario.__name__ for scenario in scenarios])
    parser.add_argument("--folder", help="work here, and leave everything behind")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    args = parser.parse_args()
    if not any(name.startswith("AWS_ENDPOINT_URL") for name in os.environ):
        parser.error("no AWS_ENDPOINT_URL is set: run it under localstack/run")
    if not pathlib.Path(args.bin).is_file():
        parser.error(f"there is no {args.bin}: cargo build")
    if why := client_library.missing():
        print(f"could not run, nothing was checked: {why}", file=sys.stderr)
        sys.exit(COULD_NOT_RUN)
    os.environ["SHARDLAKE_TEST_KEY"] = KEY
    folder = pathlib.Path(args.folder or tempfile.mkdtemp(prefix="shardlake-interop-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"KCL {client_library.version()}, seed {args.seed}")
    try:
        for scenario in scenarios:
            if args.only in (None, scenario.__name__):
                print(f"\n{scenario.__name__}: {scenario.__doc__}", flush=True)
                scenario(args, folder / scenario.__name__)
    except BaseException:
        print(f"\nFAILED, with --seed {args.seed}; what is left is in {folder}", file=sys.stderr, flush=True)
        raise
    if not args.folder:
        shutil.rmtree(folder)
    print("\nno record was lost, and none is twice in the lake")


if __name__ == "__main__":
    main()
