"""Exactly once on one machine, whatever happens to the workers and to the disks under them.

Several workers share one SQLite store and read files that grow, into a lake in a folder. All the while some of them are killed
(SIGKILL), stalled (SIGSTOP, up to three times the failover time) and asked to stop, and are started again. Beside that, a round
of each of these:

    killed          nothing else
    lake-full       the lake's disk runs full, twice, and has space again
    leases-full     the disk of the lease database runs full
    lake-read-only  the lake's disk turns read-only, and writable again
    leases-read-only  the disk of the lease database turns read-only, while no worker runs
    forbidden       folders of the lake lose the permission to write, and get it back
    pending         no worker can finish a decided epoch until its folder is writable again
    file-limit      no file may grow beyond a limit (RLIMIT_FSIZE): writes fail in the middle of a file
    moved           the lake's folder is renamed for a while
    refused         workers are started where they can't work: a plain message, exit code 2, nothing touched

A worker whose disk fails must say so in one plain sentence and end with exit code 1, or wait; started again when the disk works, it
completes. At no moment may a reader see part of a file, or a row twice (`watcher.py`). In the end every record is one row or one
dead letter, `shardlake verify` finds no fault, and a sweep leaves nothing staged.

    python -m e2e.chaos.single_machine [--bin target/release/shardlake] [--rounds 1 | --minutes 10] [--seed 1]
        [--only lake-full,moved] [--seconds 6] [--jobs 2] [--without-mounts]

A round that needs a mount or `setpriv` on a machine that does not permit it fails the suite. With --without-mounts it is left
out, and the suite says so.
"""

import argparse
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import threading
import time

from e2e.chaos import disks, refusals, rounds
from e2e.chaos.judge import build_clock
from e2e.common import binary

KINDS = {**{kind: needs for kind, (_, needs) in rounds.KINDS.items()}, "refused": ["mounts", "permissions"]}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    binary.add_flag(parser)
    parser.add_argument("--rounds", type=int, default=1, help="rounds of each kind, each with the next seed")
    parser.add_argument("--minutes", type=float, help="as many rounds as begin within this time")
    parser.add_argument("--seconds", type=float, default=6, help="of kills and stalls in a round, beside what its disks need")
    parser.add_argument("--rate", type=float, default=4000, help="records a second that are fed")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--jobs", type=int, default=2, help="rounds at a time")
    parser.add_argument("--only", help="these kinds of rounds, separated by commas")
    parser.add_argument("--without-mounts", action="store_true", help="leave out what this machine does not permit")
    parser.add_argument("--folder", help="use this folder and keep everything in it")
    args = parser.parse_args()
    binary.use(parser, args)
    args.only = args.only.split(",") if args.only else list(KINDS)
    if unknown := [kind for kind in args.only if kind not in KINDS]:
        parser.error(f"no round is named {', '.join(unknown)}; the rounds are {', '.join(KINDS)}")
    return args


def schedule(args, kinds):
    """(number, kind) of every round: `--rounds` of each kind, or those that begin within `--minutes`, one of each at least."""
    number = 0
    while True:
        for kind in kinds:
            if number > 0 and args.minutes and time.monotonic() - STARTED > 60 * args.minutes:
                return
            yield number, kind
        number += 1
        if not args.minutes and number >= args.rounds:
            return


def one_round(args, kind, seed, folder):
    if kind != "refused":
        return rounds.run(args, kind, seed, folder)
    folder.mkdir()
    return {"refusal": refusals.check_all(args.bin, folder)}


def run_all(args, kinds, base):
    """Runs the rounds, `--jobs` at a time. Returns (kind, what was counted) of each, and raises the first failure."""
    scheduled, results, faults, turn = schedule(args, kinds), [], [], threading.Lock()

    def work():
        while not faults:
            with turn:
                number, kind = next(scheduled, (0, None))
            if kind is None:
                return
            seed, folder = args.seed + number, base / f"{number}-{kind}"
            try:
                results.append((kind, one_round(args, kind, seed, folder)))
            except BaseException as fault:  # noqa: BLE001: raised again in the main thread
                faults.append(fault)
                print(f"\nFAILED with --seed {seed} --only {kind}; the logs and the lake are in {folder}", file=sys.stderr,
                      flush=True)
                return
            print(f"{time.monotonic() - STARTED:7.1f} s  {kind}: done, seed {seed}: {results[-1][1]}", flush=True)
            if not args.folder:
                shutil.rmtree(folder)

    threads = [threading.Thread(target=work) for _ in range(args.jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return results


def print_table(results):
    """Prints what was done and counted, a line for each round."""
    columns = ["records", "rows", "dead letters", "epochs", "workers", "kill", "stall", "stop", "refusal", "left staged",
               "objects seen", "counts by DuckDB"]
    widths = [max(len(column), 9) for column in columns]
    print("\nexactly once:\n  " + " " * 17 + "  ".join(column.rjust(width) for column, width in zip(columns, widths)))
    for kind, found in results:
        cells = [f"{found[column]:,}" if column in found else "-" for column in columns]
        print(f"  {kind:16} " + "  ".join(cell.rjust(width) for cell, width in zip(cells, widths)))


def main():
    may_mount = disks.enter()
    args = arguments()
    base = pathlib.Path(args.folder or tempfile.mkdtemp(prefix="shardlake-chaos-"))
    base.mkdir(parents=True, exist_ok=True)
    able = {"mounts": may_mount, "permissions": disks.permissions_hold(base)}
    left_out = [kind for kind in args.only if not all(able[need] for need in KINDS[kind])]
    for kind in left_out:
        print(f"NOT DONE: {kind}: it needs {' and '.join(KINDS[kind])}, and this machine does not permit that", flush=True)
    if left_out and not args.without_mounts:
        sys.exit("this machine does not permit some rounds; --without-mounts leaves them out")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    build_clock()  # In one thread, before the rounds need it.
    results = run_all(args, [kind for kind in args.only if kind not in left_out], base)
    print_table(results)
    if left_out:
        print(f"\nleft out, because this machine does not permit it: {', '.join(left_out)}")
    print(f"{len(results)} rounds in {time.monotonic() - STARTED:.0f} s, seeds from {args.seed}")


STARTED = time.monotonic()
if __name__ == "__main__":
    main()
