"""The real Kinesis Client Library (KCL) and Shardlake read a stream in turns, on one lease table; no record is lost.

They never run at the same time, because the KCL's leader assigns leases as it sees fit. In each turn one of them reads some of the
stream, is stopped, and leaves its checkpoints to the next turn. In the end the stream is read again with AWS's own client. The
positions that the table had after each turn say whose turn each record, by (shard, sequence, subsequence), belonged to:

- a record of a KCL turn was given to its consumer, with the bytes of the stream, and is not in the lake;
- a record of a Shardlake turn is exactly once in the lake, as a row or a dead letter, and once in `raw/`; no later turn of the KCL
  was given it;
- each turn begins exactly where the one before it ended: the KCL is given no earlier record;
- `shardlake verify` finds no fault, except the gaps that the KCL read between two turns of Shardlake, and exactly those;
- `shardlake leases list` reads the table;
- the attributes that Shardlake does not know, and the KCL's other tables, are unchanged.

    localstack/run python -m e2e.kcl --bin target/debug/shardlake [--only kcl_first] [--folder FOLDER] [--seed N]

Exit codes: 0 done; 77 it could not run here (no java, no jars), and nothing was checked; 1 failed.
"""

import argparse
import os
import random
import sys
import time

from e2e.common import binary
from e2e.common.checks import KEY, some
from e2e.common.session import in_folder
from e2e.kcl import client_library
from e2e.kcl.__main__ import COULD_NOT_RUN
from e2e.kcl.audit import audit, check_untouched
from e2e.kcl.turns import BEGINNING, END, SUBS, Turns, position


def kcl_first(test):
    """KCL, which is killed; then Shardlake."""
    test.create_stream(6)
    middle, plain, after_all, never, to_split, cleaned = test.open_shards()
    test.put()
    library = test.start_library({"": "middle", middle: "middle", plain: "plain", after_all: "all", never: "never"})
    test.until_given(library)
    test.log("KCL was given the first records; two shards are split")
    for shard in [to_split, cleaned]:
        test.split(shard)
    # Nothing more arrives for now in the empty shards, and in one where the KCL has checkpointed everything.
    test.put(but={middle, plain, after_all, never})
    test.until_given(library)
    test.end_library_turn(library, "kill")
    at = test.positions()
    assert at[to_split] == at[cleaned] == END and at[never] == BEGINNING, at
    inside_aggregates = [shard for shard, (_, sub) in at.items() if 0 < sub < SUBS - 1]
    assert middle in inside_aggregates and at[plain][1] == 0 < at[plain][0], at
    assert at[after_all] == max(test.accepted()[after_all]), at
    # The KCL's cleaner does this 5 minutes after the children are being read: the stream still has the shard, the table has not.
    assert all(at[child] > BEGINNING for child in test.children(cleaned)), at
    test.dynamodb.delete_item(TableName=test.name, Key={"leaseKey": {"S": cleaned}})
    # An unknown attribute, as later versions of the KCL may add one.
    for shard in test.leases():
        test.dynamodb.update_item(TableName=test.name, Key={"leaseKey": {"S": shard}},
                                  UpdateExpression="SET ofALaterVersion = :v",
                                  ExpressionAttributeValues={":v": {"S": "as it was"}})
    others = {f"{test.name}-CoordinatorState": "key", f"{test.name}-WorkerMetricStats": "wid"}
    before, before_others = test.leases(), {table: test.items(table, key) for table, key in others.items()}
    test.put(but={after_all})
    test.end_worker_turn(test.start_worker("--until-caught-up"))
    check_untouched(before, test.leases())
    assert before_others == {table: test.items(table, key) for table, key in others.items()}, "another table changed"
    test.log(f"KCL had stopped inside {len(inside_aggregates)} aggregates; its attributes and tables are unchanged")
    audit(test)


def shardlake_first(test):
    """Shardlake, which is asked to stop; then KCL. Shards are split before and after."""
    test.create_stream(3)
    first, second, _ = test.open_shards()
    test.put()
    worker = test.start_worker("--commit-interval", "3s")
    test.until_committed(worker)
    test.split(first)
    test.put()
    test.until_committed(worker)
    test.log("Shardlake has committed everything, through a split")
    test.put()
    time.sleep(1.5)  # So that it has read some records that it has not committed.
    worker.terminate()
    test.end_worker_turn(worker)
    rows = test.leases()
    assert position(rows[first]) == END and set(rows[first]["childShardIds"]["SS"]) == test.children(first), rows
    for child in test.children(first):
        assert rows[child]["parentShardId"]["SS"] == [first], rows[child]
    test.split(second)
    test.put()
    library = test.start_library({"": "all"})
    test.until_given(library)
    test.end_library_turn(library, "stop")
    duplicates = [place for place, hashes in library.records().items() if len(hashes) > 1]
    assert not duplicates, f"KCL was given records twice: {some(duplicates)}"
    after = test.leases()
    for shard, item in rows.items():
        kept = {name: item[name] for name in ("shardlakeStream", "lastManifest") if name in item}
        assert all(after[shard].get(name) == value for name, value in kept.items()), f"{shard}: KCL dropped {kept}"
    audit(test)


def in_turns(test):
    """KCL, Shardlake, KCL, Shardlake, with a split and a merge in between."""
    test.create_stream(4)
    shards = test.open_shards()
    plan = {"": "middle", shards[1]: "plain", shards[2]: "all"}
    test.put()
    library = test.start_library(plan)
    test.until_given(library)
    test.end_library_turn(library, "stop")
    test.put()
    worker = test.start_worker("--commit-interval", "1s")
    test.until_committed(worker)
    test.split(shards[0])
    test.put()
    test.until_committed(worker)
    worker.terminate()
    test.end_worker_turn(worker)
    test.put()
    library = test.start_library(plan)
    test.until_given(library)
    left, right = test.open_shards()[-2:]
    test.merge(left, right)
    test.put()
    test.until_given(library)
    test.end_library_turn(library, "stop")
    test.put()
    test.end_worker_turn(test.start_worker("--until-caught-up"))
    audit(test)


def main():
    scenarios = [kcl_first, shardlake_first, in_turns]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    binary.add_flag(parser)
    parser.add_argument("--only", choices=[scenario.__name__ for scenario in scenarios])
    parser.add_argument("--folder", help="use this folder and keep everything in it")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    args = parser.parse_args()
    binary.require_endpoint(parser)
    binary.use(parser, args)
    if reason := client_library.missing():
        print(f"could not run, nothing was checked: {reason}", file=sys.stderr)
        sys.exit(COULD_NOT_RUN)
    os.environ["SHARDLAKE_TEST_KEY"] = KEY
    print(f"KCL {client_library.version()}, seed {args.seed}")

    def run_all(folder):
        for scenario in scenarios:
            if args.only in (None, scenario.__name__):
                print(f"\n{scenario.__name__}: {scenario.__doc__}", flush=True)
                test = Turns(args, folder / scenario.__name__, scenario.__name__)
                try:
                    scenario(test)
                finally:
                    test.end()

    in_folder(args, "kcl", run_all)
    print("\nno record was lost, and none landed twice")


if __name__ == "__main__":
    main()
