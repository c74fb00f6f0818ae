"""The worker's side of the fleet test: processes that are started, killed, stalled and stopped.

Owns: the processes, and that none ends by itself. Does not own: when something is done to them (`fleet.py`).
"""

import signal
import subprocess
import time

# Seconds in which a worker that was told to stop must have committed and ended: 30 by contract, and the machine's load.
STOP_MAX = 45


class Worker:
    def __init__(self, number, command, environment, folder):
        self.name = f"worker {number}"
        self.log = folder / f"worker-{number:03}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
        self.wakes = None  # when it is stalled: the time at which it goes on
        self.stop_until = None  # when it was told to stop: the time until which it must have ended

    def tail(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])


class Fleet:
    """`size` workers, always: one that was killed or stopped is replaced."""

    def __init__(self, command, size, folder, rng, environment):
        self.command, self.folder, self.rng, self.environment = command, folder, rng, environment
        self.started = 0
        self.workers = []
        self.leaving = []
        for _ in range(size):
            self.start()

    def start(self, *more):
        self.started += 1
        worker = Worker(self.started, [*self.command, *more], self.environment, self.folder)
        self.workers.append(worker)
        return worker

    def _any_awake(self):
        return self.rng.choice([worker for worker in self.workers if worker.wakes is None])

    def kill(self):
        worker = self._any_awake()
        worker.process.kill()
        worker.process.wait()
        self.workers.remove(worker)
        self.start()
        return f"{worker.name} was killed"

    def stall(self, seconds):
        worker = self._any_awake()
        worker.process.send_signal(signal.SIGSTOP)
        worker.wakes = time.monotonic() + seconds
        return f"{worker.name} was stalled for {seconds:.0f} s"

    def stop(self):
        worker = self._any_awake()
        self._tell_to_stop(worker)
        self.start()
        return f"{worker.name} was told to stop"

    def _tell_to_stop(self, worker):
        worker.process.send_signal(signal.SIGTERM)
        worker.stop_until = time.monotonic() + STOP_MAX
        self.workers.remove(worker)
        self.leaving.append(worker)

    def watch(self):
        """Wakes who has slept long enough; a worker that ended by itself, or with a failure, fails the test."""
        for worker in self.workers:
            code = worker.process.poll()
            assert code is None, f"{worker.name} ended by itself, with {code}:\n{worker.tail()}"
            if worker.wakes is not None and time.monotonic() > worker.wakes:
                worker.process.send_signal(signal.SIGCONT)
                worker.wakes = None
        for worker in list(self.leaving):
            code = worker.process.poll()
            if code is None:
                assert time.monotonic() < worker.stop_until, f"{worker.name} did not stop in time:\n{worker.tail()}"
                continue
            assert code == 0, f"{worker.name} was told to stop and ended with {code}:\n{worker.tail()}"
            self.leaving.remove(worker)

    def asleep(self):
        return any(worker.wakes is not None for worker in self.workers)

    def stop_all(self):
        for worker in list(self.workers):
            self._tell_to_stop(worker)
        while self.leaving:
            self.watch()
            time.sleep(0.1)

    def read_the_rest(self, seconds):
        """One worker alone, until everything is read and committed."""
        worker = self.start("--until-caught-up")
        try:
            code = worker.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the last worker did not catch up in {seconds} s:\n{worker.tail()}") from None
        assert code == 0, f"the last worker ended with {code}:\n{worker.tail()}"
        self.workers.remove(worker)

    def end(self):
        """Whatever happened: no process is left."""
        for worker in self.workers + self.leaving:
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()
