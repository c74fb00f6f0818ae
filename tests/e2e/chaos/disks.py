"""File systems that run full and turn read-only.

Owns: small file systems in memory (tmpfs), mounted in a mount namespace of this suite alone. The kernel unmounts them when the last
process of the namespace ends, and no other process sees them. Ballast takes up the free space. Does not own: how a worker reacts.

Mounting needs Linux, and either root or user namespaces (`unshare --user --map-root-user`).
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
    """Restarts this program in a mount namespace, if that is possible. Returns whether it may mount. Call it first of all."""
    if os.environ.get(INSIDE):
        return True
    if not shutil.which("unshare"):
        return False
    for command in [["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]]:
        probe = [*command, "sh", "-c",
                 "d=$(mktemp -d) && trap 'rmdir $d' EXIT && mount -t tmpfs -o size=1m probe $d && umount $d"]
        if subprocess.run(probe, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
            os.execvpe(command[0], [*command, sys.executable, *sys.orig_argv[1:]], {**os.environ, INSIDE: "1"})
    return False


class Disk:
    """A small file system, mounted at a folder that it creates."""

    def __init__(self, folder, size):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "shardlake-chaos", self.folder], check=True)
        self.ballast = self.folder / ".ballast"

    def free(self):
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill(self, leave=0):
        """Takes up all free space except `leave` bytes."""
        with open(self.ballast, "ab") as file:
            # Other processes write at the same time, so the free space is found by trying.
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

    def read_only(self, seconds=20):
        """Remounts it read-only, as soon as no file on it is open for writing."""
        deadline = time.monotonic() + seconds
        while not self._remount("ro"):
            assert time.monotonic() < deadline, f"failed to remount {self.folder} read-only within {seconds} s"

    def writable(self):
        assert self._remount("rw"), f"failed to remount {self.folder} for writing"

    def _remount(self, how):
        return subprocess.run(["mount", "-o", f"remount,{how}", self.folder], stderr=subprocess.DEVNULL).returncode == 0

    def unmount(self):
        subprocess.run(["umount", "--lazy", self.folder], check=False)


def unmount_below(folder):
    """Unmounts every disk that was mounted below a folder."""
    with open("/proc/self/mounts") as mounts:
        mounted = [line.split()[1] for line in mounts]
    for path in mounted:
        if pathlib.Path(folder).resolve() in pathlib.Path(path).parents:
            subprocess.run(["umount", "--lazy", path], check=False)


# Runs a command without root's capability to write where permissions forbid it. For other users it changes nothing.
WITHOUT_CAPABILITIES = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]


def permissions_hold(folder):
    """Whether such a command fails to write to a folder without write permission."""
    if not shutil.which("setpriv"):
        return False
    probe = pathlib.Path(folder) / "permission-probe"
    probe.mkdir(mode=0o555)
    try:
        tried = subprocess.run([*WITHOUT_CAPABILITIES, "touch", probe / "x"], stderr=subprocess.DEVNULL)
        return tried.returncode != 0 and not (probe / "x").exists()
    finally:
        shutil.rmtree(probe)
