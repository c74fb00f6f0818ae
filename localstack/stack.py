"""Starts a local AWS stack, runs a command against it, stops the stack, and exits with the command's exit code.

    stack.py --kind full|light|docker --cache FOLDER [--port N] -- COMMAND [ARGUMENT…]

Owns: ports (reserved by lock files while the stack runs, so that no two stacks share one); the processes of the stack, each in a process
group of its own; and the environment of the command. Does not own: installing (`install.sh`).

The order of shutdown is always the same, whether the command ended, a signal came, or the stack did not start:

1. the command gets the signal and is waited for;
2. the process groups of the stack get SIGTERM, and then SIGKILL.

If this process itself is killed, the kernel sends SIGTERM to the stack (Linux).
"""

import argparse
import contextlib
import ctypes
import fcntl
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid

import boto3
import botocore.config

HERE = pathlib.Path(__file__).resolve().parent
# Seconds within which the stack must have responded to its first requests; seconds that COMMAND (a worker has 30 to commit) and a
# server have to end after a signal.
START, COMMAND_END, SERVER_END = 120, 40, 3
PORTS = range(4566, 4600)
SERVICES = ["kinesis", "dynamodb", "s3", "firehose"]
KINESIS_VERSION = "0.6.2"
# Shards of all streams of a stack. Resharding and parallel tests need more than the stand-ins' own limits.
SHARDS = "2000"
# Operations that take AWS seconds, and kinesis-local half a second each by default.
DURATIONS = ["CREATE_STREAM", "DELETE_STREAM", "REGISTER_STREAM_CONSUMER", "DEREGISTER_STREAM_CONSUMER",
             "START_STREAM_ENCRYPTION", "STOP_STREAM_ENCRYPTION", "MERGE_SHARDS", "SPLIT_SHARD", "UPDATE_SHARD_COUNT",
             "UPDATE_STREAM_MODE"]
DURATION_MS = "5"
# kinesis-local spends most of its time on garbage collection. A larger young generation halves that, for about 300 MiB.
NODE_FLAGS = ["--max-semi-space-size=128"]
# By default it warns about every request that takes 100 ms, which most do.
NODE_QUIET = {"CATS_EFFECT_CPU_STARVATION_CHECK_INTERVAL": "1h"}


class Failed(Exception):
    """The stack did not start; the message says why."""


class Ended(Exception):
    """A signal came before COMMAND had started."""


class Ports:
    """Ports of loopback that no other stack of this user takes while this one runs."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.gettempdir()) / f"shardlake-localstack-{os.getuid()}"
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.held = []

    def take(self, wanted=None):
        for port in [wanted] if wanted else PORTS:
            file = open(self.folder / str(port), "w")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with socket.socket() as probe:
                    # Otherwise connections that have just ended would make a free port seem taken.
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
            except OSError:
                file.close()
                continue
            self.held.append(file)
            return port
        raise Failed(f"port {wanted} is taken" if wanted else f"no port is free from {PORTS[0]} to {PORTS[-1]}")


class Server:
    """One process of the stack, the leader of its process group."""

    def __init__(self, name, command, environment, folder):
        self.name = name
        self.log = folder / f"{name}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, start_new_session=True,
                env={**os.environ, **environment}, preexec_fn=_end_with_parent)

    def tail(self):
        lines = self.log.read_text(errors="replace").splitlines()[-25:]
        return "\n".join([f"── the end of {self.log}:" if lines else f"── {self.log} is empty", *lines])

    def signal(self, number):
        # Before it is waited for, no other process can get its id or its group's.
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def stop(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(SERVER_END)
        self.signal(signal.SIGKILL)
        self.process.wait()


# Loaded here and not in the child: the child must do as little as possible between fork and exec.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _end_with_parent():
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class Docker:
    """The service `localstack` of docker-compose.yml, under a project name of its own."""

    name = "docker"

    def __init__(self, port, folder):
        self.environment = {**os.environ, "LOCALSTACK_PORT": str(port)}
        self.base = ["docker", "compose", "--project-name", f"shardlake-{folder.name}", "--file",
                     str(HERE.parent / "docker-compose.yml")]
        done = subprocess.run([*self.base, "up", "--detach", "localstack"], env=self.environment, stdout=sys.stderr)
        if done.returncode != 0:
            self.stop()
            raise Failed("docker compose failed to start LocalStack")

    def tail(self):
        done = subprocess.run([*self.base, "logs", "--tail", "25", "localstack"], env=self.environment,
                              capture_output=True, text=True)
        return done.stdout + done.stderr

    def signal(self, number):
        """Does nothing, because `stop` does everything."""

    def stop(self):
        subprocess.run([*self.base, "down", "--volumes", "--timeout", "5"], env=self.environment, stdout=sys.stderr,
                       stderr=subprocess.DEVNULL)


class Stack:
    def __init__(self, kind, cache, port):
        self.kind, self.cache = kind, pathlib.Path(cache)
        runs = self.cache / "runs"
        runs.mkdir(parents=True, exist_ok=True)
        _remove_old(runs)
        self.folder = runs / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
        self.folder.mkdir()
        self.wanted, self.ports, self.servers, self.urls = port, Ports(), [], {}

    def start(self):
        """Starts the servers and sends each service its first request, which is slow."""
        started = time.monotonic()
        {"full": self.start_localstack, "light": self.start_light, "docker": self.start_docker}[self.kind]()
        faults = {}
        threads = [threading.Thread(target=self.warm, args=(service, started + START, faults), daemon=True)
                   for service in SERVICES]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if faults:
            raise Failed("\n".join(f"{service}: {fault}" for service, fault in sorted(faults.items())))
        servers = "LocalStack at " + self.urls["s3"] if self.kind != "light" else \
            f"kinesis-local at {self.urls['kinesis']}, moto at {self.urls['s3']}"
        print(f"localstack: {servers}, ready after {time.monotonic() - started:.1f} s", file=sys.stderr)

    def start_light(self):
        kinesis, tls, moto = self.ports.take(self.wanted), self.ports.take(), self.ports.take()
        package = self.cache / f"kinesis-{KINESIS_VERSION}" / "node_modules" / "kinesis-local"
        self.servers.append(Server("kinesis", ["node", *NODE_FLAGS, "--require", str(HERE / "guard.cjs"),
                                                 str(package / "main.js")], {
            **NODE_QUIET,
            "KINESIS_MOCK_PLAIN_PORT": str(kinesis), "KINESIS_MOCK_TLS_PORT": str(tls), "SHARD_LIMIT": SHARDS,
            "KINESIS_MOCK_CERT_PATH": str(package / "server.json"), "LOG_LEVEL": "ERROR", "AWS_REGION": "us-east-1",
            **{f"{name}_DURATION": f"{DURATION_MS}ms" for name in DURATIONS},
        }, self.folder))
        self.servers.append(Server("moto", [sys.executable, str(HERE / "moto_server.py"), str(moto)], {}, self.folder))
        self.urls = {service: f"http://127.0.0.1:{kinesis if service == 'kinesis' else moto}" for service in SERVICES}

    def start_localstack(self):
        port = self.ports.take(self.wanted)
        # LocalStack searches for kinesis-local there, and otherwise installs another one for each run.
        library = self.folder / "root" / "var" / "lib" / "localstack" / "lib" / "kinesis-local"
        library.mkdir(parents=True)
        (library / KINESIS_VERSION).symlink_to(self.cache / f"kinesis-{KINESIS_VERSION}")
        python = pathlib.Path(os.environ["SHARDLAKE_LOCALSTACK"]) / "bin" / "python"
        self.servers.append(Server("localstack", [str(python), "-m", "localstack.runtime.main"], {
            # Not a container, even if it seems to be in one. Everything that it writes is in the folder of this run.
            "OVERRIDE_IN_DOCKER": "0", "FILESYSTEM_ROOT": str(self.folder / "root"),
            # The default server listens on all interfaces, and truncates responses of enhanced fan-out at a shard's end.
            "GATEWAY_SERVER": "hypercorn", "GATEWAY_LISTEN": f"127.0.0.1:{port}",
            "DISABLE_EVENTS": "1", "SKIP_SSL_CERT_DOWNLOAD": "1", "DNS_ADDRESS": "0",
            "PROVIDER_OVERRIDE_DYNAMODB": "moto", "KINESIS_MOCK_VERSION": KINESIS_VERSION,
            "KINESIS_LATENCY": DURATION_MS, "KINESIS_SHARD_LIMIT": SHARDS, "KINESIS_PERSISTENCE": "0",
            "KINESIS_MOCK_LOG_LEVEL": "ERROR", "LS_LOG": "warn", **NODE_QUIET,
            "NODE_OPTIONS": " ".join([*NODE_FLAGS, f'--require "{HERE / "guard.cjs"}"']),
            "SERVICES": "kinesis,s3,dynamodb,firehose,cloudwatch,logs,sts,iam,cloudformation,secretsmanager",
        }, self.folder))
        self.urls = dict.fromkeys(SERVICES, f"http://127.0.0.1:{port}")

    def start_docker(self):
        port = self.ports.take(self.wanted)
        self.servers.append(Docker(port, self.folder))
        self.urls = dict.fromkeys(SERVICES, f"http://127.0.0.1:{port}")

    def warm(self, service, deadline, faults):
        """Sends requests until there is a response, or a server has ended, or time is up."""
        ask = {"kinesis": "list_streams", "dynamodb": "list_tables", "s3": "list_buckets",
               "firehose": "list_delivery_streams"}[service]
        client = boto3.client(
            service, endpoint_url=self.urls[service], region_name="us-east-1", aws_access_key_id="test",
            aws_secret_access_key="test",
            config=botocore.config.Config(connect_timeout=2, read_timeout=30, retries={"total_max_attempts": 1}))
        while True:
            try:
                if self.kind != "light":  # A LocalStack that is still loading rejects services permanently.
                    urllib.request.urlopen(self.urls[service] + "/_localstack/health", timeout=5).close()
                getattr(client, ask)()
                return
            except Exception as error:  # noqa: BLE001: any error is retried, and reported at the end
                fault = f"{type(error).__name__}: {error}"
            if ended := self.ended():
                fault = f"{ended.name} ended by itself"
            if ended or time.monotonic() > deadline:
                faults[service] = fault
                return
            time.sleep(0.2)

    def ended(self):
        return next((s for s in self.servers if isinstance(s, Server) and s.process.poll() is not None), None)

    def print_logs(self):
        for server in self.servers:
            print(server.tail(), file=sys.stderr)

    def stop(self):
        for server in self.servers:
            server.signal(signal.SIGTERM)
        for server in self.servers:
            server.stop()
        shutil.rmtree(self.folder / "root", ignore_errors=True)

    def environment(self):
        """The command's environment: the stack, and no setting that leads to a real AWS account."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        kept.pop("SHARDLAKE_LOCALSTACK", None)
        kept.update({
            "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        })
        kept["AWS_ENDPOINT_URL"] = self.urls["s3"]
        if self.kind == "light":
            kept.update({f"AWS_ENDPOINT_URL_{service.upper()}": url for service, url in self.urls.items()})
        return kept


def _remove_old(runs):
    """Removes the logs of old runs, except the last twenty and those that may still be running."""
    for old in sorted(runs.iterdir())[:-20]:
        if time.time() - old.stat().st_mtime > 86400:
            shutil.rmtree(old, ignore_errors=True)


def run(command, environment, state):
    """Runs the command, and forwards signals to it. Returns its exit code in the form of a shell."""
    try:
        process = subprocess.Popen(command, env=environment)
    except OSError as error:
        print(f"localstack: {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    state["command"] = process
    while True:
        try:
            code = process.wait(0.5)
            return code if code >= 0 else 128 - code
        except subprocess.TimeoutExpired:
            pass
        if "signaled" in state and time.monotonic() > state["signaled"] + COMMAND_END:
            print(f"localstack: the command did not end in {COMMAND_END} s", file=sys.stderr)
            process.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=["full", "light", "docker"], required=True)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--port", type=int, help="of the gateway, or of light's Kinesis; default: a free one")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()

    state = {}

    def on_signal(number, _frame):
        command = state.get("command")
        if command is None:
            raise Ended(number)
        state.setdefault("signaled", time.monotonic())
        # An interrupt from a terminal has already reached the command, which is in the same process group.
        if number != signal.SIGINT or not os.isatty(0):
            command.send_signal(number)

    for number in [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]:
        signal.signal(number, on_signal)

    stack = Stack(args.kind, args.cache, args.port)
    try:
        stack.start()
        code = run(args.command, stack.environment(), state)
        if ended := stack.ended():
            print(f"localstack: {ended.name} ended while the command ran", file=sys.stderr)
            code = code or 1
        if code != 0 and "signaled" not in state:
            stack.print_logs()
    except Failed as failed:
        stack.print_logs()
        print(f"localstack: the stack did not start: {failed}", file=sys.stderr)
        code = 1
    except Ended as ended:
        code = 128 + ended.args[0]
    finally:
        for number in [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]:
            signal.signal(number, signal.SIG_IGN)
        stack.stop()
    sys.exit(code)


if __name__ == "__main__":
    main()
