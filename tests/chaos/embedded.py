"""Exactly once on one machine, whatever is done to the workers and to the disks under them.

Several workers share one SQLite store and read files that grow, into a lake in a folder. All the while some of them are killed
(SIGKILL), stalled (SIGSTOP, up to three times the failover time) and told to stop, and are started again. Beside that, a round
of each of these:

    killed          nothing else
    lake-full       the lake's disk runs full, again and again, and is freed again
    leases-full     the disk of the lease database does
    lake-read-only  the lake's disk turns read-only, and writable again
    leases-read-only  the disk of the lease database does, while nobody runs
    forbidden       folders of the lake lose the permission to write, and get it back
    pending         an epoch that was decided can't be finished, by nobody, until its folder may be written again
    file-limit      no file may grow beyond a limit (RLIMIT_FSIZE): writes fail in the middle of a file
    moved           the lake's folder is somewhere else for a while
    refused         what can't work from the start: told plainly, exit code not 0, nothing touched

What must hold: a worker whose disk fails says so in one plain sentence and ends with exit code 1, or waits; started again
when the disk is well, it completes. At no moment does a reader see part of a file, or a row twice (`watcher.py`). In the end
every record is one row or one dead letter, `shardlake verify` finds no fault, and a sweep leaves nothing staged.

    python tests/chaos/embedded.py [--bin target/release/shardlake] [--rounds 1 | --minutes 10] [--seed 1]
        [--only lake-full,moved] [--seconds 6] [--jobs 2] [--without-mounts]

Rounds that need a mount or `setpriv` and can't have it fail, unless --without-mounts says that they may be left out; that they
were is told.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import disks  # noqa: E402
import refusals  # noqa: E402
from feeder import Feeder  # noqa: E402
from judge import build_clock, judge, shardlake  # noqa: E402
from supervised import Supervised, personal_values  # noqa: E402

FAILOVER, HAND_OFF = 2, 4  # seconds
WORKERS = 3
# What a worker may say when the world fails it: what is wrong, and where.
NO_SPACE = r"No space left on device|database or disk is full|disk I/O error"
READ_ONLY = r"Read-only file system|the file is read-only; make it writable"
FORBIDDEN = r"Permission denied"
TOO_LARGE = r"File too large"
GONE = r"No such file or directory|there is no such folder|does not exist any more"
ANOTHER = r"were committed in another lake"
# Seconds after which a worker that met a fault has ended for it.
SETTLED = 3
# Seconds after which a worker that is awake has opened its lake.
OPENED = 3
# Seconds until a failing disk must have stopped somebody: what is retried is retried for about 20.
NOTICED = 60


def arguments():
    default = pathlib.Path(__file__).resolve().parents[2] / "target" / "release" / "shardlake"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=os.environ.get("SHARDLAKE_BIN", str(default)), help="the worker")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is done, each time with the next seed")
    parser.add_argument("--minutes", type=float, help="as many rounds as begin within that time")
    parser.add_argument("--seconds", type=float, default=6, help="of trouble in a round, beside what its disks need")
    parser.add_argument("--rate", type=float, default=4000, help="records a second that are fed")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--jobs", type=int, default=2, help="rounds at a time")
    parser.add_argument("--only", help="these kinds of rounds, with commas")
    parser.add_argument("--without-mounts", action="store_true", help="leave out what this machine does not permit")
    parser.add_argument("--folder", help="work here, and leave everything behind")
    args = parser.parse_args()
    args.bin = str(pathlib.Path(args.bin).resolve())
    if not pathlib.Path(args.bin).is_file():
        parser.error(f"there is no {args.bin}: cargo build --release")
    args.only = args.only.split(",") if args.only else list(KINDS)
    unknown = [kind for kind in args.only if kind not in KINDS]
    if unknown:
        parser.error(f"no round is named {', '.join(unknown)}: {', '.join(KINDS)}")
    return args


class Round:
    """One lake, its source, its workers and its reader."""

    def __init__(self, args, kind, seed, folder):
        self.args, self.kind, self.folder = args, kind, folder
        self.rng = random.Random(f"{kind} {seed}")
        self.source, self.lake, self.leases = folder / "in", folder / "lake", None
        self.prefix, self.mounted, self.done = [], [], collections.Counter()
        self.fleet = self.feeder = self.watcher = None
        self.workers, self.files = WORKERS, (2, 8)

    def tell(self, text):
        print(f"{time.monotonic() - BEGUN:7.1f} s  {self.kind}: {text}", flush=True)

    def disk(self, name, size):
        disk = disks.Disk(self.folder / name, size)
        self.mounted.append(disk)
        return disk

    def start(self):
        config = self.folder / "shardlake.toml"
        config.write_text(f'[leases]\nfailover = "{FAILOVER}s"\nhand_off = "{HAND_OFF}s"\n\n[limits]\nmemory = "128 MiB"\n')
        records = self.folder / "records.ndjson"
        count = int(self.args.rate * (self.args.seconds + 30))
        shardlake("produce", "--to", records, "--count", count, "--seed", self.rng.randrange(1 << 32), "--bad-ratio", 0.005)
        with open(records, "rb") as file:
            personal = personal_values(line for _, line in zip(range(20_000), file))
        self.flags = ["--config", config]
        self.place = ["--lake", self.lake, *(["--checkpoints", f"sqlite://{self.leases}"] if self.leases else [])]
        self.source.mkdir()
        self.feeder = Feeder(records, self.source, self.args.rate, self.rng.randrange(1 << 32), self.files)
        self.feeder.start()
        watcher = [sys.executable, pathlib.Path(__file__).with_name("watcher.py"), self.lake]
        self.watched = open(self.folder / "watcher.json", "w+")
        self.watcher = subprocess.Popen(watcher, stdin=subprocess.PIPE, stdout=self.watched)
        command = [*self.prefix, self.args.bin, "run", *map(str, self.flags), "--source", str(self.source),
                   *map(str, self.place), "--threads", "1", "--commit-interval", "300ms"]
        self.fleet = Supervised(command, self.workers, self.folder, self.rng, dict(os.environ), personal, self.tell)

    def watch(self):
        self.fleet.watch()
        self.feeder.check()
        assert self.watcher.poll() is None, f"the reader ended: {self.folder / 'watcher.json'}"

    def trouble(self, seconds):
        """Kills, stalls and stops, for so long."""
        deadline, due = time.monotonic() + seconds, 0.0
        while time.monotonic() < deadline:
            self.watch()
            if time.monotonic() > due:
                due = time.monotonic() + self.rng.uniform(0.1, 0.9)
                action = self.rng.choices(["kill", "stall", "stop"], [6, 3, 2])[0]
                self.done[action] += 1
                if action == "stall":
                    self.fleet.stall(self.rng.uniform(0.1, 3 * FAILOVER))
                else:
                    getattr(self.fleet, action)()
            time.sleep(0.02)

    def fails(self, allowed, because, waits=False):
        """From here on workers may end with such words; somebody must, soon. `waits`: or say them, and wait."""
        before = len(self.fleet.refusals)
        self.fleet.allowed = allowed if self.fleet.allowed is None else f"{self.fleet.allowed}|{allowed}"
        deadline = time.monotonic() + NOTICED
        # Nobody is killed now: a worker must get round to saying it.
        while len(self.fleet.refusals) == before and not (waits and self.fleet.somebody_says(allowed)):
            self.watch()
            assert time.monotonic() < deadline, f"{because}, and no worker has said so for {NOTICED} s"
            time.sleep(0.02)
        self.done["refusal"] += 1

    def settle(self):
        """The world is well again: whoever met the fault ends now, or goes on and has no reason to fail any more."""
        well = time.monotonic()
        while time.monotonic() < well + SETTLED:
            self.watch()
            if self.fleet.asleep():
                # What it met before it fell asleep it says once it is awake.
                well = time.monotonic()
            time.sleep(0.02)
        self.fleet.allowed = None

    def finish(self):
        """Everything is fed, the workers stop, one reads the rest; then it is judged."""
        self.settle()
        self.feeder.finish()
        self.fleet.stop_all()
        self.fleet.read_the_rest(120)
        self.watcher.stdin.close()
        code = self.watcher.wait(120)
        self.watched.seek(0)
        saw = self.watched.read()
        assert code == 0, f"a reader saw what it must not, or ended with {code}: {saw}"
        found = judge(self.lake, self.source, self.place, self.plain(), self.flags)
        saw = json.loads(saw)
        assert saw["parquet"] > 0 and saw["counts"] > 0, f"the reader saw nothing: {saw}"
        found |= {"objects seen": saw["objects"], "counts by DuckDB": saw["counts"], "workers": self.fleet.started}
        return found | {name: self.done[name] for name in ["kill", "stall", "stop", "refusal"]}

    def plain(self):
        plain = self.folder / "plain"
        shutil.copy(f"{self.lake}.pseudonym.key", f"{plain}.pseudonym.key")
        return plain

    def end(self):
        """Whatever happened: no process and no mount is left."""
        if self.feeder:
            self.feeder.stop()
        if self.fleet:
            self.fleet.end()
        if self.watcher and self.watcher.poll() is None:
            self.watcher.kill()
            self.watcher.wait()
        for disk in self.mounted:
            disk.unmount()


def killed(a_round):
    a_round.start()
    a_round.trouble(a_round.args.seconds)


def full(a_round, disk, words):
    """Fills a disk and frees it, with more or less room left, so that it is short at different steps."""
    for leave in a_round.rng.sample([0, 40 << 10, 300 << 10, 1500 << 10], 2):
        a_round.trouble(a_round.args.seconds / 4)
        disk.fill(leave)
        a_round.fails(words, f"the disk has {disk.free():,} bytes free")
        # Those who are started now find it full from the start.
        a_round.trouble(a_round.args.seconds / 4)
        disk.empty()
    a_round.trouble(a_round.args.seconds / 4)


def lake_full(a_round):
    disk = a_round.disk("disk", "256m")
    a_round.lake = disk.folder / "lake"
    a_round.start()
    full(a_round, disk, NO_SPACE)


def leases_full(a_round):
    disk = a_round.disk("disk", "4m")
    a_round.leases = disk.folder / "leases.db"
    a_round.start()
    a_round.trouble(a_round.args.seconds / 4)
    disk.fill()
    # Workers that have the database open go on: its log has the room that it needs. One that begins does not get so far.
    a_round.fleet.allowed = NO_SPACE
    a_round.trouble(a_round.args.seconds / 2)
    a_round.fleet.kill_all()
    disk.fill()
    a_round.fleet.start()
    # Leases are waited for, five minutes at most: others may have the database for a while.
    a_round.fails(NO_SPACE, "the lease database's disk is full", waits=True)
    a_round.trouble(a_round.args.seconds / 4)
    disk.empty()
    for _ in range(WORKERS - 1):
        a_round.fleet.start()
    a_round.trouble(a_round.args.seconds / 4)


def lake_read_only(a_round):
    disk = a_round.disk("disk", "256m")
    a_round.lake, a_round.leases = disk.folder / "lake", a_round.folder / "leases.db"
    a_round.start()
    for _ in range(2):
        a_round.trouble(a_round.args.seconds / 4)
        disk.read_only()
        a_round.fails(READ_ONLY, "the lake is read-only")
        a_round.trouble(a_round.args.seconds / 4)
        disk.writable()
    a_round.trouble(a_round.args.seconds / 4)


def leases_read_only(a_round):
    disk = a_round.disk("disk", "64m")
    a_round.leases = disk.folder / "leases.db"
    a_round.start()
    a_round.trouble(a_round.args.seconds / 2)
    a_round.fleet.kill_all()
    disk.read_only()
    a_round.fleet.start()
    a_round.fails(READ_ONLY, "the lease database's disk is read-only")
    disk.writable()
    for _ in range(WORKERS - 1):
        a_round.fleet.start()
    a_round.trouble(a_round.args.seconds / 2)


def forbidden(a_round):
    a_round.prefix = disks.WITHOUT_POWERS
    a_round.leases = a_round.folder / "leases.db"
    a_round.start()
    for name in a_round.rng.sample(["_staging", "_intents", "_commits", "processed", "raw"], 2):
        a_round.trouble(a_round.args.seconds / 4)
        wait_for(a_round, a_round.lake / name)
        permit(a_round.lake / name, 0o555)
        a_round.fails(FORBIDDEN, f"{name}/ may not be written")
        a_round.trouble(a_round.args.seconds / 4)
        permit(a_round.lake / name, 0o755)
    a_round.trouble(a_round.args.seconds / 4)


def wait_for(a_round, path):
    deadline = time.monotonic() + 30
    while not path.exists():
        a_round.watch()
        assert time.monotonic() < deadline, f"there is no {path} after 30 s"
        time.sleep(0.02)


def pending(a_round):
    """One shard, two workers: the one that reads can't finish its epoch, and neither can the one that takes over."""
    a_round.prefix, a_round.workers, a_round.files = disks.WITHOUT_POWERS, 2, (1, 1)
    a_round.leases = a_round.folder / "leases.db"
    a_round.start()
    wait_for(a_round, a_round.lake / "processed")
    idle = a_round.args.seconds / 4 + time.monotonic()
    while time.monotonic() < idle:
        a_round.watch()
        time.sleep(0.02)
    first = {worker.name for worker in a_round.fleet.workers}
    permit(a_round.lake / "processed", 0o555)
    # Neither may keep the lease of a shard that it can't read.
    while not first <= {name for name, _ in a_round.fleet.refusals}:
        a_round.fails(FORBIDDEN, f"processed/ may not be written: of {sorted(first)} one goes on")
    permit(a_round.lake / "processed", 0o755)
    a_round.settle()
    a_round.trouble(a_round.args.seconds / 4)


def permit(top, mode):
    for folder in [top, *(path for path in top.rglob("*") if path.is_dir())]:
        folder.chmod(mode)


def file_limit(a_round):
    # A worker that is not told to ignore the signal dies of it, as of a kill; this one gets the error.
    a_round.prefix = ["env", "--ignore-signal=XFSZ"]
    a_round.leases = a_round.folder / "leases.db"
    a_round.start()
    a_round.trouble(a_round.args.seconds / 2)
    # Parquet and raw files of an epoch are larger. The database's log is not limited in a worker that is about to begin.
    for worker in a_round.fleet.workers:
        resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    a_round.fails(f"{TOO_LARGE}|{NO_SPACE}", "files may not grow beyond 20,000 bytes")
    a_round.trouble(a_round.args.seconds / 2)


def moved(a_round):
    a_round.leases = a_round.folder / "leases.db" if a_round.rng.random() < 0.5 else None
    a_round.start()
    away = a_round.folder / "away"
    for _ in range(2):
        a_round.trouble(a_round.args.seconds / 4)
        wait_for(a_round, a_round.lake / "_commits")
        if a_round.leases is None:
            # The checkpoints go away with their lake, and who opens it then begins both anew. So nobody is started now, and
            # whoever was has opened the lake, also who fell asleep on the way.
            a_round.fleet.halted = True
            opened = time.monotonic() + OPENED
            while time.monotonic() < opened:
                a_round.watch()
                if a_round.fleet.asleep():
                    opened = time.monotonic() + OPENED
                time.sleep(0.02)
        a_round.lake.rename(away)
        a_round.fails(f"{GONE}|{ANOTHER}", "the lake is not there")
        time.sleep(a_round.rng.uniform(0, 2))
        stub = [str(path.relative_to(a_round.lake)) for path in a_round.lake.rglob("*")] if a_round.lake.exists() else []
        files = [name for name in stub if (a_round.lake / name).is_file()]
        assert not files, f"with the lake away, workers wrote a second one: {files}"
        shutil.rmtree(a_round.lake, ignore_errors=True)
        a_round.done["folders made anew"] += len(stub)
        away.rename(a_round.lake)
        a_round.fleet.halted = False
        a_round.fleet.watch()
        while len(a_round.fleet.workers) + len(a_round.fleet.due) < WORKERS:
            a_round.fleet.start()
    a_round.trouble(a_round.args.seconds / 4)


KINDS = {
    "killed": (killed, []),
    "lake-full": (lake_full, ["mounts"]),
    "leases-full": (leases_full, ["mounts"]),
    "lake-read-only": (lake_read_only, ["mounts"]),
    "leases-read-only": (leases_read_only, ["mounts"]),
    "forbidden": (forbidden, ["permissions"]),
    "pending": (pending, ["permissions"]),
    "file-limit": (file_limit, []),
    "moved": (moved, []),
    "refused": (None, ["mounts", "permissions"]),
}


def one_round(args, kind, seed, folder):
    folder.mkdir()
    if kind == "refused":
        return {"refusal": refusals.check_all(args.bin, folder)}
    a_round = Round(args, kind, seed, folder)
    try:
        KINDS[kind][0](a_round)
        return a_round.finish()
    finally:
        a_round.end()


def rounds_of(args, kinds):
    """(number, kind) of every round: so many of each, or as many as begin in so many minutes, one of each at least."""
    number = 0
    while True:
        for kind in kinds:
            if number > 0 and args.minutes and time.monotonic() - BEGUN > 60 * args.minutes:
                return
            yield number, kind
        number += 1
        if not args.minutes and number >= args.rounds:
            return


def table(results):
    """What was done and found, a line for each round."""
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
    os.environ["SHARDLAKE_BIN"] = args.bin
    base = pathlib.Path(args.folder or tempfile.mkdtemp(prefix="shardlake-chaos-"))
    base.mkdir(parents=True, exist_ok=True)
    able = {"mounts": may_mount, "permissions": disks.permissions_hold(base)}
    left_out = [kind for kind in args.only if not all(able[need] for need in KINDS[kind][1])]
    for kind in left_out:
        print(f"NOT DONE: {kind}: it needs {' and '.join(KINDS[kind][1])}, and this machine does not permit that", flush=True)
    if left_out and not args.without_mounts:
        sys.exit("rounds could not be done; --without-mounts leaves them out knowingly")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    build_clock()  # Built once, before rounds need it.
    kinds = [kind for kind in args.only if kind not in left_out]
    rounds, results, faults, turn = rounds_of(args, kinds), [], [], threading.Lock()

    def work():
        while not faults:
            with turn:
                number, kind = next(rounds, (0, None))
            if kind is None:
                return
            seed, folder = args.seed + number, base / f"{number}-{kind}"
            try:
                results.append((kind, one_round(args, kind, seed, folder)))
            except BaseException as fault:  # noqa: BLE001: told, and raised again in the main thread
                faults.append(fault)
                print(f"\nFAILED, with --seed {seed} --only {kind}; what is left is in {folder}", file=sys.stderr, flush=True)
                return
            print(f"{time.monotonic() - BEGUN:7.1f} s  {kind}: done, seed {seed}: {results[-1][1]}", flush=True)
            if not args.folder:
                shutil.rmtree(folder)

    threads = [threading.Thread(target=work) for _ in range(args.jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    table(results)
    if left_out:
        print(f"\nleft out, since this machine does not permit it: {', '.join(left_out)}")
    print(f"{len(results)} rounds in {time.monotonic() - BEGUN:.0f} s, seeds from {args.seed}")


BEGUN = time.monotonic()
if __name__ == "__main__":
    main()
