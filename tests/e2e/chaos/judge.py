"""Whether a lake in a folder holds each record once, with nothing left behind.

Owns: the judgement of such a lake at the end of a round, and running `shardlake sweep` a day later. Does not own: the checks that
other suites need as well (`e2e.common.checks`).
"""

import atexit
import collections
import functools
import hashlib
import os
import pathlib
import subprocess
import tempfile

from e2e.common.binary import binary, shardlake, verify
from e2e.common.checks import check_objects, check_once, check_values, some
from e2e.common.lake import commit_records, connect, dead_letters, keys_of, raw_lines, row_keys, source_lines, source_positions

DAY = 90_000  # seconds: 25 hours


@functools.cache
def build_clock():
    """Builds the library whose clock is ahead. Returns its path."""
    built = pathlib.Path(tempfile.gettempdir()) / f"shardlake-chaos-clock-{os.getuid()}-{os.getpid()}.so"
    source = pathlib.Path(__file__).with_name("clock_ahead.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", built, source, "-ldl"], check=True)
    atexit.register(built.unlink)
    return built


def sweep_a_day_later(*lake_flags):
    """Runs `shardlake sweep` with a clock that is a day ahead, so that nothing that was left behind is too young for it."""
    environment = {**os.environ, "LD_PRELOAD": str(build_clock()), "LATER_S": str(DAY)}
    done = subprocess.run([binary(), "sweep", *map(str, lake_flags)], capture_output=True, text=True, timeout=600,
                          env=environment)
    assert done.returncode == 0, f"sweep: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def check_positions(connection, lake, source):
    """Every line of the source is one row or one dead letter. Returns the numbers of records, rows and dead letters."""
    expected = source_positions(source)
    rows = collections.Counter((shard, str(sequence)) for _, shard, sequence, _ in row_keys(connection, lake))
    dead = collections.Counter((dead["shardId"], dead["sequenceNumber"]) for dead in dead_letters(lake))
    check_once(expected, rows, dead)
    records, raw = expected.total(), sum(1 for _ in raw_lines(lake))
    assert raw == records, f"raw/ has {raw:,} lines, the source {records:,} records"
    return records, rows.total(), dead.total()


def check_content(connection, lake, source):
    """The same by content, for a source whose files may be renamed: no position landed twice, and raw/ has what the source has."""
    keys = collections.Counter((*shard, str(sequence), sub) for *shard, sequence, sub in row_keys(connection, lake))
    keys.update((dead["stream"], dead["shardId"], dead["sequenceNumber"], dead["subSequenceNumber"])
                for dead in dead_letters(lake))
    duplicates = [key for key, count in keys.items() if count > 1]
    assert not duplicates, f"records that landed more than once: {some(sorted(duplicates))}"
    digest = lambda line: hashlib.sha256(line.rstrip(b"\r\n")).digest()[:12]  # noqa: E731
    expected = collections.Counter(digest(line) for _, _, line in source_lines(source, "*.*json"))
    found = collections.Counter(map(digest, raw_lines(lake)))
    lost, unknown = expected - found, found - expected
    assert not lost and not unknown, f"raw/ lacks {lost.total():,} lines and has {unknown.total():,} that it should not"
    records = expected.total()
    assert keys.total() == records, f"there are {keys.total():,} rows and dead letters of {records:,} records"
    return records


def check_swept(lake):
    """Nothing is staged, and no intent is left."""
    left = [key for key in keys_of(lake) if key.startswith(("_staging/", "_intents/"))]
    assert not left, f"left behind after a sweep: {some(left)}"


def judge(lake, source, lake_flags, reference, flags=()):
    """All checks, by position. Returns what was counted."""
    connection = connect()
    records, rows, dead = check_positions(connection, lake, source)
    counted = {"records": records, "rows": rows, "dead letters": dead}
    return counted | _judge(connection, lake, source, lake_flags, reference, flags)


def judge_content(lake, source, lake_flags, reference, flags=()):
    """All checks, by content. Returns what was counted."""
    connection = connect()
    records = check_content(connection, lake, source)
    return {"records": records} | _judge(connection, lake, source, lake_flags, reference, flags)


def _judge(connection, lake, source, lake_flags, reference, flags):
    commits = commit_records(lake)
    check_objects(lake, [key for key in keys_of(lake) if not key.startswith("_")], commits)
    verify(*lake_flags)
    # The same input in one run, under the same pseudonym key: every row must have the same values.
    shardlake("run", *flags, "--source", source, "--lake", reference, "--until-caught-up", "--raw", "off")
    check_values(connection, lake, reference)
    staged = sum(key.startswith("_staging/") for key in keys_of(lake))
    sweep_a_day_later(*lake_flags)
    check_swept(lake)
    verify(*lake_flags, when="after the sweep: ")
    return {"epochs": len(commits), "left staged": staged}
