"""A stream is read by the real Kinesis Client Library (KCL) and by Shardlake in turns, on one lease table; no record is lost.

Never both at once: the library's leader gives leases away as it sees fit. Each turn reads some of what is there, is stopped,
and leaves its checkpoints to the next one. In the end the stream is read again with AWS's own client. The positions that the
table had after each turn say whose each record was, by (shard, sequence, subsequence):

- a record of a turn of the library was given to its consumer, with the bytes of the stream, and is not in the lake;
- a record of a turn of ours is exactly once in the lake, a row or a dead letter, and once in `raw/`; no later turn of the
  library was given it;
- each turn begins right behind the one before it: the library is given nothing that lies before its turn;
- `shardlake verify` finds no fault (but for what the library read between two turns of ours, and exactly that),
  `shardlake leases list` reads the table, and what Shardlake does not know of the library's items, and its other tables,
  are as they were.

    localstack/run python tests/interop/interop.py --bin target/debug/shardlake [--only kcl_first] [--folder F] [--seed N]

Exit codes: 0 done; 77 it could not be run here (no java, no jars), and nothing was checked; 1 failed.
"""

import argparse
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import client_library  # noqa: E402

COULD_NOT_RUN = 77
try:
    from audit import audit, check_untouched
    from turns import BEGINNING, END, SUBS, Turns, lakes, position
except ImportError as absent:
    print(f"could not run, nothing was checked: {absent}: pip install -r tests/interop/requirements.txt", file=sys.stderr)
    sys.exit(COULD_NOT_RUN)

KEY = "the interop test's key of pseudonyms"


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
        audit(test)
    finally:
        test.end()


def shardlake_first(args, folder):
    """Shardlake, which is told to stop; then KCL. Shards are split before and after."""
    test = Turns(args, folder, "shardlake_first")
    try:
        test.make_stream(3)
        first, second, _ = test.open_shards()
        test.put()
        worker = test.ours("--commit-interval", "3s")
        test.until_committed(worker)
        test.split(first)
        test.put()
        test.until_committed(worker)
        test.tell("Shardlake has committed all, through a split")
        test.put()
        time.sleep(1.5)  # So that it has read some, and not committed it.
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
        audit(test)
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
        audit(test)
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
