"""Workers in the background: processes that a suite starts, kills, stalls and stops.

Owns: the processes, and that none of them ends by itself. Does not own: when something is done to them.
"""

import signal
import subprocess
import time

# Seconds within which a stopping worker must have committed and ended: 30 by contract, the rest for a busy machine.
STOP_SECONDS_MAX = 45


class Worker:
    def __init__(self, number, command, environment, folder):
        self.name = f"worker {number}"
        self.log = folder / f"worker-{number:03}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
        self.resume_at = None  # set while it is stalled: when it continues
        self.stop_until = None  # set once it was asked to stop: when it must have ended

    def logged(self):
        return self.log.read_text(errors="replace")

    def tail(self):
        return "\n".join(self.logged().splitlines()[-20:])

    def resume(self):
        self.process.send_signal(signal.SIGCONT)
        self.resume_at = None


class Fleet:
    """Always `size` workers: one that was killed or stopped is replaced."""

    def __init__(self, command, size, folder, rng, environment):
        self.command, self.folder, self.rng, self.environment = command, folder, rng, environment
        self.started = 0
        self.workers = []
        self.stopping = []
        for _ in range(size):
            self.start()

    def start(self, *more_flags):
        self.started += 1
        worker = Worker(self.started, [*self.command, *more_flags], self.environment, self.folder)
        self.workers.append(worker)
        return worker

    def _any_awake(self):
        return self.rng.choice([worker for worker in self.workers if worker.resume_at is None])

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
        worker.resume_at = time.monotonic() + seconds
        return f"{worker.name} was stalled for {seconds:.0f} s"

    def stop(self):
        worker = self._any_awake()
        self._ask_to_stop(worker)
        self.start()
        return f"{worker.name} was asked to stop"

    def _ask_to_stop(self, worker):
        worker.process.send_signal(signal.SIGTERM)
        worker.stop_until = time.monotonic() + STOP_SECONDS_MAX
        self.workers.remove(worker)
        self.stopping.append(worker)

    def watch(self):
        """Resumes workers that have been stalled long enough. A worker that ends by itself, or with a failure, fails the suite."""
        for worker in self.workers:
            code = worker.process.poll()
            assert code is None, f"{worker.name} ended by itself with exit code {code}:\n{worker.tail()}"
            if worker.resume_at is not None and time.monotonic() > worker.resume_at:
                worker.resume()
        for worker in list(self.stopping):
            code = worker.process.poll()
            if code is None:
                assert time.monotonic() < worker.stop_until, f"{worker.name} did not stop in time:\n{worker.tail()}"
                continue
            assert code == 0, f"{worker.name} was asked to stop and ended with exit code {code}:\n{worker.tail()}"
            self.stopping.remove(worker)

    def any_stalled(self):
        return any(worker.resume_at is not None for worker in self.workers)

    def stop_all(self):
        for worker in list(self.workers):
            self._ask_to_stop(worker)
        while self.stopping:
            self.watch()
            time.sleep(0.1)

    def read_the_rest(self, seconds):
        """One worker alone, until it has read and committed everything."""
        worker = self.start("--until-caught-up")
        try:
            code = worker.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the last worker did not catch up in {seconds} s:\n{worker.tail()}") from None
        assert code == 0, f"the last worker ended with exit code {code}:\n{worker.tail()}"
        self.workers.remove(worker)

    def end(self):
        """Kills every process that still runs, whatever happened before."""
        for worker in self.workers + self.stopping:
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()
