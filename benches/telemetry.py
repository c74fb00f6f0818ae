"""What the status page and telemetry cost: runs of one worker in pairs, with and without them.

    cargo build --release
    python3 benches/telemetry.py [--binary target/release/shardlake] [--rounds 7] [--records 400000]

Each round has two runs over the same records, in turn first and second. `off` has `--listen off` and pushes nothing. `on` serves the page, is
scraped every second, and pushes metrics and traces to a collector that takes everything. The figures are CPU seconds of the worker's
process (user and system), as medians, and the ratio of each pair. Then an idle worker of each kind is measured for `--idle` seconds.
"""

import argparse
import http.server
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

PORT = 8479


class Collector(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def environment(collector, on):
    names = {"KEY": "0123456789abcdef0123456789abcdef"}
    if on:
        names |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_METRIC_EXPORT_INTERVAL": "10000"}
    return os.environ | names


def scrape(stop):
    while not stop.wait(1):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=1).read()
        except OSError:
            pass


def cpu(process):
    _, _, usage = os.wait4(process.pid, 0)
    return usage.ru_utime + usage.ru_stime


def run(arguments, work, collector, on, idle=0):
    lake = work / "lake"
    shutil.rmtree(lake, ignore_errors=True)
    config = work / "shardlake.toml"
    source = work / ("empty" if idle else "in")
    source.mkdir(exist_ok=True)
    config.write_text(f'[[source]]\nurl = "{source}"\n[lake]\nurl = "{lake}"\n[anonymize]\nkey = "env:KEY"\n[limits]\nthreads = 1\n')
    command = [arguments.binary, "run", "--config", config, "--listen", f"127.0.0.1:{PORT}" if on else "off"]
    command += [] if idle else ["--until-caught-up"]
    stop = threading.Event()
    process = subprocess.Popen(command, env=environment(collector, on), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if on:
        threading.Thread(target=scrape, args=(stop,), daemon=True).start()
    if idle:
        time.sleep(idle)
        process.send_signal(signal.SIGTERM)
    seconds = cpu(process)
    stop.set()
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/shardlake")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--records", type=int, default=400_000)
    parser.add_argument("--idle", type=int, default=60)
    arguments = parser.parse_args()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    collector = f"http://127.0.0.1:{server.server_port}"
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "in").mkdir()
        produce = [arguments.binary, "produce", "--to", work / "in" / "a.ndjson", "--count", str(arguments.records)]
        subprocess.run(produce, check=True, stdout=subprocess.DEVNULL)
        pairs = []
        for number in range(arguments.rounds):
            order = [False, True] if number % 2 == 0 else [True, False]
            seconds = {on: run(arguments, work, collector, on) for on in order}
            pairs.append((seconds[False], seconds[True]))
            print(f"round {number + 1}: off {seconds[False]:.2f} s, on {seconds[True]:.2f} s", flush=True)
        off, on = (statistics.median(values) for values in zip(*pairs))
        ratio = statistics.median(on / off for off, on in pairs)
        print(f"medians: off {off:.2f} s, on {on:.2f} s; of the pairs' ratios: {100 * (ratio - 1):+.2f} %")
        if arguments.idle:
            for on in (False, True):
                seconds = run(arguments, work, collector, on, arguments.idle)
                print(f"idle, {'on' if on else 'off'}: {100 * seconds / arguments.idle:.2f} % of a core")


if __name__ == "__main__":
    main()
