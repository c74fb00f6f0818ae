"""The status page of a real worker, in a real browser.

A worker reads sample records, some of them corrupt, while more are added. A headless Chromium opens its page:

- it shows what `status --json` says, and changes while it is open, without a reload;
- it is usable by keyboard, and axe-core finds nothing that keeps people out, in light and in dark, wide and as narrow as a phone;
- a phone of 360 pixels need not scroll sideways;
- it asks no other host for anything, logs no error, and has no personal value of the records;
- with a thousand shards, sorting and filtering take less than the blink of an eye, and the page is answered in 50 ms;
- what is wrong is said first, with a command that does what it says.

    python -m e2e.page [--records 12000] [--shards 1000] [--seed 1] [--folder FOLDER] [--bin PATH] [--pictures FOLDER]

Pictures of the page are kept in `target/page/`. Needs Chromium, which Debian calls `chromium`, and axe-core: AXE_CORE names its
`axe.min.js`.
"""

import argparse
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import time
import urllib.request

from e2e.common.binary import ROOT, add_flag, binary, shardlake, use
from e2e.common.browser import Browser, find
from e2e.common.session import Log, in_folder, print_pairs, until

ANSWER_MS_MAX = 50
SORT_MS_MAX = 250
PHONE = 360


class Worker:
    """A worker in the background, and the address of its page."""

    def __init__(self, folder, name, *flags):
        self.log = folder / f"{name}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([binary(), "run", "--listen", "127.0.0.1:0", "--threads", "1", *map(str, flags)],
                                            cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        until(lambda: self._address() or self.process.poll() is not None, 60, "the worker does not listen")
        assert self.process.poll() is None, self.log.read_text()
        self.url = self._address()

    def _address(self):
        found = re.search(r"status page: (http://\S+/)", self.log.read_text(errors="replace"))
        return found and found.group(1)

    def fleet(self):
        """What the page shows, once the worker is there."""
        while True:
            with urllib.request.urlopen(self.url + "api/fleet", timeout=30) as answer:
                fleet = json.load(answer)
            if fleet["state"] != "starting":
                return fleet
            time.sleep(0.2)

    def end(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(60)


def personal_values(folder):
    """Values of the sample records that name a person: e-mail addresses, telephone numbers, names of users."""
    text = "".join(path.read_text(errors="replace") for path in folder.glob("*.ndjson"))
    mails = set(re.findall(r"[\w.+-]+@[\w-]+\.[\w.]+", text))
    users = set(re.findall(r'"(?:user_id|userId|name|first_name|last_name|phone)"\s*:\s*"([^"]{4,})"', text))
    assert mails and users, "the samples have personal values"
    # Names of headers of e-mails, which the page may have in its own text.
    own = (ROOT / "src" / "server" / "page.html").read_text()
    return {value for value in mails | users if value not in own}


def check_contents(browser, worker, lake, log):
    """The page, its JSON and the command say the same."""
    status, fleet = json.loads(shardlake("status", "--json", "--lake", lake)), worker.fleet()
    by_shard = {shard["shard"]: shard for shard in fleet["shards"]}
    assert set(by_shard) == {shard["shard"] for shard in status["shards"]}, (by_shard.keys(), status["shards"])
    for shard in status["shards"]:
        shown = by_shard[shard["shard"]]
        for name in ("stream", "owner", "checkpoint"):
            assert shown.get(name) == shard[name], (name, shown, shard)
    assert fleet["lake"]["rows"] == status["totals"]["rows"], (fleet["lake"]["rows"], status["totals"]["rows"])
    assert fleet["lake"]["epochs"] == status["epochs"]
    # Rare codes are in a part of the page that is opened by a click.
    text, every = browser.evaluate("document.body.innerText"), browser.evaluate("document.body.textContent")
    for dataset, rows in status["totals"]["rows"].items():
        assert dataset in text and f"{rows:,}" in text, f"{dataset}: {rows}"
    for code, count in status["totals"]["dead_letters"].items():
        assert code in every and f"{count:,}" in every, f"{code}: {count}"
    for shard in by_shard.values():
        assert browser.evaluate(f"document.body.textContent.includes({json.dumps(shard['shard'])})"), shard["shard"]
    assert browser.evaluate("document.querySelectorAll('#graph-scroll svg g').length") == len(fleet["graph"]["nodes"])
    passed = sum(edge["records"] for edge in fleet["graph"]["edges"] if edge["id"].startswith("source/"))
    assert passed >= status["totals"]["records"], (passed, status["totals"]["records"])
    log(f"the page says what `status --json` says: {status['totals']['records']:,} records, {len(by_shard)} shards")


def check_keyboard(browser):
    """Every control can be reached by the tabulator key, and shows that it has the focus."""
    browser.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(40):
        browser.press("Tab")
        reached.add(browser.evaluate(
            "(() => { const e = document.activeElement; if (e === document.body) return 'BODY|'; return (e.id || e.className || e.textContent || e.tagName).slice(0, 40)"
            " + '|' + (getComputedStyle(e).outlineStyle !== 'none'); })()"))
    assert all(place.endswith("|true") for place in reached if not place.startswith("BODY")), f"no visible focus: {reached}"
    names = {place.split("|")[0] for place in reached}
    for wanted in ("skip", "filter", "which", "Shard", "Behind", "JSON"):
        assert wanted in names, f"{wanted} cannot be reached: {sorted(names)}"
    browser.evaluate("document.querySelectorAll('#shards th button')[0].focus()")
    before = browser.evaluate("document.querySelectorAll('#shards th')[0].getAttribute('aria-sort')")
    browser.press("Enter", text="\r")
    after = browser.evaluate("document.querySelectorAll('#shards th')[0].getAttribute('aria-sort')")
    assert before != after and after in ("ascending", "descending"), (before, after)


def check_axe(browser, axe, name):
    """axe-core finds no violation of WCAG 2.2, levels A and AA, nor of its best practices."""
    browser.evaluate(axe + "; 0")
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = browser.evaluate(
        f"axe.run(document, {{ runOnly: {json.dumps(tags)} }}).then((result) => JSON.stringify(result.violations.map("
        "(rule) => [rule.id, rule.help, rule.nodes.slice(0, 3).map((node) => node.html.slice(0, 160) + ' ' + node.failureSummary)])))")
    assert json.loads(found) == [], f"{name}: {json.dumps(json.loads(found), indent=1)}"
    passes = browser.evaluate(f"axe.run(document, {{ runOnly: {json.dumps(tags)} }}).then((result) => result.passes.length)")
    assert passes > 20, f"axe-core has checked {passes} rules only"


def check_width(browser, name):
    """Nothing is wider than the window."""
    wide = browser.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] <= wide[1], f"{name}: the page is {wide[0]} pixels wide, the window {wide[1]}"


def check_requests(browser, url):
    """The page asks its own worker only."""
    others = [request for request in browser.requests if not request.startswith((url, "about:", "data:"))]
    assert not others, f"the page asks other hosts: {others[:5]}"
    assert any(request.endswith("events") for request in browser.requests), browser.requests[:5]


def answer_ms(url):
    """The best of five answers: the machine may be busy."""
    times = []
    for _ in range(5):
        begun = time.monotonic()
        with urllib.request.urlopen(url, timeout=30) as answer:
            answer.read()
        times.append(1000 * (time.monotonic() - begun))
    return min(times)


def one_worker(args, folder, axe, log):
    """A worker that reads while its page is open."""
    source, lake = folder / "in", folder / "lake"
    source.mkdir()
    produce = lambda name, count, seed: shardlake("produce", "--to", source / name, "--count", count, "--seed", seed, "--bad-ratio", 0.005)
    produce("a.ndjson", args.records, args.seed)
    produce("b.ndjson", args.records // 4, args.seed + 1)
    personal = personal_values(source)
    worker = Worker(folder, "worker", "--source", source, "--lake", lake, "--commit-interval", "1s")
    try:
        with Browser(folder / "one") as browser:
            browser.size(1280, 900)
            browser.open(worker.url)
            browser.wait("document.documentElement.dataset.shown && document.getElementById('state-title').textContent === 'All well'", 60,
                         lambda: f"the page is not well: {browser.evaluate('document.body.innerText')[:800]} {browser.errors}")
            total = lambda: sum(worker.fleet()["lake"]["rows"].values()) if worker.fleet()["lake"] else 0
            until(lambda: worker.fleet()["shard_counts"]["read"] == 2 and all(
                shard.get("uncommitted_records") == 0 for shard in worker.fleet()["shards"]) and total() > 0, 90, "nothing is committed", every=0.5)
            time.sleep(5.5)  # the time between two reads of the lease table and the log
            check_contents(browser, worker, lake, log)

            # Live: more records arrive while the page is open, and nothing is loaded again.
            browser.evaluate("window.sameDocument = true")
            seen = browser.evaluate("document.getElementById('watermarks-note').textContent")
            produce("c.ndjson", args.records, args.seed + 2)
            browser.wait(f"document.getElementById('watermarks-note').textContent !== {json.dumps(seen)}", 60, "the page does not change")
            assert browser.evaluate("window.sameDocument") is True
            assert browser.evaluate("document.getElementById('conn-text').textContent") == "live"
            browser.wait("document.querySelectorAll('#graph-scroll path.flow').length > 0 || "
                         "document.querySelectorAll('#graph-scroll path.on').length > 4", 30, "the graph shows nothing")
            log("the page changes while it is open")
            time.sleep(6)

            check_keyboard(browser)
            for name, (width, height, dark) in {"light": (1280, 900, False), "dark": (1280, 900, True), "phone": (PHONE, 780, False),
                                                "tablet": (820, 1180, False), "small": (1024, 768, False)}.items():
                browser.size(width, height, dark, still=name == "tablet", scale=2 if width == PHONE else 1)
                check_width(browser, name)
                check_axe(browser, axe, name)
                browser.evaluate("window.scrollTo(0, 0); document.activeElement.blur()")
                browser.screenshot(args.pictures / f"{name}.png")
            background = lambda: browser.evaluate("getComputedStyle(document.body).backgroundColor")
            browser.size(1280, 900, dark=True)
            dark = background()
            browser.size(1280, 900, still=True)
            assert dark != background(), "light and dark are the same"
            assert browser.evaluate("[...document.querySelectorAll('path.flow')].every((path) => getComputedStyle(path).animationName === 'none')")
            log("light, dark, phone and tablet: axe-core finds nothing, and nothing is too wide")

            check_requests(browser, worker.url)
            assert not browser.errors, browser.errors
            shown = browser.evaluate("document.documentElement.outerHTML") + urllib.request.urlopen(worker.url + "api/fleet").read().decode()
            leaked = [value for value in personal if value in shown]
            assert not leaked, f"{len(leaked)} personal values of the records are on the page"

            # Without server-sent events the page asks again and again.
            browser.open(worker.url + "?poll")
            browser.wait("document.getElementById('conn-text').textContent === 'live, by polling'", 30, "the page does not poll")

            # The worker ends while its page is open.
            browser.open(worker.url)
            browser.wait("document.getElementById('conn-text').textContent === 'live'", 30, "the page is not live")
            begun = time.monotonic()
            worker.end()
            assert worker.process.returncode == 0, worker.log.read_text()
            took = time.monotonic() - begun
            browser.wait("document.getElementById('conn').className.includes('lost')", 60, "the page does not see that the worker has ended")
            log(f"the worker ended in {took:.1f} s while its page was open, and the page says so")
    finally:
        worker.end(signal.SIGKILL)


def trouble(args, folder, axe, log):
    """A file is cut: the page says so, and the command that it names is the right one."""
    source, lake = folder / "trouble-in", folder / "trouble-lake"
    source.mkdir()
    shardlake("produce", "--to", source / "a.ndjson", "--count", 2000, "--seed", 7)
    shardlake("produce", "--to", source / "b.ndjson", "--count", 2000, "--seed", 8)
    worker = Worker(folder, "trouble", "--source", source, "--lake", lake, "--commit-interval", "1s")
    try:
        until(lambda: (worker.fleet()["lake"] or {}).get("records") == 4000, 60, "the records are not committed", every=0.5)
        with Browser(folder / "trouble") as browser:
            browser.size(1280, 900)
            browser.open(worker.url)
            shown = "document.getElementById('problems').textContent"
            with open(source / "a.ndjson", "r+b") as file:
                file.truncate(100_000)
            browser.wait(f"{shown}.includes('DATA LOSS')", 60, lambda: f"the page does not say it: {browser.evaluate('document.body.innerText')[:800]}")
            assert browser.evaluate("document.getElementById('problems').innerText").startswith("act now")
            assert "problem" in browser.evaluate("document.getElementById('state-title').textContent")
            assert "DATA LOSS" in browser.evaluate("document.getElementById('announce').textContent"), "a screen reader does not hear of it"
            check_axe(browser, axe, "trouble")
            browser.screenshot(args.pictures / "trouble.png", whole=False)
            browser.size(PHONE, 780, scale=2)
            check_width(browser, "trouble on a phone")
            browser.screenshot(args.pictures / "trouble-phone.png", whole=False)
            # The command as the page has it, and then what it says.
            command = browser.evaluate("[...document.querySelectorAll('#problems code')].map((code) => code.textContent).find((text) => text.includes('losses'))")
            program, *flags = shlex.split(command)
            assert program == "shardlake", command
            listed = subprocess.run([binary(), *flags], capture_output=True, text=True, cwd=folder)
            assert listed.returncode == 1 and "a.ndjson" in listed.stdout, (command, listed)
            shardlake("losses", "accept", "a.ndjson", "--then", "start", "--lake", lake)
            browser.wait(f"!{shown}.includes('DATA LOSS')", 60, "the problem stays")
            log("a loss is said first, its command lists it, and it goes once somebody has decided")
    finally:
        worker.end(signal.SIGKILL)


def many_shards(args, folder, axe, log):
    """A stream of a thousand shards, which are files."""
    source, lake = folder / "many-in", folder / "many-lake"
    source.mkdir()
    shardlake("produce", "--to", source, "--files", args.shards, "--count", args.shards * 3, "--seed", args.seed)
    worker = Worker(folder, "many", "--source", source, "--lake", lake, "--commit-interval", "5s")
    try:
        until(lambda: worker.fleet()["shard_counts"]["read"] == args.shards, 300, "the shards are not read", every=1)
        until(lambda: (worker.fleet()["lake"] or {}).get("records", 0) == args.shards * 3, 300, "the records are not committed", every=1)
        page, fleet = answer_ms(worker.url), answer_ms(worker.url + "api/fleet")
        assert max(page, fleet) < ANSWER_MS_MAX, f"the page takes {page:.0f} ms, its JSON {fleet:.0f} ms"
        with Browser(folder / "many") as browser:
            browser.size(1280, 900)
            browser.open(worker.url)
            browser.wait("document.querySelectorAll('#shards tbody tr').length >= 200", 60, "the table is empty")
            browser.evaluate("document.querySelector('#shards-more button').click()")
            browser.wait(f"document.querySelectorAll('#shards tbody tr').length === {args.shards}", 60, "the table has not all shards")
            timed = lambda script: browser.evaluate(
                f"new Promise((done) => {{ const begun = performance.now(); {script}; requestAnimationFrame(() => done(performance.now() - begun)); }})")
            sort_ms = min(timed("document.querySelectorAll('#shards th button')[0].click()") for _ in range(3))
            filter_ms = timed("{ const f = document.getElementById('filter'); f.value = '0042'; f.dispatchEvent(new Event('input')); }")
            rows = browser.evaluate("document.querySelectorAll('#shards tbody tr').length")
            assert 0 < rows < args.shards, rows
            assert max(sort_ms, filter_ms) < SORT_MS_MAX, (sort_ms, filter_ms)
            browser.evaluate("{ const f = document.getElementById('filter'); f.value = ''; f.dispatchEvent(new Event('input')); }")
            check_axe(browser, axe, "a thousand shards")
            browser.screenshot(args.pictures / "many-shards.png", whole=False)
            browser.size(PHONE, 780, scale=2)
            check_width(browser, "a thousand shards on a phone")
        size = len(urllib.request.urlopen(worker.url + "api/fleet").read())
        return [("shards", f"{args.shards:,}"), ("the page is answered in", f"{page:.1f} ms"), ("its JSON in", f"{fleet:.1f} ms"),
                ("its JSON has", f"{size / 1000:,.0f} kB"), ("sorting takes", f"{sort_ms:.0f} ms"), ("filtering takes", f"{filter_ms:.0f} ms")]
    finally:
        worker.end(signal.SIGKILL)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=12_000)
    parser.add_argument("--shards", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder")
    parser.add_argument("--pictures", type=pathlib.Path, default=ROOT / "target" / "page")
    add_flag(parser)
    args = parser.parse_args()
    use(parser, args)
    if not find():
        parser.error("there is no chromium: apt-get install chromium")
    axe = pathlib.Path(os.environ.get("AXE_CORE", ROOT / "target" / "axe" / "node_modules" / "axe-core" / "axe.min.js"))
    if not axe.is_file():
        parser.error(f"there is no {axe}: scripts/test operations installs axe-core, or AXE_CORE names its axe.min.js")
    axe, log = axe.read_text(), Log()

    def work(folder):
        one_worker(args, folder, axe, log)
        trouble(args, folder, axe, log)
        print_pairs("the page", many_shards(args, folder, axe, log))

    in_folder(args, "page", work)
    log(f"pictures are in {args.pictures}")


if __name__ == "__main__":
    main()
