"""What can't work from the start is refused plainly, before anything is touched.

Owns: a table of places that a worker can't use. Each is told in one sentence that names the place, without a crash, within
seconds, with exit code 2; and afterwards every file and folder is as it was. What only trying can tell (a full disk, a file that is
no database) has exit code 1, and may leave what a worker makes first: its key, and an empty lake.
"""

import dataclasses
import hashlib
import os
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import disks  # noqa: E402
from supervised import check_log, last_words  # noqa: E402

SECONDS_MAX = 40
MADE_FIRST = {"lake.pseudonym.key", "lake", "lake/_staging", "lake/_lake.json"}
RECORD = b'{"id":"assessment-1","user_id":"u-1","type":"skills","score":1,"duration":1,"timestamp":"2025-01-01T00:00:00Z"}\n'


@dataclasses.dataclass
class Case:
    """A folder made ready, and what a worker that is started there must say."""

    name: str
    words: str  # a pattern of its last words
    code: int
    make: object  # (folder) → flags of `run`
    powers: bool = True  # whether it may run with root's powers

    def may_leave(self):
        return MADE_FIRST if self.code == 1 else set()


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
    (folder / "lake").write_text("no folder")
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
    """The lake is the mounted folder itself: its key would lie beside it, where it can be written."""
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


def forbidden_folder_of_the_lake(folder):
    flags = source(folder)
    (folder / "above").mkdir(mode=0o555)
    return [*flags, "--lake", folder / "above" / "lake"]


def no_folder_of_the_leases(folder):
    return [*source(folder), "--lake", folder / "lake", "--checkpoints", f"sqlite://{folder}/nowhere/leases.db"]


def forbidden_folder_of_the_leases(folder):
    flags = source(folder)
    (folder / "leases").mkdir(mode=0o555)
    return [*flags, "--lake", folder / "lake", "--checkpoints", f"sqlite://{folder}/leases/leases.db"]


def leases_are_a_folder(folder):
    flags = source(folder)
    (folder / "leases.db").mkdir()
    return [*flags, "--lake", folder / "lake", "--checkpoints", f"sqlite://{folder}/leases.db"]


def leases_are_something_else(folder):
    flags = source(folder)
    (folder / "leases.db").write_bytes(b"no database\n" * 400)
    return [*flags, "--lake", folder / "lake", "--checkpoints", f"sqlite://{folder}/leases.db"]


CASES = [
    Case("no source", "nowhere: there is no such file or folder", 2, no_source),
    Case("the lake is a file", "lake .*is not a directory", 2, lake_is_a_file),
    Case("the lake lies in the source", "the worker would read its own output", 2, lake_in_the_source),
    Case("the lake is read-only", "lake.*Read-only file system.*; make it writable", 2, read_only_lake),
    Case("the lake is a read-only disk", "lake.*Read-only file system.*; make it writable", 2, lake_on_a_read_only_disk),
    Case("the lake may not be written", "lake.*Permission denied.*; make it writable", 2, forbidden_lake, powers=False),
    Case("the lake can't be made", "above.*Permission denied.*; make it writable", 2, forbidden_folder_of_the_lake,
         powers=False),
    Case("the leases have no folder", "there is no directory .*nowhere; create it first", 2, no_folder_of_the_leases),
    Case("the leases can't be made", "leases.*Permission denied.*; make it writable", 2, forbidden_folder_of_the_leases,
         powers=False),
    Case("the leases are a folder", "leases.db: this is a directory; give the path of a file", 2, leases_are_a_folder),
    Case("the leases are no database", "leases.db: the file is no SQLite database.*; move it away", 1,
         leases_are_something_else),
    Case("the lake's disk is full", "No space left on device.*; make room", 1, full_lake),
]


def check(case, binary, folder):
    """Runs a case. What the worker said."""
    folder.mkdir()
    flags = case.make(folder)
    before = snapshot(folder)
    command = [*([] if case.powers else disks.WITHOUT_POWERS), binary, "run", *map(str, flags), "--until-caught-up"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS_MAX, env={**os.environ})
    after = snapshot(folder)
    disks.unmount_below(folder)
    words = last_words(done.stderr)
    check_log(case.name, done.stdout + done.stderr, {"assessment-1", "u-1"})
    assert done.returncode == case.code, f"{case.name}: exit {done.returncode}, not {case.code}:\n{done.stderr}"
    assert re.search(case.words, words), f"{case.name}: its last words are not of {case.words!r}:\n{done.stderr}"
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    changed = [path for path in changed if path in before or path not in case.may_leave()]
    assert not changed, f"{case.name}: refused, and yet it touched {changed}:\n{done.stderr}"
    return words


def check_all(binary, folder):
    """Every case; how many there were."""
    for number, case in enumerate(CASES):
        words = check(case, binary, folder / f"case-{number:02}")
        print(f"           refused: {case.name}: {words}", flush=True)
    return len(CASES)
