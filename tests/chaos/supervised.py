"""Workers under a supervisor that judges how they end.

Owns: what a worker may do when the world fails it. One that ends by itself must have been given a reason by the test
(`allowed`), ends with exit code 1 (or 2, if it was refused before it began), and says in its last words what is wrong, in one plain sentence of its own; then it is
started again after a pause, as systemd or ECS would. Whatever it logged, it must not have panicked, nor told anything personal.
Does not own: starting, killing, stalling and stopping (`tests/fleet/workers.py`).
"""

import json
import pathlib
import re
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "fleet"))
from workers import Fleet  # noqa: E402

# Seconds between a worker's end and its next start.
PAUSE = 1
# What no log may hold: Rust's own words for a crash.
CRASH = re.compile(r"panicked at|stack backtrace|RUST_BACKTRACE|core dumped|SIGSEGV|unwrap\(\)|^\s+\d+: 0x[0-9a-f]+", re.M)
# What a worker says when it is told to stop. One that was told while it began has not heard it, and ended as it is: it held nothing.
LISTENS = "stopping: committing what was read"
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
            # A lone word of free text may be one of a message's own.
            elif personal and len(value) >= 6 and not (value.isalpha() and value.islower()):
                found.add(value)

    for line in lines:
        try:
            walk(json.loads(line), False)
        except (ValueError, RecursionError):  # a bad record
            continue
    return found


WORD = re.compile(r"[^\s\"',;:()\[\]{}=<>]+")


def check_log(name, text, personal):
    """A log tells of no crash, and nothing personal."""
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
    """A fleet whose workers may end by themselves, for a reason that the test has given them."""

    def __init__(self, command, size, folder, rng, environment, personal=frozenset(), tell=print):
        self.personal, self.tell = personal, tell
        self.allowed = None  # a pattern of last words, while the test gives a reason
        self.refusals = []  # (worker, its last words)
        self.unheard = 0  # told to stop before they listened
        self.due = []  # times at which a worker is started again
        self.halted = False  # whether workers that end stay away
        super().__init__(command, size, folder, rng, environment)

    def _any_awake(self):
        """One that is awake, if there is any."""
        return self.rng.choice([worker for worker in self.workers if worker.wakes is None] or self.workers)

    def kill(self):
        return super().kill() if self.workers else "there was nobody to kill"

    def stall(self, seconds):
        return super().stall(seconds) if self.workers else "there was nobody to stall"

    def stop(self):
        awake = [worker for worker in self.workers if worker.wakes is None]
        return super().stop() if awake else "there was nobody awake to stop"

    def kill_all(self):
        """All at once, as when the machine goes; nobody is started again."""
        for worker in self.workers + self.leaving:
            worker.process.kill()
        for worker in self.workers + self.leaving:
            worker.process.wait()
            self._hear(worker)
        self.workers, self.leaving, self.due = [], [], []

    def _hear(self, worker):
        """Checks what an ended worker has logged."""
        check_log(worker.name, worker.log.read_text(errors="replace"), self.personal)

    def _judge(self, worker, code):
        """A worker ended by itself: with a reason, and a plain one?"""
        text = worker.log.read_text(errors="replace")
        words = last_words(text)
        assert self.allowed is not None, f"{worker.name} ended by itself, with {code}, for no reason of the test's:\n{worker.tail()}"
        # 2: refused before it began.
        assert code in (1, 2), f"{worker.name} ended by itself with {code}, not with 1 or 2:\n{worker.tail()}"
        assert re.search(self.allowed, words), (
            f"{worker.name} ended, and its last words are not of {self.allowed!r}:\n{words or worker.tail()}")
        self.refusals.append((worker.name, words))
        self.tell(f"{worker.name} ended: {words.splitlines()[0][:200]}")

    def watch(self):
        now = time.monotonic()
        for worker in list(self.workers):
            code = worker.process.poll()
            if code is not None:
                self._hear(worker)
                self._judge(worker, code)
                self.workers.remove(worker)
                if not self.halted:
                    self.due.append(now + PAUSE)
            elif worker.wakes is not None and now > worker.wakes:
                worker.process.send_signal(signal.SIGCONT)
                worker.wakes = None
        for worker in list(self.leaving):
            code = worker.process.poll()
            if code is None:
                assert now < worker.stop_until, f"{worker.name} did not stop in time:\n{worker.tail()}"
                continue
            self._hear(worker)
            if code == -signal.SIGTERM and LISTENS not in worker.log.read_text(errors="replace"):
                self.unheard += 1
            elif code != 0:
                self._judge(worker, code)
            self.leaving.remove(worker)
        for at in [at for at in self.due if at <= now]:
            self.due.remove(at)
            self.start()

    def stop_all(self):
        self.due = []
        for worker in self.workers:
            if worker.wakes is not None:
                worker.process.send_signal(signal.SIGCONT)
                worker.wakes = None
        self.halted = True
        super().stop_all()
        self.halted = False

    def read_the_rest(self, seconds):
        super().read_the_rest(seconds)
        self.hear_all()

    def somebody_says(self, pattern):
        """Whether a worker that goes on has such words in its log."""
        return any(re.search(pattern, worker.log.read_text(errors="replace")) for worker in self.workers)

    def hear_all(self):
        """Checks every log there is: also those of workers that were killed."""
        for log in sorted(self.folder.glob("worker-*.log")):
            check_log(log.stem, log.read_text(errors="replace"), self.personal)
