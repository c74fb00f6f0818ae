"""File systems that run full and turn read-only.

Owns: small file systems in memory (tmpfs), mounted in a mount namespace of this test alone: the kernel unmounts them when
its last process ends, however it ends, and nobody else ever sees them. Ballast that takes up what is free. Does not own:
what the worker makes of it.

Mounting takes root, or user namespaces (`unshare --user --map-root-user`), and Linux.
"""

import errno
import os
import pathlib
import shutil
import subprocess
import sys
import time

INSIDE = "SHARDLAKE_CHAOS_MOUNTS"


def enter():
    """Starts this program again where it may mount, if that is possible; returns whether it may. Call it first of all."""
    if os.environ.get(INSIDE):
        return True
    if not shutil.which("unshare"):
        return False
    ways = [["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]]
    for way in ways:
        probe = [*way, "sh", "-c", "d=$(mktemp -d) && trap 'rmdir $d' EXIT && mount -t tmpfs -o size=1m probe $d && umount $d"]
        if subprocess.run(probe, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
            os.execvpe(way[0], [*way, sys.executable, *sys.argv], {**os.environ, INSIDE: "1"})
    return False


class Disk:
    """A small file system, mounted at a folder that it makes."""

    def __init__(self, folder, size):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "shardlake-chaos", self.folder], check=True)
        self.ballast = self.folder / ".ballast"

    def free(self):
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill(self, leave=0):
        """Takes up all that is free but for `leave` bytes."""
        with open(self.ballast, "ab") as file:
            # Others write meanwhile: what is free is found by trying.
            step = 1 << 20
            while step >= 4096 and self.free() > leave:
                try:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, min(step, max(4096, self.free() - leave)))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    step //= 2

    def empty(self):
        self.ballast.unlink(missing_ok=True)

    def read_only(self, patience=20):
        """Remounts it read-only: as soon as no file on it is open for writing."""
        deadline = time.monotonic() + patience
        while not self._remount("ro"):
            assert time.monotonic() < deadline, f"{self.folder} could not be remounted read-only in {patience} s"

    def writable(self):
        assert self._remount("rw"), f"{self.folder} could not be remounted for writing"

    def _remount(self, how):
        return subprocess.run(["mount", "-o", f"remount,{how}", self.folder], stderr=subprocess.DEVNULL).returncode == 0

    def unmount(self):
        subprocess.run(["umount", "--lazy", self.folder], check=False)


def unmount_below(folder):
    """Unmounts every disk that was mounted below a folder."""
    with open("/proc/self/mounts") as mounts:
        places = [line.split()[1] for line in mounts]
    for place in places:
        if pathlib.Path(folder).resolve() in pathlib.Path(place).parents:
            subprocess.run(["umount", "--lazy", place], check=False)


# A command without root's power to write where permissions forbid it. Run by anybody else it changes nothing.
WITHOUT_POWERS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]


def permissions_hold(folder):
    """Whether a folder without the permission to write in it can't be written by such a command."""
    if not shutil.which("setpriv"):
        return False
    probe = pathlib.Path(folder) / "permission-probe"
    probe.mkdir(mode=0o555)
    try:
        tried = subprocess.run([*WITHOUT_POWERS, "touch", probe / "x"], stderr=subprocess.DEVNULL)
        return tried.returncode != 0 and not (probe / "x").exists()
    finally:
        shutil.rmtree(probe)
