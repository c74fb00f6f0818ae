#!/usr/bin/env python3
"""How Shardlake scales: runs the simulation over a grid of shards and workers, prices the requests, and writes the tables and plots of
docs/scaling.md.

    cargo build --release -p shardlake-sim
    python3 benches/scaling.py                    # all of it, 30 minutes on two cores
    python3 benches/scaling.py --only tenfold     # the runs of one scenario; the others stay as they are
    python3 benches/scaling.py --from-figures     # no runs: tables and plots from docs/scaling/figures.json

It needs Python 3.11 and nothing else. The same seed gives the same figures.
"""

import argparse
import json
import pathlib
import re
import subprocess
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIGURES = ROOT / "docs/scaling/figures.json"
PAGE = ROOT / "docs/scaling.md"
SIMULATOR = ROOT / "target/release/shardlake-sim"
HOURS = 730

# Bytes that each shard gets in a second, unless the run says otherwise: a hundredth of what a shard takes.
QUIET = "10000"
CALM = ["1:1", "10:1", "10:3", "100:1", "100:10", "1000:4", "1000:10", "1000:100", "10000:100"]
# Runs: scenario, fleets, and further flags. Large fleets are counted for less time, since the figures of an hour follow from five minutes.
RUNS = [
    ("calm", CALM[:5], ["--counted-s", "3600"]),
    ("calm", CALM[5:8], ["--counted-s", "900"]),
    ("calm", CALM[8:], ["--counted-s", "300"]),
    ("recover", ["10:3", "100:10", "1000:10", "1000:100", "10000:100"], ["--commit-s", "60"]),
    ("join", ["10:1", "100:1", "1000:1", "1000:10"], ["--commit-s", "60"]),
    ("reshard", ["10:3", "100:10", "1000:10"], []),
    ("catch-up", ["100:3", "1000:10"], ["--shard-bytes", "100000"]),
    ("spot", ["10:4", "100:10", "1000:20"], []),
    ("kill", ["10:4", "100:10", "1000:20"], []),
]
TENFOLD = ["--shard-bytes", "100000"]
RULES = {
    "nobody": [],
    "backlog": ["--by-backlog", "1500000000", "--workers-max", "20"],
    "age": ["--by-age", "600", "--workers-max", "20"],
}

PUTS = ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "PutObject", "ListObjectsV2", "ListMultipartUploads"]
GETS = ["GetObject", "HeadObject"]


def simulate(scenario, fleets, flags):
    """The measured fleets, by name."""
    found = {}
    for fleet in fleets:
        command = [str(SIMULATOR), "--scale", fleet, "--scenario", scenario, "--shard-bytes", QUIET, *flags]
        if "--shard-bytes" in flags:
            command = [str(SIMULATOR), "--scale", fleet, "--scenario", scenario, *flags]
        print(" ".join(command[1:]), flush=True)
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        measured = json.loads(run.stdout)
        if scenario != "tenfold":
            del measured["curve"]
        found[fleet] = measured
    return found


def prices():
    """The product's prices, for one unit."""
    table = tomllib.loads((ROOT / "src/cost/prices.toml").read_text())["price"]
    return {row["id"]: row["usd"] / row.get("per", 1) for row in table if "usd" in row}


def money(run, price):
    """Dollars of a month, by part: what the fleet of a calm run costs."""
    counted = run["counted"]
    scale = HOURS * 3600 / counted["seconds"]
    requests = counted["requests"]
    s3 = sum(requests.get(f"s3.{name}", 0) for name in PUTS) * price["s3.puts"]
    s3 += sum(requests.get(f"s3.{name}", 0) for name in GETS) * price["s3.gets"]
    task = 0.5 * price["fargate.vcpu-hours"] + price["fargate.memory-hours"] + price["vpc.ipv4-hours"]
    return {
        "stream": run["shards"] * HOURS * price["kinesis.shard-hours"],
        "tasks": run["workers"] * HOURS * task,
        "s3": s3 * scale,
        "scans": counted["read_units"] * scale * price["dynamodb.reads"],
        "writes": counted["write_units"] * scale * price["dynamodb.writes"],
    }


def fleet_of(name):
    shards, workers = name.split(":")
    return f"{int(shards):,} × {workers}"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def seconds(value):
    return "–" if value is None else f"{value:,.0f}"


def calm_tables(runs, price):
    requests, dollars = [], []
    for name, run in runs.items():
        counted, hour = run["counted"], 3600 / run["counted"]["seconds"]
        of = lambda *names: sum(counted["requests"].get(name, 0) for name in names)
        shards, workers = run["shards"], run["workers"]
        busy = counted["cpu_s"] / (counted["task_hours"] * 3600 * run["vcpus"])
        s3 = of(*[f"s3.{name}" for name in PUTS + GETS])
        requests.append([
            fleet_of(name),
            f"{of('kinesis.GetRecords') * hour / 3600 / shards:.2f}",
            f"{of('kinesis.ListShards') * hour:,.0f}",
            f"{of('dynamodb.Scan') * hour:,.0f}",
            f"{counted['read_units'] * hour / 3600:,.0f}",
            f"{counted['write_units'] * hour / 3600:,.1f}",
            f"{s3 * hour:,.0f}",
            f"{counted['epochs'] * hour:,.0f}",
            f"{100 * busy:.0f} %",
        ])
        parts = money(run, price)
        own = sum(parts.values()) - parts["stream"]
        dollars.append([fleet_of(name), *[f"{parts[part]:,.2f}" for part in ("tasks", "s3", "scans", "writes")],
                        f"{own:,.2f}", f"{own / HOURS:,.3f}", f"{parts['stream']:,.0f}"])
    first = table(["shards × workers", "GetRecords a shard-second", "ListShards pages an hour", "scan pages an hour", "read units a second", "write units a second",
                   "S3 requests an hour", "epochs an hour", "processor"], requests)
    second = table(["shards × workers", "tasks", "S3 requests", "scans", "lease writes", "sum a month", "an hour", "the stream itself"], dollars)
    return first, second


def settle_table(figures):
    rows = []
    for name, run in figures["calm"].items():
        of = lambda scenario, figure: seconds(figures.get(scenario, {}).get(name, {}).get(figure))
        rows.append([fleet_of(name), seconds(run["held_s"]), seconds(run["balanced_s"]), of("recover", "held_again_s"), of("recover", "balanced_again_s")])
    return table(["shards × workers", "start: all held", "balanced", "a worker died: all held", "balanced"], rows)


def event_table(figures):
    rows = []
    words = {"join": "as many workers again join", "reshard": "every shard is split", "catch-up": "nobody reads for half an hour",
             "spot": "half of the workers get a signal", "kill": "half of the workers are killed"}
    for scenario, what in words.items():
        for name, run in figures.get(scenario, {}).items():
            rows.append([fleet_of(name), what, seconds(run.get("children_held_s", run.get("held_again_s"))),
                         seconds(run["balanced_again_s"]), str(run["unheld_most"]), seconds(run["unheld_shard_seconds"]), seconds(run["oldest_max_s"]), seconds(run["late_s"]),
                         str(run["aborted"])])
    return table(["shards × workers", "what happens", "all held after", "balanced after", "most unheld", "shard-seconds unheld", "oldest record", "behind until", "epochs read again"], rows)


def tenfold_table(runs):
    rows = []
    words = {"nobody": "nobody adds workers", "backlog": "target tracking on `backlog_per_task`", "age": "steps on `oldest_age`"}
    for name, run in runs.items():
        rows.append([words[name], str(run["workers"]), str(run["workers_most"]), seconds(run["oldest_max_s"]), seconds(run["late_s"]),
                     f"{run['uncommitted_max'] / 1e9:,.0f}", f"{run['counted']['task_hours']:.1f}", str(run["aborted"])])
    return table(["rule", "workers before", "most workers", "oldest record, s", "behind until, s", "most not committed, GB", "task-hours", "epochs read again"], rows)


# --- plots: SVG by hand, in colours that can be read on light and on dark ---------------------------------------------------------------

COLOURS = ["#2f81c7", "#d1701f", "#3c9a4e", "#b0479a", "#8a8f98", "#c2352b"]
STYLE = ("<style>text{font:12px sans-serif;fill:#444}.grid{stroke:#888;stroke-opacity:.25}.axis{stroke:#888}"
         "@media(prefers-color-scheme:dark){text{fill:#ccc}}</style>")


class Plot:
    """A plot of lines or bars, 720 by 340."""

    def __init__(self, title, x_label, y_label):
        self.left, self.top, self.width, self.height = 70, 40, 470, 240
        self.parts = [f'<text x="{self.left}" y="20" font-weight="bold">{title}</text>',
                      f'<text x="{self.left + self.width / 2}" y="325" text-anchor="middle">{x_label}</text>',
                      f'<text x="{self.left}" y="36">{y_label}</text>']
        self.title = title

    def at(self, x, y):
        return f"{self.left + x * self.width:.1f}", f"{self.top + (1 - y) * self.height:.1f}"

    def ticks_y(self, ticks):
        for place, label in ticks:
            x, y = self.at(0, place)
            self.parts.append(f'<line class="grid" x1="{x}" x2="{self.left + self.width}" y1="{y}" y2="{y}"/>')
            self.parts.append(f'<text x="{self.left - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{label}</text>')

    def ticks_x(self, ticks):
        for place, label in ticks:
            x, y = self.at(place, 0)
            self.parts.append(f'<text x="{x}" y="{float(y) + 17:.1f}" text-anchor="middle">{label}</text>')

    def line(self, number, points):
        path = " ".join(",".join(self.at(x, min(y, 1))) for x, y in points)
        self.parts.append(f'<polyline fill="none" stroke="{COLOURS[number]}" stroke-width="2" points="{path}"/>')

    def bar(self, number, x, width, low, high):
        left, top = self.at(x, high)
        tall = (high - low) * self.height
        if tall > 0.05:
            self.parts.append(f'<rect fill="{COLOURS[number]}" x="{left}" y="{top}" width="{width * self.width:.1f}" height="{tall:.1f}"/>')

    def legend(self, names):
        for number, name in enumerate(names):
            y = self.top + 14 + 20 * number
            self.parts.append(f'<rect fill="{COLOURS[number]}" x="{self.left + self.width + 14}" y="{y - 9}" width="11" height="11"/>')
            self.parts.append(f'<text x="{self.left + self.width + 30}" y="{y + 1}">{name}</text>')

    def save(self, name):
        x, y = self.at(0, 0)
        axis = f'<line class="axis" x1="{x}" x2="{self.left + self.width}" y1="{y}" y2="{y}"/>'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 340" role="img" aria-label="{self.title}">'
        text = "\n".join([head, STYLE, axis, *self.parts, "</svg>"]) + "\n"
        assert len(text) < 60_000, name
        (ROOT / "docs/scaling" / name).write_text(text)


def steps(most, count=5):
    """Round ticks up to at least `most`."""
    for power in range(-3, 13):
        for digit in (1, 2, 5):
            step = digit * 10**power
            if step * count >= most:
                return [(number / count, f"{number * step:,g}") for number in range(count + 1)], step * count
    raise ValueError(most)


def plot_dollars(runs, price):
    plot = Plot("What a fleet costs for each shard, without the stream", "shards × workers", "$ a month and shard")
    parts = ["tasks", "s3", "scans", "writes"]
    shares = [(name, run, money(run, price)) for name, run in runs.items() if run["shards"] >= 10]
    ticks, most = steps(max(sum(of[part] for part in parts) / run["shards"] for _, run, of in shares))
    plot.ticks_y(ticks)
    for place, (name, run, of) in enumerate(shares):
        x, low = (place + 0.15) / len(shares), 0
        for number, part in enumerate(parts):
            high = low + of[part] / run["shards"] / most
            plot.bar(number, x, 0.7 / len(shares), low, high)
            low = high
    plot.ticks_x([((place + 0.5) / len(shares), fleet_of(name).replace(",000", "k").replace(" ", "")) for place, (name, *_) in enumerate(shares)])
    plot.legend(["tasks", "S3 requests", "scans of leases", "writes of leases"])
    plot.save("dollars.svg")


def plot_settling(figures):
    plot = Plot("How long a fleet takes to settle", "shards × workers", "seconds")
    names = [name for name in figures["calm"] if figures["calm"][name]["workers"] > 1]
    bars = [("calm", "held_s"), ("calm", "balanced_s"), ("recover", "held_again_s"), ("recover", "balanced_again_s")]
    value = lambda name, scenario, figure: figures.get(scenario, {}).get(name, {}).get(figure) or 0
    ticks, most = steps(max(value(name, *bar) for name in names for bar in bars))
    plot.ticks_y(ticks)
    for place, name in enumerate(names):
        for number, bar in enumerate(bars):
            plot.bar(number, (place + 0.1 + 0.2 * number) / len(names), 0.18 / len(names), 0, value(name, *bar) / most)
    plot.ticks_x([((place + 0.5) / len(names), fleet_of(name).replace(",000", "k").replace(" ", "")) for place, name in enumerate(names)])
    plot.legend(["start: all held", "start: balanced", "death: all held", "death: balanced"])
    plot.save("settling.svg")


def plot_tenfold(runs):
    for name, column, title, label, scale in [
        ("tenfold-age.svg", 2, "A tenfold load for an hour: how old the lake's data are", "age of the oldest record, minutes", 60),
        ("tenfold-workers.svg", 1, "A tenfold load for an hour: how many workers run", "workers", 1),
    ]:
        plot = Plot(title, "minutes since the load grew (it ends at 60)", label)
        curves = {rule: [((point[0] - run["begun_s"]) / 60, point[column] / scale) for point in run["curve"]] for rule, run in runs.items()}
        ticks, most = steps(max(y for curve in curves.values() for _, y in curve))
        plot.ticks_y(ticks)
        begin, end = -5, 90
        for number, curve in enumerate(curves.values()):
            plot.line(number, [((x - begin) / (end - begin), y / most) for x, y in curve if begin <= x <= end])
        plot.ticks_x([((minute - begin) / (end - begin), str(minute)) for minute in range(0, 91, 15)])
        plot.legend({"nobody": "no rule", "backlog": "backlog_per_task", "age": "oldest_age"}[rule] for rule in runs)
        plot.save(name)


def rule_of_thumb(price):
    """Tasks, and what they cost, for streams of several sizes. A task of half a core has 50 MB a second of processor; half of it stays free."""
    rows = []
    task = (0.5 * price["fargate.vcpu-hours"] + price["fargate.memory-hours"] + price["vpc.ipv4-hours"]) * HOURS
    for shards in (1, 10, 100, 300, 1_000, 3_000, 10_000):
        for rate in (0.01, 0.1, 1.0):
            megabytes = shards * rate
            tasks = max(2 if shards > 1 else 1, -(-shards // 250), -(-int(megabytes * 10) // 250))
            tasks = min(tasks, shards)
            rows.append([f"{shards:,}", f"{rate:g}", f"{tasks}", f"{tasks * task:,.0f}", f"{shards * HOURS * price['kinesis.shard-hours']:,.0f}"])
    return table(["shards", "MB/s each", "tasks of 0.5 vCPU and 1 GB", "tasks, $ a month", "the stream, $ a month"], rows)


def write_page(figures):
    price = prices()
    requests, dollars = calm_tables(figures["calm"], price)
    sections = {
        "requests": requests,
        "dollars": dollars,
        "settling": settle_table(figures),
        "events": event_table(figures),
        "tenfold": tenfold_table(figures["tenfold"]),
        "thumb": rule_of_thumb(price),
    }
    page = PAGE.read_text()
    for name, text in sections.items():
        page, count = re.subn(rf"(<!-- {name}: by benches/scaling.py -->\n).*?(\n<!-- end -->)", lambda found: found[1] + "\n" + text + "\n" + found[2], page, flags=re.S)
        assert count == 1, name
    PAGE.write_text(page)
    plot_dollars(figures["calm"], price)
    plot_settling(figures)
    plot_tenfold(figures["tenfold"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="the runs of this scenario")
    parser.add_argument("--from-figures", action="store_true", help="run nothing")
    args = parser.parse_args()
    FIGURES.parent.mkdir(exist_ok=True)
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() and (args.only or args.from_figures) else {}
    if not args.from_figures:
        if args.only:
            figures[args.only] = {}
        for scenario, fleets, flags in RUNS:
            if args.only in (None, scenario):
                figures.setdefault(scenario, {}).update(simulate(scenario, fleets, flags))
                FIGURES.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
        if args.only in (None, "tenfold"):
            figures["tenfold"] = {rule: simulate("tenfold", ["200:1"], TENFOLD + flags)["200:1"] for rule, flags in RULES.items()}
        FIGURES.write_text(json.dumps(figures, sort_keys=True) + "\n")
    # In the order of the grid, whatever order the file has.
    figures["calm"] = {name: figures["calm"][name] for name in CALM if name in figures["calm"]}
    figures["tenfold"] = {rule: figures["tenfold"][rule] for rule in RULES}
    write_page(figures)


if __name__ == "__main__":
    main()
