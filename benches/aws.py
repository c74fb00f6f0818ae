"""Shardlake on AWS's interfaces against its peers, on the same records, side by side.

    python3 -m venv target/venv && target/venv/bin/pip install duckdb kclpy-ext==3.1.3.post4
    target/venv/bin/python benches/aws.py

It works like `compare.py`, with the same rounds, medians and rules. `benches/aws_server` stands in for Kinesis, S3 and DynamoDB. It
renders every response of GetRecords before the measurement, and has a processor core of its own, so that only the worker is
measured. There is no network and no TLS.

Contenders (`-2`: two threads on two processor cores, one of which the server needs, too; all others on one core):

- `duckdb`: DuckDB on the file of the same records (`duckdb_peer.py`): no HTTP, no base64, no upload, no commit;
- `file`: `shardlake run` on that file, into a folder. The difference to `aws` is the cost of AWS's interfaces;
- `aws`: `shardlake run`: GetRecords over HTTP → Parquet in multipart uploads, leases and commits in DynamoDB; `aws-gzip`: with
  raw landing;
- `kcl`: an application of the Java Kinesis Client Library 3.1.3 (`KclCount.java`, jars from PyPI) that only counts records:
  polling, HTTP/1.1, JSON (`-Daws.cborEnabled=false`), leases in the same DynamoDB, on two processor cores. It reads the records
  `--kcl-laps` times. `kcl-few` reads from few shards, which suits it better, and which Kinesis does not allow at this speed.

CPU seconds are user and system of the whole process for each GB of records. In the ratios, DuckDB counts with its statement
alone. The KCL counts with the second half of its records, without the start of the Java machine, and with compiled code.

Then it measures peak memory: 300 shards on one worker, at several limits. It needs Linux; `kcl` needs Java 17.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import urllib.request
from pathlib import Path

import compare
from compare import HERE, KEY, ROOT, machine, produce, remove, run, say, spread

# The ratios: name, peer, Shardlake, the least that is acceptable, the aim. Larger is better.
TARGETS = [
    ("shardlake on AWS, raw off / DuckDB on the file, CPU", "duckdb", "aws", 1.2, 3.0),
    ("shardlake on AWS, raw gzip / DuckDB on the file, CPU", "duckdb", "aws-gzip", None, None),
    ("KCL that counts / shardlake on AWS, raw off, CPU", "kcl", "aws", 2.0, 4.0),
    ("KCL that counts / shardlake on AWS, raw gzip, CPU", "kcl", "aws-gzip", None, None),
    ("KCL that counts, few shards / shardlake, raw off, CPU", "kcl-few", "aws", None, None),
    ("shardlake on AWS / shardlake on the file, CPU", "aws", "file", None, None),
]


def main():
    arguments = parse_arguments()
    arguments.work = arguments.work.resolve()
    programs = build(arguments)
    arguments.work.mkdir(parents=True, exist_ok=True)
    say(f"{machine()}; load {os.getloadavg()[0]:.1f} at the start")
    report = {"machine": machine(), "rounds": arguments.rounds, "load": [os.getloadavg()[0]], "shapes": {}}
    for shape in arguments.shapes if arguments.rounds else []:
        records = produce(programs, arguments.work, shape, arguments.megabytes)
        say(f"\n{shape}: {records.stat().st_size / 1e6:.0f} MB of records, {arguments.shards} shards, {arguments.rounds} rounds")
        rounds = Shape(programs, arguments, shape, records).rounds()
        report["shapes"][shape] = {"rounds": rounds, "ratios": print_rounds(rounds)}
    report["memory"] = peak_memory(programs, arguments)
    report["load"].append(os.getloadavg()[0])
    say(f"\nload {os.getloadavg()[0]:.1f} at the end")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=500, help="megabytes of records of each shape")
    parser.add_argument("--laps", type=int, default=2, help="how often the stream has these records")
    parser.add_argument("--kcl-laps", type=int, default=3, help="the same for the KCL, which gets faster with time")
    parser.add_argument("--shards", type=int, default=128, help="shards; each is read at 2 MiB a second")
    parser.add_argument("--kcl-shards", type=int, default=16, help="shards of kcl-few")
    parser.add_argument("--shapes", type=lambda value: value.split(","), default=["events", "assessments"])
    parser.add_argument("--memory-shards", type=int, default=300, help="shards for peak memory; 0: not measured")
    parser.add_argument("--memory-gigabytes", type=int, default=6, help="gigabytes of records for peak memory")
    parser.add_argument("--memory-limits", type=lambda value: value.split(","), default=["512MiB", "128MiB"])
    parser.add_argument("--skip", type=lambda value: value.split(","), default=[], help="contenders to leave out")
    parser.add_argument("--core", type=int, default=1, help="the processor core of contenders that run on one; the server has another")
    parser.add_argument("--work", type=Path, default=ROOT / "target" / "compare", help="folder for records and lakes")
    parser.add_argument("--bin", type=Path, help="folder with shardlake and aws_server; nothing is built")
    parser.add_argument("--json", type=Path, help="write everything that was measured to this file")
    return parser.parse_args()


# --- programs ---------------------------------------------------------------------------------------------------------


def build(arguments):
    """Builds the programs, and returns their paths; for the KCL, its command."""
    programs = {}
    for name, package in {"shardlake": "shardlake", "aws_server": "shardlake-aws-server"}.items():
        if arguments.bin:
            programs[name] = arguments.bin.resolve() / name
            continue
        say(f"cargo build --release --package {package} --bin {name}")
        command = ["cargo", "build", "--release", "--package", package, "--bin", name]
        built = subprocess.run(
            [*command, "--message-format", "json-render-diagnostics"], cwd=ROOT, stdout=subprocess.PIPE, check=True
        )
        messages = [json.loads(line) for line in built.stdout.splitlines()]
        programs[name] = Path(next(each["executable"] for each in messages if each.get("executable")))
    if not {"kcl", "kcl-few"} <= set(arguments.skip) and arguments.rounds:
        programs["kcl"] = build_kcl(arguments.work)
    return programs


def build_kcl(work):
    found = [Path(path) / "amazon_kclpy" / "jars" for path in sys.path]
    jars = next((path for path in found if path.is_dir()), None)
    if not jars or not shutil.which("javac"):
        sys.exit("the KCL needs javac and its jars (pip install kclpy-ext==3.1.3.post4); --skip kcl,kcl-few leaves it out")
    classes = work / "kcl"
    classes.mkdir(parents=True, exist_ok=True)
    subprocess.run(["javac", "-d", classes, "-cp", f"{jars}/*", HERE / "KclCount.java"], check=True)
    # Logging would cost it time.
    (classes / "logback.xml").write_text('<configuration><root level="OFF"/></configuration>\n')
    return ["java", "-Daws.cborEnabled=false", "-cp", f"{classes}:{jars}/*", "KclCount"]


class Server:
    """The stand-in for AWS. Each run gets a prefix and a table of its own."""

    def __init__(self, programs, records, shards, laps, core):
        others = set(os.sched_getaffinity(0)) - {core} or {core}
        command = [programs["aws_server"], records, "--shards", shards, "--laps", laps]
        self.process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            preexec_fn=lambda: os.sched_setaffinity(0, others),
        )
        started = json.loads(self.process.stdout.readline() or "{}")
        if not started:
            sys.exit("failed to start aws_server")
        self.url, self.records, self.bytes = started["url"], started["records"], started["bytes"]
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/bench", method="PUT")).close()
        os.environ.update(
            AWS_ENDPOINT_URL=self.url, AWS_REGION="us-east-1", AWS_ACCESS_KEY_ID="none", AWS_SECRET_ACCESS_KEY="none",
            AWS_EC2_METADATA_DISABLED="true", SHARDLAKE_BENCH_KEY=KEY,
        )
        self.runs = 0

    def name(self):
        self.runs += 1
        return f"run-{self.runs}"

    def cpu(self):
        """CPU seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def shardlake(self, programs, options, cores, work):
        """Reads the stream to its tip, into this server's S3."""
        settings = work / "aws.toml"
        settings.write_text('[anonymize]\nkey = "env:SHARDLAKE_BENCH_KEY"\n')
        name = self.name()
        command = [programs["shardlake"], "run", "--config", settings, "--source", "kinesis://bench"]
        flags = ["--lake", f"s3://bench/{name}", "--checkpoints", f"dynamodb://{name}", "--until-caught-up", "--json"]
        cost, printed = run([*command, *flags, *options], cores, work)
        read = sum(printed["rows"].values()) + sum(printed["dead_letters"].values())
        if read != self.records:
            sys.exit(f"{read} records were read of {self.records}")
        return {**cost, "gb": self.bytes / 1e9, "cpu_per_gb": cost["cpu"] / self.bytes * 1e9}

    def close(self):
        self.process.stdin.close()
        self.process.wait()


# --- rounds -----------------------------------------------------------------------------------------------------------


class Shape(compare.Shape):
    """All contenders on one kind of records."""

    def __init__(self, programs, arguments, shape, records):
        super().__init__(programs, arguments.work, shape, records)
        self.arguments = arguments
        self.key.write_text(KEY + "\n")

    def rounds(self):
        core = self.arguments.core
        one, both = {core}, set(sorted(os.sched_getaffinity(0))[:2]) | {core}
        contenders = {
            "duckdb": lambda: self.per_gb(self.duckdb(1, one)),
            "file": lambda: self.per_gb(self.shardlake("off", 1, one)),
            "aws": lambda: self.aws("off", 1, one),
            "aws-gzip": lambda: self.aws("gzip", 1, one),
            "aws-2": lambda: self.aws("off", 2, both),
            "kcl": lambda: self.kcl(self.arguments.shards, both),
            "kcl-few": lambda: self.kcl(self.arguments.kcl_shards, both),
        }
        contenders = {name: each for name, each in contenders.items() if name not in self.arguments.skip}
        compare.shallow_copy(self.records)
        rounds = []
        for number in range(self.arguments.rounds):
            names = list(contenders)
            shift = number * 2 % len(names)
            costs = {name: contenders[name]() for name in names[shift:] + names[:shift]}
            rounds.append({name: costs[name] for name in names})
        for folder in (self.lake, self.duckdb_out):
            remove(folder)
        return rounds

    def per_gb(self, cost):
        gb = self.bytes / 1e9
        return {**cost, "gb": gb, "cpu_per_gb": cost["own_cpu"] / gb}

    def aws(self, raw, threads, cores):
        server = Server(self.programs, self.records, self.arguments.shards, self.arguments.laps, self.arguments.core)
        before = server.cpu()
        cost = server.shardlake(self.programs, ["--raw", raw, "--threads", threads], cores, self.work)
        cost["server_cpu_per_gb"] = (server.cpu() - before) / cost["gb"]
        server.close()
        return cost

    def kcl(self, shards, cores):
        server = Server(self.programs, self.records, shards, self.arguments.kcl_laps, self.arguments.core)
        before = server.cpu()
        cost, printed = run([*self.programs["kcl"], server.url, server.name(), server.records], cores, self.work)
        # It delivers at least once: duplicates count as read.
        if abs(printed["bytes"] / server.bytes - 1) > 0.01:
            sys.exit(f"the KCL read {printed['bytes']} bytes of {server.bytes}")
        gb = printed["bytes"] / 1e9
        half = (printed["bytes"] - printed["half_bytes"]) / 1e9
        cost["server_cpu_per_gb"] = (server.cpu() - before) / gb
        server.close()
        return {
            **cost, "gb": gb, "cpu_per_gb": (printed["end_cpu"] - printed["half_cpu"]) / half,
            "all_cpu_per_gb": (printed["end_cpu"] - printed["first_cpu"]) / gb,
        }


def print_rounds(rounds):
    say(f"  {'':<10} {'CPU seconds/GB':>20} {'MB/CPU s':>9} {'GB':>5} {'whole process, CPU s':>22} {'wall seconds':>20} {'peak MiB':>9}")
    for name in rounds[0]:
        column = lambda key: [costs[name][key] for costs in rounds]
        say(
            f"  {name:<10} {spread(column('cpu_per_gb')):>20} {1000 / statistics.median(column('cpu_per_gb')):9.0f} "
            f"{rounds[0][name]['gb']:5.1f} {spread(column('cpu')):>22} {spread(column('wall')):>20} "
            f"{statistics.median(column('peak_mib')):9.0f}"
        )
    ratios = {}
    say(f"  {'ratio (of the runs of one round)':<54} {'median [min-max]':>20} {'must':>6} {'aim':>6}")
    for title, peer, ours, must, aim in TARGETS:
        if any(name not in rounds[0] for name in (peer, ours)):
            continue
        values = [costs[peer]["cpu_per_gb"] / costs[ours]["cpu_per_gb"] for costs in rounds]
        middle = statistics.median(values)
        verdict = "" if must is None else "aim" if middle >= aim else "must" if middle >= must else "MISSED"
        show = lambda target: "" if target is None else f"{target:g}"
        say(f"  {title:<54} {spread(values):>20} {show(must):>6} {show(aim):>6}  {verdict}")
        ratios[title] = {"ratios": values, "must": must, "aim": aim, "verdict": verdict}
    return ratios


# --- memory -----------------------------------------------------------------------------------------------------------


def peak_memory(programs, arguments):
    """Peak memory of the whole process with many shards, all of them with a backlog, and with raw landing."""
    if not arguments.memory_shards:
        return {}
    records = produce(programs, arguments.work, "mixed", arguments.megabytes)
    laps = max(1, arguments.memory_gigabytes * 1_000_000_000 // records.stat().st_size)
    found = {}
    say(f"\n{arguments.memory_shards} shards on one worker, {laps * records.stat().st_size / 1e9:.1f} GB of mixed records, raw gzip")
    say(f"  {'limit':>8} {'peak MiB':>9} {'wall s':>7} {'MB/s a shard':>13} {'MB/CPU s':>9}")
    for limit in arguments.memory_limits:
        server = Server(programs, records, arguments.memory_shards, laps, arguments.core)
        cost = server.shardlake(programs, ["--memory", limit], os.sched_getaffinity(0), arguments.work)
        server.close()
        rate = cost["gb"] * 1000 / cost["wall"] / arguments.memory_shards
        say(f"  {limit:>8} {cost['peak_mib']:9.0f} {cost['wall']:7.1f} {rate:13.2f} {1000 / cost['cpu_per_gb']:9.0f}")
        found[limit] = {**cost, "mb_per_second_and_shard": rate}
    return found


if __name__ == "__main__":
    main()
