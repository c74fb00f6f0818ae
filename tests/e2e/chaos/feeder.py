"""Files that grow while they are read.

Owns: writing the lines of a file into several files of a folder at a given rate, in pieces of any size that may end in the middle of a
line, while new files appear; and moving whole files into a folder. Does not own: what the lines are.
"""

import contextlib
import random
import threading
import time

PIECE_LINES = 300


class Feeder(threading.Thread):
    """Lets files grow until `finish`, or until everything is fed. `files`: their number at the beginning, and at the end."""

    def __init__(self, records, folder, rate, seed, files=(2, 8)):
        super().__init__(daemon=True)
        self.records, self.folder, self.rate, self.files = records, folder, rate, files
        self.rng = random.Random(seed)
        self.finished, self.fault, self.fed = threading.Event(), None, 0

    def run(self):
        try:
            self._feed()
        except Exception as fault:  # noqa: BLE001: `check` raises it in the main thread
            self.fault = fault

    def _feed(self):
        started, files, halves = time.monotonic(), [], {}
        with contextlib.ExitStack() as opened:
            def new():
                name = self.folder / f"part-{len(files):03}.ndjson"
                files.append(opened.enter_context(open(name, "ab", buffering=0)))

            lines = opened.enter_context(open(self.records, "rb"))
            for _ in range(self.files[0]):
                new()
            while not self.finished.is_set():
                piece = [line for _, line in zip(range(self.rng.randint(1, PIECE_LINES)), lines)]
                if not piece:
                    break
                if len(files) < self.files[1] and self.rng.random() < 0.01:
                    new()
                file = self.rng.choice(files)
                data = halves.pop(file, b"") + b"".join(piece)
                # A reader may find the first half of a line.
                cut = len(data) - self.rng.randrange(len(piece[-1])) if self.rng.random() < 0.3 else len(data)
                file.write(data[:cut])
                if cut < len(data):
                    halves[file] = data[cut:]
                self.fed += len(piece)
                self.finished.wait(max(0, started + self.fed / self.rate - time.monotonic()))
            for file, half in halves.items():
                file.write(half)

    def check(self):
        if self.fault:
            raise AssertionError(f"failed to feed the source: {self.fault!r}") from self.fault

    def finish(self):
        """Writes no more lines, and completes those that are half written."""
        self.stop()
        self.join()
        self.check()
        assert self.fed > 0, "nothing was fed"

    def stop(self):
        self.finished.set()


class Mover(Feeder):
    """Writes `.json` files of about `lines` lines beside the folder, and moves them in."""

    def __init__(self, records, staging, folder, rate, seed, lines=2 * PIECE_LINES):
        super().__init__(records, folder, rate, seed)
        self.staging, self.lines, self.moved = staging, lines, 0
        self.staging.mkdir()

    def _feed(self):
        started = time.monotonic()
        with open(self.records, "rb") as lines:
            while not self.finished.is_set():
                piece = [line for _, line in zip(range(self.rng.randint(self.lines // 2, self.lines * 3 // 2)), lines)]
                if not piece:
                    break
                self.moved += 1
                # The names do not sort in the order of arrival.
                name = f"{self.rng.randrange(1 << 32):08x}-{self.moved:06}.json"
                (self.staging / name).write_bytes(b"".join(piece))
                (self.staging / name).rename(self.folder / name)
                self.fed += len(piece)
                self.finished.wait(max(0, started + self.fed / self.rate - time.monotonic()))
