"""The real Kinesis Client Library (Java, with its MultiLangDaemon), started, watched and stopped.

Owns: its settings, its process, and what its record processors reported (`consumer.py`). Does not own: what must have happened
(`suite.py`, `audit.py`). The jars are those of the wheel `kclpy-ext`; `java` is the one on the PATH.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

# Seconds. It creates its tables one after the other, elects a leader, and assigns leases at intervals.
START_MAX, STOP_MAX = 180, 60
SETTINGS = {
    "initialPositionInStream": "TRIM_HORIZON", "retrievalMode": "POLLING", "metricsLevel": "NONE",
    "AwsCredentialsProvider": "DefaultCredentialsProvider",
    # Shortened for a test; the defaults are at least twice as long.
    "failoverTimeMillis": "5000", "shardSyncIntervalMillis": "5000", "leaseAssignmentIntervalMillis": "4000",
    "parentShardPollIntervalMillis": "1000", "idleTimeBetweenReadsInMillis": "500", "shutdownGraceMillis": "20000",
    # Small batches, so that there are many, with checkpoints between them.
    "maxRecords": "4",
}


def missing():
    """Why the library can't run here; None if it can."""
    if shutil.which("java") is None:
        return "there is no java on the PATH (Debian: default-jre-headless)"
    if subprocess.run(["java", "-version"], capture_output=True).returncode != 0:
        return "the java on the PATH does not run"
    if not list(jars().glob("amazon-kinesis-client-3.*.jar")) if jars() else True:
        return "this Python has no jars of the library: pip install -r tests/e2e/kcl/requirements.txt"
    return None


def jars():
    try:
        import amazon_kclpy
    except ImportError:
        return None
    return pathlib.Path(amazon_kclpy.__file__).parent / "jars"


def version():
    return next(jars().glob("amazon-kinesis-client-3.*.jar")).stem.rsplit("-", 1)[1]


class ClientLibrary:
    """One worker of the library, from its start to its stop. `plan` is that of `consumer.py`."""

    def __init__(self, folder, stream, table, plan):
        folder.mkdir()
        self.folder, self.log = folder, folder / "daemon.log"
        (folder / "plan.json").write_text(json.dumps(plan))
        consumer = folder / "consumer"
        consumer.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m e2e.kcl.consumer '{folder}'\n")
        consumer.chmod(0o755)
        common = os.environ.get("AWS_ENDPOINT_URL")
        settings = {
            **SETTINGS, "executableName": str(consumer), "streamName": stream, "applicationName": table,
            "workerId": folder.name, "regionName": os.environ["AWS_REGION"],
            "kinesisEndpoint": os.environ.get("AWS_ENDPOINT_URL_KINESIS", common),
            "dynamoDBEndpoint": os.environ.get("AWS_ENDPOINT_URL_DYNAMODB", common),
        }
        properties = folder / "kcl.properties"
        properties.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["java", "-Xmx400m", "-cp", f"{jars()}/*", "software.amazon.kinesis.multilang.MultiLangDaemon",
                 "--properties-file", str(properties)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def events(self):
        """(shard, event) of all its record processors; the events of one processor are in order."""
        for path in sorted(self.folder.glob("*.jsonl")):
            shard = path.name.rsplit("-", 1)[0]
            for line in path.read_text().splitlines(keepends=True):
                if line.endswith("\n"):
                    yield shard, json.loads(line)

    def records(self):
        """(shard, sequence, sub) → a hash for each time that the record was given."""
        found = {}
        for shard, event in self.events():
            if event["event"] == "record":
                found.setdefault((shard, event["sequence"], event["sub"]), []).append(event["sha256"])
        return found

    def until(self, what, holds, seconds=START_MAX):
        deadline = time.monotonic() + seconds
        while not holds():
            assert self.process.poll() is None, f"the library ended by itself:\n{self.tail()}"
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{self.tail()}"
            time.sleep(0.5)

    def stop(self):
        """Asks it to stop, and waits. Returns its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(STOP_MAX)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the library did not stop within {STOP_MAX} s:\n{self.tail()}") from None

    def end(self):
        """Kills it if it still runs. Its record processors end with it, at the end of their input."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def tail(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])
