"""The rounds of `single_machine.py`: what is done to workers and disks, one function for each kind.

Owns: the order of events in a round, and which last words a failing disk allows. Does not own: the fleet (`supervised.py`), disks
(`disks.py`), the judgement at the end (`judge.py`).
"""

import collections
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time

from e2e.chaos import disks
from e2e.chaos.feeder import Feeder
from e2e.chaos.judge import judge
from e2e.chaos.messages import FORBIDDEN, GONE, NO_SPACE, OTHER_LAKE, READ_ONLY, TOO_LARGE
from e2e.chaos.supervised import Supervised, personal_values_of_file
from e2e.common.binary import shardlake
from e2e.common.session import Log, sleep, until

FAILOVER, HAND_OFF = 2, 4  # seconds
WORKERS = 3
# Seconds after which a worker that met a fault has ended because of it.
SETTLED = 3
# Seconds after which a worker that is awake has opened its lake.
OPENED = 3
# Seconds within which a failing disk must have stopped a worker; requests are retried for about 20.
NOTICED = 60


class Round:
    """One lake, its source, its workers and its reader."""

    def __init__(self, args, kind, seed, folder):
        self.args, self.kind, self.folder = args, kind, folder
        self.rng = random.Random(f"{kind} {seed}")
        self.source, self.lake, self.leases = folder / "in", folder / "lake", None
        self.prefix, self.disks, self.done = [], [], collections.Counter()
        self.fleet = self.feeder = self.watcher = None
        self.workers, self.files = WORKERS, (2, 8)
        self.log = Log(f"{kind}: ")

    def disk(self, name, size):
        disk = disks.Disk(self.folder / name, size)
        self.disks.append(disk)
        return disk

    def start(self):
        config = self.folder / "shardlake.toml"
        config.write_text(f'[leases]\nfailover = "{FAILOVER}s"\nhand_off = "{HAND_OFF}s"\n\n[limits]\nmemory = "128 MiB"\n')
        records = self.folder / "records.ndjson"
        count = int(self.args.rate * (self.args.seconds + 30))
        shardlake("produce", "--to", records, "--count", count, "--seed", self.rng.randrange(1 << 32), "--bad-ratio", 0.005)
        self.flags = ["--config", config]
        self.lake_flags = ["--lake", self.lake, *(["--checkpoints", f"sqlite://{self.leases}"] if self.leases else [])]
        self.source.mkdir()
        self.feeder = Feeder(records, self.source, self.args.rate, self.rng.randrange(1 << 32), self.files)
        self.feeder.start()
        self.watched = open(self.folder / "watcher.json", "w+")
        self.watcher = subprocess.Popen([sys.executable, "-m", "e2e.chaos.watcher", self.lake], stdin=subprocess.PIPE,
                                        stdout=self.watched)
        command = [*self.prefix, self.args.bin, "run", *map(str, self.flags), "--source", str(self.source),
                   *map(str, self.lake_flags), "--threads", "1", "--commit-interval", "300ms"]
        self.fleet = Supervised(command, self.workers, self.folder, self.rng, dict(os.environ), personal_values_of_file(records),
                                self.log)

    def watch(self):
        self.fleet.watch()
        self.feeder.check()
        assert self.watcher.poll() is None, f"the reader ended: {self.folder / 'watcher.json'}"

    def quarter(self):
        return self.args.seconds / 4

    def trouble(self, seconds):
        """Kills, stalls and stops workers for `seconds`."""
        next_at = 0.0

        def step():
            nonlocal next_at
            self.watch()
            if time.monotonic() > next_at:
                next_at = time.monotonic() + self.rng.uniform(0.1, 0.9)
                action = self.rng.choices(["kill", "stall", "stop"], [6, 3, 2])[0]
                self.done[action] += 1
                if action == "stall":
                    self.fleet.stall(self.rng.uniform(0.1, 3 * FAILOVER))
                else:
                    getattr(self.fleet, action)()

        sleep(seconds, step)

    def expect_refusal(self, allowed, reason, may_wait=False):
        """From now on workers may end with such last words, and one must, soon. `may_wait`: or log them and continue."""
        before = len(self.fleet.refusals)
        self.fleet.allowed = allowed if self.fleet.allowed is None else f"{self.fleet.allowed}|{allowed}"
        # No worker is killed in the meantime: one must have the time to say it.
        until(lambda: len(self.fleet.refusals) > before or (may_wait and self.fleet.any_logged(allowed)), NOTICED,
              f"{reason}, and no worker has said so for {NOTICED} s", self.watch)
        self.done["refusal"] += 1

    def settle(self, seconds=SETTLED):
        """Waits until every worker has been awake for `seconds`. A stalled one reports what it met only once it resumes."""
        since = time.monotonic()
        while time.monotonic() < since + seconds:
            self.watch()
            if self.fleet.any_stalled():
                since = time.monotonic()
            time.sleep(0.02)

    def recover(self):
        """The disks work again. A worker that met the fault ends within `SETTLED`; after that, none has a reason to fail."""
        self.settle()
        self.fleet.allowed = None

    def until_exists(self, path):
        until(path.exists, 30, f"{path} does not exist after 30 s", self.watch)

    def finish(self):
        """Everything is fed, the workers stop, and one worker reads the rest. Then the lake is judged."""
        self.recover()
        self.feeder.finish()
        self.fleet.stop_all()
        self.fleet.read_the_rest(120)
        self.watcher.stdin.close()
        code = self.watcher.wait(120)
        self.watched.seek(0)
        saw = self.watched.read()
        assert code == 0, f"the reader saw a fault, or failed with exit code {code}: {saw}"
        counted = judge(self.lake, self.source, self.lake_flags, self.reference(), self.flags)
        saw = json.loads(saw)
        assert saw["parquet"] > 0 and saw["counts"] > 0, f"the reader saw nothing: {saw}"
        counted |= {"objects seen": saw["objects"], "counts by DuckDB": saw["counts"], "workers": self.fleet.started}
        return counted | {name: self.done[name] for name in ["kill", "stall", "stop", "refusal"]}

    def reference(self):
        """The folder of a lake that has the same pseudonym key."""
        reference = self.folder / "reference"
        shutil.copy(f"{self.lake}.pseudonym.key", f"{reference}.pseudonym.key")
        return reference

    def end(self):
        """Ends every process and unmounts every disk, whatever happened before."""
        if self.feeder:
            self.feeder.stop()
        if self.fleet:
            self.fleet.end()
        if self.watcher and self.watcher.poll() is None:
            self.watcher.kill()
            self.watcher.wait()
        for disk in self.disks:
            disk.unmount()


def killed(r):
    r.start()
    r.trouble(r.args.seconds)


def lake_full(r):
    """Fills the lake's disk twice, with more or less space left, so that it runs out at different steps."""
    disk = r.disk("disk", "256m")
    r.lake = disk.folder / "lake"
    r.start()
    for leave in r.rng.sample([0, 40 << 10, 300 << 10, 1500 << 10], 2):
        r.trouble(r.quarter())
        disk.fill(leave)
        r.expect_refusal(NO_SPACE, f"the disk has {disk.free():,} bytes free")
        # Workers that start now find it full from the beginning.
        r.trouble(r.quarter())
        disk.empty()
    r.trouble(r.quarter())


def leases_full(r):
    disk = r.disk("disk", "4m")
    r.leases = disk.folder / "leases.db"
    r.start()
    r.trouble(r.quarter())
    disk.fill()
    # Workers that have the database open continue: its log has the space that it needs. A worker that starts now fails.
    r.fleet.allowed = NO_SPACE
    r.trouble(2 * r.quarter())
    r.fleet.kill_all()
    disk.fill()
    r.fleet.start()
    # A worker waits up to five minutes for the database, because another process may hold it for a while.
    r.expect_refusal(NO_SPACE, "the lease database's disk is full", may_wait=True)
    r.trouble(r.quarter())
    disk.empty()
    for _ in range(WORKERS - 1):
        r.fleet.start()
    r.trouble(r.quarter())


def lake_read_only(r):
    disk = r.disk("disk", "256m")
    r.lake, r.leases = disk.folder / "lake", r.folder / "leases.db"
    r.start()
    for _ in range(2):
        r.trouble(r.quarter())
        disk.read_only()
        r.expect_refusal(READ_ONLY, "the lake is read-only")
        r.trouble(r.quarter())
        disk.writable()
    r.trouble(r.quarter())


def leases_read_only(r):
    disk = r.disk("disk", "64m")
    r.leases = disk.folder / "leases.db"
    r.start()
    r.trouble(2 * r.quarter())
    r.fleet.kill_all()
    disk.read_only()
    r.fleet.start()
    r.expect_refusal(READ_ONLY, "the lease database's disk is read-only")
    disk.writable()
    for _ in range(WORKERS - 1):
        r.fleet.start()
    r.trouble(2 * r.quarter())


def set_mode(top, mode):
    for folder in [top, *(path for path in top.rglob("*") if path.is_dir())]:
        folder.chmod(mode)


def forbidden(r):
    r.prefix = disks.WITHOUT_CAPABILITIES
    r.leases = r.folder / "leases.db"
    r.start()
    for name in r.rng.sample(["_staging", "_intents", "_commits", "processed", "raw"], 2):
        r.trouble(r.quarter())
        r.until_exists(r.lake / name)
        set_mode(r.lake / name, 0o555)
        r.expect_refusal(FORBIDDEN, f"{name}/ has no write permission")
        r.trouble(r.quarter())
        set_mode(r.lake / name, 0o755)
    r.trouble(r.quarter())


def pending(r):
    """One shard, two workers: neither the one that reads nor the one that takes over can finish the decided epoch."""
    r.prefix, r.workers, r.files = disks.WITHOUT_CAPABILITIES, 2, (1, 1)
    r.leases = r.folder / "leases.db"
    r.start()
    r.until_exists(r.lake / "processed")
    sleep(r.quarter(), r.watch)
    first = {worker.name for worker in r.fleet.workers}
    set_mode(r.lake / "processed", 0o555)
    # Neither may keep the lease of a shard that it can't read.
    while not first <= {name for name, _ in r.fleet.refusals}:
        r.expect_refusal(FORBIDDEN, f"processed/ has no write permission, and one of {sorted(first)} continues")
    set_mode(r.lake / "processed", 0o755)
    r.recover()
    r.trouble(r.quarter())


def file_limit(r):
    # Without this, the signal kills a worker. With it, the write fails.
    r.prefix = ["env", "--ignore-signal=XFSZ"]
    r.leases = r.folder / "leases.db"
    r.start()
    r.trouble(2 * r.quarter())
    # The Parquet and raw files of an epoch are larger. Only running workers have the limit, so that the log of the lease database
    # does not meet it in a worker that starts.
    for worker in r.fleet.workers:
        resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    r.expect_refusal(f"{TOO_LARGE}|{NO_SPACE}", "files can't grow beyond 20,000 bytes")
    r.trouble(2 * r.quarter())


def moved(r):
    r.leases = r.folder / "leases.db" if r.rng.random() < 0.5 else None
    r.start()
    away = r.folder / "away"
    for _ in range(2):
        r.trouble(r.quarter())
        r.until_exists(r.lake / "_commits")
        if r.leases is None:
            # The checkpoints move away with their lake. A worker that starts while they are away creates both again, so none is
            # started now, and each running one has the time to open the lake.
            r.fleet.halted = True
            r.settle(OPENED)
        r.lake.rename(away)
        r.expect_refusal(f"{GONE}|{OTHER_LAKE}", "the lake was moved away")
        time.sleep(r.rng.uniform(0, 2))
        created = list(r.lake.rglob("*")) if r.lake.exists() else []
        files = [str(path) for path in created if path.is_file()]
        assert not files, f"workers wrote a second lake while the first was away: {files}"
        shutil.rmtree(r.lake, ignore_errors=True)
        away.rename(r.lake)
        r.fleet.halted = False
        r.fleet.watch()
        while len(r.fleet.workers) + len(r.fleet.restarts) < WORKERS:
            r.fleet.start()
    r.trouble(r.quarter())


# The function of each kind, and what it needs of the machine.
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
}


def run(args, kind, seed, folder):
    """Runs a round of one kind. Returns what was done and counted."""
    folder.mkdir()
    a_round = Round(args, kind, seed, folder)
    try:
        KINDS[kind][0](a_round)
        return a_round.finish()
    finally:
        a_round.end()
