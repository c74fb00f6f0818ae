"""The product's binary.

Owns: which binary a suite tests, and commands that run to their end. Does not own: workers in the background (`workers.py`).
"""

import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[3]


def binary():
    """The binary under test: SHARDLAKE_BIN, or the release build of this checkout."""
    return os.environ.get("SHARDLAKE_BIN", str(ROOT / "target" / "release" / "shardlake"))


def shardlake(*args, check=True, timeout=900):
    """Runs a command to its end and returns its standard output. `check`: exit codes other than 0 fail the suite."""
    done = subprocess.run([binary(), *map(str, args)], capture_output=True, text=True, timeout=timeout)
    assert not check or done.returncode == 0, f"shardlake {args}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def verify(*lake_flags, when=""):
    """Runs `shardlake verify`, which must find no fault."""
    report = shardlake("verify", *lake_flags)
    assert "no fault found" in report, f"{when}{report}"


def add_flag(parser):
    """The flag `--bin`."""
    parser.add_argument("--bin", default=binary(), help="the shardlake binary to test")


def use(parser, args):
    """Makes `args.bin` the binary under test, for this process and those that it starts."""
    args.bin = str(pathlib.Path(args.bin).resolve())
    if not pathlib.Path(args.bin).is_file():
        parser.error(f"no such file: {args.bin}; build it with cargo build --release")
    os.environ["SHARDLAKE_BIN"] = args.bin


def require_endpoint(parser):
    """Refuses to run against a real AWS account."""
    if not any(name.startswith("AWS_ENDPOINT_URL") for name in os.environ):
        parser.error("AWS_ENDPOINT_URL is not set; run the suite under localstack/run")
