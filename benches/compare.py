"""Shardlake against its peers, on the same records, side by side.

    python3 -m venv target/venv && target/venv/bin/pip install duckdb && target/venv/bin/python benches/compare.py

It builds the programs and makes the records (`shardlake produce`, a fixed seed, 0.5 % bad). Then it runs every contender once in
each round, in a different order in each round, and prints medians [min-max] and ratios. A ratio is the median of the ratios of
each round, because the machine's speed drifts. Finally it measures peak memory on a large input, and checks that DuckDB and
Shardlake wrote the same rows with the same values.

Contenders (`-2`: two threads on two processor cores; all others one thread, pinned to one core):

- `duckdb`: see `duckdb_peer.py`, which also says what it leaves out;
- `baseline`: design A, `benches/baseline` (a tree for each record, Arrow builders, ArrowWriter); it writes no files;
- `memory`: the pipeline alone, `benches/pipeline_throughput.rs`: bytes in memory → Parquet bytes;
- `run`: `shardlake run --until-caught-up`, the whole process; `run-gzip`: with raw landing;
- `old-memory`, `old-run`, `old-run-gzip`, with `--old FOLDER`: the same, built from another commit. Build its programs in a work tree
  of that commit and copy them into one folder, such as

      git worktree add ../old COMMIT && cd ../old && cargo build --release --bin shardlake
      cargo bench --bench pipeline_throughput --no-run     # prints the path of the program; name the copy pipeline_throughput

Measured are CPU seconds (user and system, by wait4), wall time, peak resident memory, and bytes of Parquet. In the CPU ratios,
DuckDB counts with its statement alone, without the start of Python (which the table includes); Shardlake and the baseline count
with their whole process; `memory` counts from when its input is in memory. It needs Linux, and DuckDB from PyPI in the Python that
runs this program.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
# Mean bytes of a record that `shardlake produce` makes.
RECORD_BYTES = {"events": 1359, "assessments": 974, "mixed": 1147}
SEED = 1
# It is not a secret.
KEY = "07" * 32
# The deepest document that DuckDB reads, even with ignore_errors.
DEPTH_MAX = 127


def main():
    arguments = parse_arguments()
    programs = build(arguments)
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    say(f"{machine()}; load {os.getloadavg()[0]:.1f} at the start")
    report = {"machine": machine(), "rounds": arguments.rounds, "load": [os.getloadavg()[0]], "shapes": {}}
    for shape in arguments.shapes:
        records = produce(programs, work, shape, arguments.megabytes)
        say(f"\n{shape}: {records.stat().st_size / 1e6:.0f} MB of records, {arguments.rounds} rounds")
        shapes = report["shapes"][shape] = Shape(programs, work, shape, records).measure(arguments)
        print_runs(shapes)
        print_ratios(shapes)
        print_agreement(shapes["agreement"])
    report["memory"] = peak_memory(programs, work, arguments)
    report["load"].append(os.getloadavg()[0])
    say(f"\nload {os.getloadavg()[0]:.1f} at the end")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    if any(shape["agreement"] and not shape["agreement"]["agrees"] for shape in report["shapes"].values()):
        sys.exit("DuckDB and Shardlake did not do the same work")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=500, help="megabytes of records of each shape")
    parser.add_argument("--shapes", type=lambda value: value.split(","), default=["events", "assessments"])
    parser.add_argument("--memory-megabytes", type=int, default=1000, help="megabytes of input for peak memory; 0: not measured")
    parser.add_argument("--skip", type=lambda value: value.split(","), default=[], help="contenders to leave out, or: agreement")
    parser.add_argument("--core", type=int, default=1, help="the processor core of contenders that run on one")
    parser.add_argument("--work", type=Path, default=ROOT / "target" / "compare", help="folder for records and lakes")
    parser.add_argument("--bin", type=Path, help="folder with shardlake, baseline, pipeline_throughput; nothing is built")
    parser.add_argument("--old", type=Path, help="folder with shardlake and pipeline_throughput of another commit, to be compared")
    parser.add_argument("--json", type=Path, help="write everything that was measured to this file")
    return parser.parse_args()


def say(line):
    print(line, flush=True)


def machine():
    """The machine in general terms."""
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{len(os.sched_getaffinity(0))} cores, {model}, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"


# --- programs and records ---------------------------------------------------------------------------------------------


def build(arguments):
    """Builds the programs, and returns their paths."""
    wanted = ["shardlake", "baseline", "pipeline_throughput"]
    if "baseline" in arguments.skip:
        wanted.remove("baseline")
    if arguments.bin:
        return {each: arguments.bin.resolve() / each for each in wanted}
    commands = [
        ["build", "--release", "--bin", "shardlake"],
        ["build", "--release", "--package", "shardlake-baseline", "--bin", "baseline"],
        ["bench", "--bench", "pipeline_throughput", "--no-run"],
    ]
    found = {}
    for command in commands:
        if "shardlake-baseline" in command and "baseline" not in wanted:
            continue
        say("cargo " + " ".join(command))
        built = subprocess.run(
            ["cargo", *command, "--message-format", "json-render-diagnostics"], cwd=ROOT, stdout=subprocess.PIPE, check=True
        )
        for line in built.stdout.splitlines():
            message = json.loads(line)
            if message.get("executable") and message["target"]["name"] in wanted:
                found[message["target"]["name"]] = Path(message["executable"])
    return found


def produce(programs, work, shape, megabytes):
    """The file of records of one kind. It is made once, and is in the page cache afterwards."""
    path = work / "records" / f"{shape}-{megabytes}.ndjson"
    if not path.exists():
        partial = path.with_suffix(".making")
        count = megabytes * 1_000_000 // RECORD_BYTES[shape]
        command = [programs["shardlake"], "produce", "--to", partial, "--kind", shape]
        options = ["--count", str(count), "--seed", str(SEED), "--bad-ratio", "0.005"]
        subprocess.run([*command, *options], stdout=subprocess.DEVNULL, check=True)
        partial.rename(path)
    subprocess.run(["cat", path], stdout=subprocess.DEVNULL, check=True)
    return path


def depth(line):
    """The nesting depth of a line's arrays and objects."""
    deepest = level = 0
    in_string = escaped = False
    for byte in line:
        if in_string:
            in_string = escaped or byte != 0x22
            escaped = not escaped and byte == 0x5C
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            level += 1
            deepest = max(deepest, level)
        elif byte in b"]}":
            level -= 1
    return deepest


def shallow_copy(records):
    """DuckDB's copy of the records. Lines that are too deep for it are `null`, so that all others keep their line numbers."""
    path = records.parent / "shallow" / records.name
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        partial = path.with_suffix(".making")
        with open(records, "rb") as lines, open(partial, "wb") as out:
            for line in lines:
                deep = line.count(b"[") + line.count(b"{") > DEPTH_MAX and depth(line) > DEPTH_MAX
                out.write(b"null\n" if deep else line)
        partial.rename(path)
    return path


# --- one process ------------------------------------------------------------------------------------------------------


def run(command, cores, folder):
    """Runs a program on these processor cores. Returns what it cost, and the JSON that it printed."""
    errors = folder / "stderr.txt"
    started = time.monotonic()
    with open(errors, "wb") as stderr:
        # A child begins with the peak memory of this process, which is small.
        child = subprocess.Popen(
            list(map(str, command)), cwd=folder, stdout=subprocess.PIPE, stderr=stderr,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        printed = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\nended with exit code {child.returncode}:\n{errors.read_text()}")
    cost = {"cpu": usage.ru_utime + usage.ru_stime, "wall": wall, "peak_mib": usage.ru_maxrss / 1024}
    lines = printed.splitlines()
    return cost, (json.loads(lines[-1]) if lines and lines[-1].startswith(b"{") else {})


def parquet_bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*.parquet"))


def remove(folder):
    shutil.rmtree(folder, ignore_errors=True)


class Shape:
    """All contenders on one kind of records."""

    def __init__(self, programs, work, shape, records):
        self.programs, self.work, self.shape, self.records = programs, work, shape, records
        self.bytes = records.stat().st_size
        self.lake = work / f"lake-{shape}"
        self.duckdb_out = work / f"duckdb-{shape}"
        self.key = work / f"lake-{shape}.pseudonym.key"
        self.definition = ROOT / "pipeline" / "datasets" / f"{shape}.toml"

    def measure(self, arguments):
        one, both = {arguments.core}, set(sorted(os.sched_getaffinity(0))[:2]) | {arguments.core}
        contenders = {
            "duckdb": lambda: self.duckdb(1, one),
            "baseline": lambda: self.baseline(one),
            "memory": lambda: self.memory(1, one),
            "run": lambda: self.shardlake("off", 1, one),
            "run-gzip": lambda: self.shardlake("gzip", 1, one),
            "duckdb-2": lambda: self.duckdb(2, both),
            "memory-2": lambda: self.memory(2, both),
            "run-2": lambda: self.shardlake("off", 2, both),
        }
        if arguments.old:
            old = {each: arguments.old.resolve() / each for each in ("shardlake", "pipeline_throughput")}
            contenders |= {
                "old-memory": lambda: self.memory(1, one, old),
                "old-run": lambda: self.shardlake("off", 1, one, old),
                "old-run-gzip": lambda: self.shardlake("gzip", 1, one, old),
            }
        contenders = {key: each for key, each in contenders.items() if key not in arguments.skip}
        self.key.write_text(KEY + "\n")
        shallow = shallow_copy(self.records)
        subprocess.run(["cat", shallow], stdout=subprocess.DEVNULL, check=True)
        rounds = []
        for number in range(arguments.rounds):
            names = list(contenders)
            shift = number * 3 % len(names)
            costs = {}
            for each in names[shift:] + names[:shift]:
                cost = contenders[each]()
                costs[each] = {**cost, "row_bytes": cost["parquet"] / cost["rows"]}
            rounds.append({each: costs[each] for each in names})
        agreement = None
        if "agreement" not in arguments.skip and "duckdb" in contenders:
            agreement = self.agreement(one)
        for folder in (self.lake, self.duckdb_out):
            remove(folder)
        return {"bytes": self.bytes, "rounds": rounds, "agreement": agreement}

    def duckdb(self, threads, cores):
        remove(self.duckdb_out)
        command = [sys.executable, HERE / "duckdb_peer.py", self.definition, shallow_copy(self.records), self.duckdb_out]
        options = ["--key-file", self.key, "--threads", threads, "--original", self.records]
        cost, printed = run([*command, *options], cores, self.work)
        return {**cost, "own_cpu": printed["cpu_seconds"], "rows": printed["rows"], "parquet": parquet_bytes(self.duckdb_out)}

    def baseline(self, cores):
        cost, printed = run([self.programs["baseline"], self.records, "-"], cores, self.work)
        return {**cost, "own_cpu": printed["cpu_seconds"], "rows": printed["rows"], "parquet": printed["output_bytes"]}

    def memory(self, threads, cores, programs=None):
        cost, printed = run([(programs or self.programs)["pipeline_throughput"], self.records, "--threads", threads], cores, self.work)
        return {
            **cost, "cpu": printed["cpu_seconds"], "own_cpu": printed["cpu_seconds"], "wall": printed["wall_seconds"],
            "rows": printed["rows"], "parquet": printed["output_bytes"],
        }

    def shardlake(self, raw, threads, cores, programs=None):
        remove(self.lake)
        command = [(programs or self.programs)["shardlake"], "run", "--source", self.records, "--lake", self.lake, "--until-caught-up"]
        cost, printed = run([*command, "--raw", raw, "--threads", threads, "--json"], cores, self.work)
        return {
            **cost, "own_cpu": cost["cpu"], "rows": sum(printed["rows"].values()),
            "parquet": parquet_bytes(self.lake / "processed"), "raw": printed["objects"]["raw"]["bytes"],
        }

    def agreement(self, cores):
        """Compares the output of DuckDB and of the product. Both run once more, so that both outputs are of one thread."""
        self.duckdb(1, cores)
        self.shardlake("off", 1, cores)
        command = [sys.executable, HERE / "agreement.py", self.definition, self.records, self.lake, self.duckdb_out]
        compared = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, check=False)
        if not compared.stdout:
            sys.exit("failed to compare the outputs")
        return {**json.loads(compared.stdout), "agrees": compared.returncode == 0}


def peak_memory(programs, work, arguments):
    """Peak memory of the whole process on a large input: with the defaults, and on one thread without raw landing."""
    if not arguments.memory_megabytes:
        return {}
    found = {}
    say(f"\npeak memory, {arguments.memory_megabytes} MB of records: MiB")
    (work / "lake-memory.pseudonym.key").write_text(KEY + "\n")
    for shape in [*arguments.shapes, "mixed"]:
        records = produce(programs, work, shape, arguments.memory_megabytes)
        command = [programs["shardlake"], "run", "--source", records, "--lake", work / "lake-memory", "--until-caught-up", "--json"]
        ways = {"default (2 threads, raw gzip)": ["--threads", 2], "1 thread, raw off": ["--threads", 1, "--raw", "off"]}
        for way, options in ways.items():
            remove(work / "lake-memory")
            cost, _ = run([*command, *options], os.sched_getaffinity(0), work)
            found[f"{shape}, {way}"] = cost["peak_mib"]
            say(f"  {shape + ', ' + way:<46} {cost['peak_mib']:6.0f}   {'ok' if cost['peak_mib'] <= 256 else 'over 256'}")
    remove(work / "lake-memory")
    return found


# --- what is printed --------------------------------------------------------------------------------------------------


def spread(values, form="{:.2f}"):
    if len(values) == 1:
        return form.format(values[0])
    return f"{form} [{form}-{form}]".format(statistics.median(values), min(values), max(values))


def print_runs(shape):
    megabytes = shape["bytes"] / 1e6
    say(f"  {'':<10} {'CPU seconds':>20} {'MB/CPU s':>9} {'wall seconds':>20} {'peak MiB':>9} {'Parquet MB':>11} {'rows':>9}")
    for contender in shape["rounds"][0]:
        costs = [costs[contender] for costs in shape["rounds"]]
        column = lambda key: [cost[key] for cost in costs]
        rate = megabytes / statistics.median(column("cpu"))
        say(
            f"  {contender:<10} {spread(column('cpu')):>20} {rate:9.0f} {spread(column('wall')):>20} "
            f"{statistics.median(column('peak_mib')):9.0f} {costs[0]['parquet'] / 1e6:11.2f} {costs[0]['rows']:9,}"
        )


# The ratios: name, quantity, peer, Shardlake, the least that is acceptable, the aim. Larger is better, except for the size.
TARGETS = [
    ("pipeline in memory / DuckDB, CPU", "own_cpu", "duckdb", "memory", 3.0, 6.0),
    ("pipeline in memory / baseline A, CPU", "own_cpu", "baseline", "memory", 4.0, None),
    ("shardlake run, raw off / DuckDB, CPU", "own_cpu", "duckdb", "run", 2.5, 5.0),
    ("shardlake run, raw gzip / DuckDB, CPU", "own_cpu", "duckdb", "run-gzip", 1.5, 2.5),
    ("pipeline in memory, 2 threads / 1, wall", "wall", "memory", "memory-2", 1.7, 1.9),
    ("shardlake run, 2 threads / 1, wall", "wall", "run", "run-2", 1.7, 1.9),
    ("DuckDB, 2 threads / 1, wall", "wall", "duckdb", "duckdb-2", None, None),
    ("Parquet bytes a row, shardlake run / DuckDB", "row_bytes", "run", "duckdb", 1.0, 0.85),
    ("old pipeline in memory / this one, CPU", "own_cpu", "old-memory", "memory", 0.97, None),
    ("old shardlake run, raw off / this one, CPU", "own_cpu", "old-run", "run", 0.97, None),
    ("old shardlake run, raw gzip / this one, CPU", "own_cpu", "old-run-gzip", "run-gzip", 0.97, None),
    ("Parquet bytes a row, this shardlake run / old", "row_bytes", "run", "old-run", 1.03, None),
]


def print_ratios(shape):
    shape["ratios"] = {}
    say(f"  {'ratio (of the runs of one round)':<42} {'median [min-max]':>20} {'must':>6} {'aim':>6}")
    for title, quantity, peer, ours, must, aim in TARGETS:
        if any(each not in shape["rounds"][0] for each in (peer, ours)):
            continue
        ratios = [costs[peer][quantity] / costs[ours][quantity] for costs in shape["rounds"]]
        middle = statistics.median(ratios)
        reached = lambda target: middle <= target if quantity == "row_bytes" else middle >= target
        verdict = "" if must is None else "aim" if aim and reached(aim) else "must" if reached(must) else "MISSED"
        show = lambda target: "" if target is None else f"{target:g}"
        say(f"  {title:<42} {spread(ratios):>20} {show(must):>6} {show(aim):>6}  {verdict}")
        shape["ratios"][title] = {"ratios": ratios, "must": must, "aim": aim, "verdict": verdict}


def print_agreement(agreement):
    if not agreement:
        return
    listed = lambda reasons: ", ".join(f"{count:,} {reason}" for reason, count in reasons.items()) or "none"
    say(f"  same work? {agreement['both']:,} rows in both, compared in {agreement['columns']} columns")
    say(f"    rows that only Shardlake has: {listed(agreement['only_product'])}")
    say(f"    rows that only DuckDB has: {listed(agreement['only_duckdb'])}")
    for column, found in agreement["different"].items():
        say(f"    {column} differs in {found['rows']:,} rows: {found['product']!r}, DuckDB {found['duckdb']!r}")
    exactly = "the same" if not agreement["different"] else "the same except these"
    say(f"    {exactly if agreement['agrees'] else 'NOT THE SAME'}")
    rewritten = ", ".join(
        f"{size / 1e6:.2f} MB ({version}; ratio {agreement['parquet'] / size:.2f})"
        for version, size in agreement["rewritten"].items()
    )
    say(f"    Shardlake's files, {agreement['parquet'] / 1e6:.2f} MB, rewritten by DuckDB: {rewritten}")


if __name__ == "__main__":
    main()
