"""Whether a lake of files holds each record once, with nothing left behind.

Owns: the judgement of an embedded lake at the end of a round, put together from the checks of `tests/outside` and
`tests/fleet`; and running `shardlake sweep` a day later. Does not own: the single checks.
"""

import atexit
import collections
import functools
import gzip
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "fleet"))
sys.path.insert(0, str(HERE.parent / "outside"))
import lake as lakes  # noqa: E402
from common import binary, connect, dead_letters, lines_of, raw_lines, row_keys, shardlake  # noqa: E402

DAY = 90_000  # seconds: 25 hours


@functools.cache
def build_clock():
    """Builds the library of a clock that is ahead; its path."""
    built = pathlib.Path(tempfile.gettempdir()) / f"shardlake-chaos-later-{os.getuid()}-{os.getpid()}.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", built, HERE / "later.c", "-ldl"], check=True)
    atexit.register(built.unlink)
    return built


def sweep_a_day_later(*place, environment=None):
    """Runs `shardlake sweep` with a clock that is a day ahead: nothing that was left is young then."""
    environment = {**(environment or os.environ), "LD_PRELOAD": str(build_clock()), "LATER_S": str(DAY)}
    done = subprocess.run([binary(), "sweep", *map(str, place)], capture_output=True, text=True, timeout=600,
                          env=environment)
    assert done.returncode == 0, f"sweep: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def keys_of(lake):
    """Every file of a lake, as keys."""
    return [str(path.relative_to(lake)) for path in sorted(pathlib.Path(lake).rglob("*")) if path.is_file()]


def check_positions(connection, lake, source):
    """Every line of the source is one row or one dead letter. (records, rows, dead letters)."""
    expected = collections.Counter(lines_of(source))
    rows = collections.Counter((shard, str(sequence)) for _, shard, sequence, _ in row_keys(connection, lake))
    letters = collections.Counter((letter["shardId"], letter["sequenceNumber"]) for letter in dead_letters(lake))
    both = rows + letters
    lost = expected - both
    assert not lost, f"records that are neither a row nor a dead letter: {lakes.some(sorted(lost))}"
    alien = [place for place in both if place not in expected]
    assert not alien, f"rows or dead letters of no record: {lakes.some(sorted(alien))}"
    twice = [place for place, count in both.items() if count > 1]
    assert not twice, f"records that are there more than once: {lakes.some(sorted(twice))}"
    records = sum(expected.values())
    raw = raw_lines(lake)
    assert raw == records, f"raw/ has {raw:,} lines, the source {records:,} records"
    return records, sum(rows.values()), sum(letters.values())


def check_content(connection, lake, source):
    """The same for a source of any files, by content: no place is there twice, and what was received is what there was."""
    keys = collections.Counter((*place, str(sequence), sub) for *place, sequence, sub in row_keys(connection, lake))
    keys.update((letter["stream"], letter["shardId"], letter["sequenceNumber"], letter["subSequenceNumber"])
                for letter in dead_letters(lake))
    twice = [place for place, count in keys.items() if count > 1]
    assert not twice, f"records that are there more than once: {lakes.some(sorted(twice))}"
    digest = lambda line: hashlib.sha256(line.rstrip(b"\r\n")).digest()[:12]  # noqa: E731
    expected = collections.Counter()
    for path in pathlib.Path(source).rglob("*.*json"):
        with open(path, "rb") as file:
            expected.update(digest(line) for line in file if line.strip())
    found = collections.Counter()
    for path in pathlib.Path(lake).glob("raw/**/*.json.gz"):
        with gzip.open(path, "rb") as file:
            found.update(map(digest, file))
    lost, alien = expected - found, found - expected
    assert not lost and not alien, f"raw/ lacks {lost.total():,} lines and has {alien.total():,} that it should not"
    records = expected.total()
    assert keys.total() == records, f"there are {keys.total():,} rows and dead letters of {records:,} records"
    return records


def check_swept(lake):
    """Nothing is staged, and no epoch is half-way."""
    left = [key for key in keys_of(lake) if key.startswith(("_staging/", "_intents/"))]
    assert not left, f"left after a sweep: {lakes.some(left)}"


def judge(lake, source, place, plain, plain_flags=()):
    """All of it, by position. What was found, to be told."""
    connection = connect()
    records, rows, letters = check_positions(connection, lake, source)
    found = {"records": records, "rows": rows, "dead letters": letters}
    return found | _judge(connection, lake, source, place, plain, plain_flags)


def judge_content(lake, source, place, plain, plain_flags=()):
    """All of it, by content. What was found, to be told."""
    connection = connect()
    records = check_content(connection, lake, source)
    return {"records": records} | _judge(connection, lake, source, place, plain, plain_flags)


def _judge(connection, lake, source, place, plain, plain_flags):
    commits = lakes.commit_records(lake)
    lakes.check_objects(lake, [key for key in keys_of(lake) if not key.startswith("_")], commits)
    told = shardlake("verify", *place)
    assert "no fault found" in told, told
    # The same in one go, under the same key: every row must have the same values.
    shardlake("run", *plain_flags, "--source", source, "--lake", plain, "--until-caught-up", "--raw", "off")
    lakes.check_values(connection, lake, plain)
    staged = sum(key.startswith("_staging/") for key in keys_of(lake))
    sweep_a_day_later(*place)
    check_swept(lake)
    told = shardlake("verify", *place)
    assert "no fault found" in told, f"after the sweep: {told}"
    return {"epochs": len(commits), "left staged": staged}
