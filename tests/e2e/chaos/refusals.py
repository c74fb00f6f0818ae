"""A worker that can't work is refused with a plain message, before it touches anything.

Owns: a table of lakes, sources and lease databases that a worker cannot use. It must end within seconds, without a crash, with exit
code 2 and one sentence that names the path; and afterwards every file and folder must be as it was. Some faults show only when they
are tried (a full disk, a file that is not a database). These have exit code 1, and may leave what a worker creates first: its key,
and an empty lake.
"""

import dataclasses
import hashlib
import os
import pathlib
import re
import subprocess

from e2e.chaos import disks
from e2e.chaos.supervised import check_log, last_words

SECONDS_MAX = 40
CREATED_FIRST = {"lake.pseudonym.key", "lake", "lake/_staging", "lake/_lake.json"}
RECORD = b'{"id":"assessment-1","user_id":"u-1","type":"skills","score":1,"duration":1,"timestamp":"2025-01-01T00:00:00Z"}\n'


@dataclasses.dataclass
class Case:
    """A folder, and what a worker that is started there must say."""

    name: str
    words: str  # a pattern of its last words
    code: int
    prepare: object  # (folder) → flags of `run`
    capabilities: bool = True  # whether it may run with root's capabilities

    def may_leave(self):
        return CREATED_FIRST if self.code == 1 else set()


def snapshot(folder):
    """Every path below a folder, with its kind, size, mode and content."""
    found = {}
    for path in sorted(pathlib.Path(folder).rglob("*")):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_size if content else 0, content)
    return found


def source(folder):
    (folder / "in").mkdir()
    (folder / "in" / "a.ndjson").write_bytes(RECORD)
    return ["--source", folder / "in"]


def no_source(folder):
    return ["--source", folder / "nowhere", "--lake", folder / "lake"]


def lake_is_a_file(folder):
    (folder / "lake").write_text("a file")
    return [*source(folder), "--lake", folder / "lake"]


def lake_in_the_source(folder):
    return [*source(folder), "--lake", folder / "in" / "lake"]


def read_only_lake(folder):
    flags = source(folder)
    disk = disks.Disk(folder / "disk", "8m")
    (disk.folder / "lake").mkdir()
    disk.read_only()
    return [*flags, "--lake", disk.folder / "lake"]


def lake_on_a_read_only_disk(folder):
    """The lake is the mounted folder itself: its key would be beside it, in a writable folder."""
    flags = source(folder)
    disks.Disk(folder / "lake", "8m").read_only()
    return [*flags, "--lake", folder / "lake"]


def full_lake(folder):
    flags = source(folder)
    disks.Disk(folder / "lake", "8m").fill()
    return [*flags, "--lake", folder / "lake"]


def forbidden_lake(folder):
    flags = source(folder)
    (folder / "lake").mkdir(mode=0o555)
    return [*flags, "--lake", folder / "lake"]


def lake_in_a_forbidden_folder(folder):
    flags = source(folder)
    (folder / "above").mkdir(mode=0o555)
    return [*flags, "--lake", folder / "above" / "lake"]


def leases_in_a_missing_folder(folder):
    return [*source(folder), "--lake", folder / "lake", "--checkpoints", f"sqlite://{folder}/nowhere/leases.db"]


def leases_in_a_forbidden_folder(folder):
    flags = source(folder)
    (folder / "leases").mkdir(mode=0o555)
    return [*flags, "--lake", folder / "lake", "--checkpoints", f"sqlite://{folder}/leases/leases.db"]


def leases_are_a_folder(folder):
    flags = source(folder)
    (folder / "leases.db").mkdir()
    return [*flags, "--lake", folder / "lake", "--checkpoints", f"sqlite://{folder}/leases.db"]


def leases_are_not_a_database(folder):
    flags = source(folder)
    (folder / "leases.db").write_bytes(b"not a database\n" * 400)
    return [*flags, "--lake", folder / "lake", "--checkpoints", f"sqlite://{folder}/leases.db"]


CASES = [
    Case("no source", "nowhere: there is no such file or folder", 2, no_source),
    Case("the lake is a file", "lake .*is not a directory", 2, lake_is_a_file),
    Case("the lake is in the source", "the worker would read its own output", 2, lake_in_the_source),
    Case("the lake is read-only", "lake.*Read-only file system.*; make it writable", 2, read_only_lake),
    Case("the lake is a read-only disk", "lake.*Read-only file system.*; make it writable", 2, lake_on_a_read_only_disk),
    Case("the lake is not writable", "lake.*Permission denied.*; make it writable", 2, forbidden_lake, capabilities=False),
    Case("the lake can't be created", "above.*Permission denied.*; make it writable", 2, lake_in_a_forbidden_folder,
         capabilities=False),
    Case("the leases have no folder", "there is no directory .*nowhere; create it first", 2, leases_in_a_missing_folder),
    Case("the leases can't be created", "leases.*Permission denied.*; make it writable", 2, leases_in_a_forbidden_folder,
         capabilities=False),
    Case("the leases are a folder", "leases.db: this is a directory; give the path of a file", 2, leases_are_a_folder),
    Case("the leases are not a database", "leases.db: the file is not an SQLite database.*; move it away", 1,
         leases_are_not_a_database),
    Case("the lake's disk is full", "No space left on device.*; free some space", 1, full_lake),
]


def check(case, binary, folder):
    """Runs a case. Returns the last words of the worker."""
    folder.mkdir()
    flags = case.prepare(folder)
    before = snapshot(folder)
    command = [*([] if case.capabilities else disks.WITHOUT_CAPABILITIES), binary, "run", *map(str, flags), "--until-caught-up"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS_MAX, env={**os.environ})
    after = snapshot(folder)
    disks.unmount_below(folder)
    words = last_words(done.stderr)
    check_log(case.name, done.stdout + done.stderr, {"assessment-1", "u-1"})
    assert done.returncode == case.code, f"{case.name}: exit code {done.returncode}, not {case.code}:\n{done.stderr}"
    assert re.search(case.words, words), f"{case.name}: its last words do not match {case.words!r}:\n{done.stderr}"
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    changed = [path for path in changed if path in before or path not in case.may_leave()]
    assert not changed, f"{case.name}: the worker was refused, but it changed {changed}:\n{done.stderr}"
    return words


def check_all(binary, folder):
    """Runs every case. Returns their number."""
    for number, case in enumerate(CASES):
        words = check(case, binary, folder / f"case-{number:02}")
        print(f"           refused: {case.name}: {words}", flush=True)
    return len(CASES)
