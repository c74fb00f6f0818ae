"""Workers under a supervisor that judges how they end.

Owns: what a worker may do when its disks or its network fail. One that ends by itself

- must have been given a reason by the suite (`allowed`);
- must end with exit code 1, or with 2 if it was refused before it began;
- must say in its last words what is wrong, in one plain sentence of its own;
- is started again after a pause, as systemd or ECS would do.

Whatever it logged, it must not have panicked, and must not have logged anything personal. Does not own: starting, killing,
stalling and stopping (`e2e.common.workers`).
"""

import json
import re
import signal
import time

from e2e.chaos.messages import HANDLES_SIGNALS
from e2e.common.workers import Fleet

# Seconds between a worker's end and its next start.
PAUSE = 1
# What no log may hold: Rust's own words for a crash.
CRASH = re.compile(r"panicked at|stack backtrace|RUST_BACKTRACE|core dumped|SIGSEGV|unwrap\(\)|^\s+\d+: 0x[0-9a-f]+", re.M)
# Keys of the sample records whose values are personal, at any depth, also in the endpoint's JSON text.
PERSONAL = {"user_id", "userId", "UserId", "email", "name", "phone", "date_of_birth", "last_ip", "Address", "client_id",
            "destination", "id", "assessment_id", "session_id", "DeviceToken", "endpointId", "EndpointId"}


def personal_values(lines):
    """Values of records that no log may hold: texts of six characters and more under the keys above."""
    found = set()

    def walk(value, personal):
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, key in PERSONAL)
        elif isinstance(value, list):
            for inner in value:
                walk(inner, personal)
        elif isinstance(value, str):
            if value.startswith("{"):
                try:
                    walk(json.loads(value), False)
                except ValueError:
                    pass
            # A single lowercase word of free text may be part of a log message.
            elif personal and len(value) >= 6 and not (value.isalpha() and value.islower()):
                found.add(value)

    for line in lines:
        try:
            walk(json.loads(line), False)
        except (ValueError, RecursionError):  # a bad record
            continue
    return found


def personal_values_of_file(path, lines_max=20_000):
    with open(path, "rb") as file:
        return personal_values(line for _, line in zip(range(lines_max), file))


WORD = re.compile(r"[^\s\"',;:()\[\]{}=<>]+")


def check_log(name, text, personal):
    """A log has no crash and nothing personal."""
    crash = CRASH.search(text)
    assert not crash, f"{name} crashed:\n{text[max(0, crash.start() - 500):crash.start() + 2000]}"
    leaked = [word for word in set(WORD.findall(text)) if word in personal or word.rstrip(".") in personal]
    assert not leaked, f"{name} logged {len(leaked)} personal values (not repeated here); its log has {len(text):,} characters"
    mail = re.search(r"[\w.+-]+@[\w-]+\.\w+", text)
    assert not mail, f"{name} logged an e-mail address, at character {mail.start()}"


def last_words(text):
    """What a worker said about its end; empty if it said nothing."""
    said = list(re.finditer(r"^shardlake: ", text, re.M))
    return text[said[-1].start():].strip() if said else ""


class Supervised(Fleet):
    """A fleet whose workers may end by themselves, for a reason that the suite has given them."""

    def __init__(self, command, size, folder, rng, environment, personal=frozenset(), log=print):
        self.personal, self.log = personal, log
        self.allowed = None  # a pattern of last words, while the suite gives a reason
        self.refusals = []  # (worker, its last words)
        self.died_of_signal = 0  # asked to stop before they handled signals
        self.restarts = []  # times at which a worker is started again
        self.halted = False  # whether workers that end are not started again
        super().__init__(command, size, folder, rng, environment)

    def _any_awake(self):
        """A worker that is awake, or any worker if none is."""
        return self.rng.choice([worker for worker in self.workers if worker.resume_at is None] or self.workers)

    def kill(self):
        return super().kill() if self.workers else "there was no worker to kill"

    def stall(self, seconds):
        return super().stall(seconds) if self.workers else "there was no worker to stall"

    def stop(self):
        awake = [worker for worker in self.workers if worker.resume_at is None]
        return super().stop() if awake else "there was no worker awake to stop"

    def kill_all(self):
        """Kills all workers at once, as a power failure would. None is started again."""
        for worker in self.workers + self.stopping:
            worker.process.kill()
        for worker in self.workers + self.stopping:
            worker.process.wait()
            self._check_log(worker)
        self.workers, self.stopping, self.restarts = [], [], []

    def _check_log(self, worker):
        check_log(worker.name, worker.logged(), self.personal)

    def _judge(self, worker, code):
        """Checks that a worker that ended by itself had a reason, and said it plainly."""
        words = last_words(worker.logged())
        assert self.allowed is not None, (
            f"{worker.name} ended by itself with exit code {code}, although the suite gave it no reason:\n{worker.tail()}")
        assert code in (1, 2), f"{worker.name} ended by itself with exit code {code}, not with 1 or 2:\n{worker.tail()}"
        assert re.search(self.allowed, words), (
            f"{worker.name} ended, and its last words do not match {self.allowed!r}:\n{words or worker.tail()}")
        self.refusals.append((worker.name, words))
        self.log(f"{worker.name} ended: {words.splitlines()[0][:200]}")

    def watch(self):
        now = time.monotonic()
        for worker in list(self.workers):
            code = worker.process.poll()
            if code is not None:
                self._check_log(worker)
                self._judge(worker, code)
                self.workers.remove(worker)
                if not self.halted:
                    self.restarts.append(now + PAUSE)
            elif worker.resume_at is not None and now > worker.resume_at:
                worker.resume()
        for worker in list(self.stopping):
            code = worker.process.poll()
            if code is None:
                assert now < worker.stop_until, f"{worker.name} did not stop in time:\n{worker.tail()}"
                continue
            self._check_log(worker)
            if code == -signal.SIGTERM and HANDLES_SIGNALS not in worker.logged():
                self.died_of_signal += 1
            elif code != 0:
                self._judge(worker, code)
            self.stopping.remove(worker)
        for at in [at for at in self.restarts if at <= now]:
            self.restarts.remove(at)
            self.start()

    def stop_all(self):
        self.restarts = []
        for worker in self.workers:
            if worker.resume_at is not None:
                worker.resume()
        self.halted = True
        super().stop_all()
        self.halted = False

    def read_the_rest(self, seconds):
        super().read_the_rest(seconds)
        self.check_all_logs()

    def any_logged(self, pattern):
        """Whether a running worker has such words in its log."""
        return any(re.search(pattern, worker.logged()) for worker in self.workers)

    def check_all_logs(self):
        """Checks every log, also those of workers that were killed."""
        for log in sorted(self.folder.glob("worker-*.log")):
            check_log(log.stem, log.read_text(errors="replace"), self.personal)
