"""Running one suite: its working folder, its log lines, its table of results, and waiting.

Owns: what every suite prints around its checks. Does not own: any check.
"""

import pathlib
import shutil
import sys
import tempfile
import time


class Log:
    """Prints lines, each with the seconds since the start."""

    def __init__(self, prefix=""):
        self.started, self.prefix = time.monotonic(), prefix

    def seconds(self):
        return time.monotonic() - self.started

    def __call__(self, text):
        print(f"{self.seconds():7.1f} s  {self.prefix}{text}", flush=True)


def until(holds, seconds, failure, meanwhile=lambda: None, every=0.02):
    """Waits until `holds()`. After `seconds` it fails; `failure` is the message, or a function that returns it."""
    deadline = time.monotonic() + seconds
    while not holds():
        meanwhile()
        assert time.monotonic() < deadline, failure() if callable(failure) else failure
        time.sleep(every)


def sleep(seconds, meanwhile, every=0.02):
    """Waits for `seconds`, calling `meanwhile` all the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        meanwhile()
        time.sleep(every)


def in_folder(args, name, work):
    """Calls `work(folder)`. A failure prints the seed and keeps the folder; success removes it, unless `--folder` named it."""
    folder = pathlib.Path(args.folder or tempfile.mkdtemp(prefix=f"shardlake-{name}-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        work(folder)
    except BaseException:
        print(f"\nFAILED with --seed {args.seed}; the logs and the lake are in {folder}", file=sys.stderr, flush=True)
        raise
    if not args.folder:
        shutil.rmtree(folder)


def print_pairs(title, pairs):
    """Prints a table of names and values."""
    width = max(len(name) for name, _ in pairs)
    print(f"\n{title}:")
    for name, value in pairs:
        print(f"  {name:{width}}  {value}")
