"""The chaos tests' own checks find what they are for: each is shown something with one fault, and must tell it.

    python tests/chaos/test_checks.py
"""

import collections
import contextlib
import gzip
import http.client
import http.server
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import unittest.mock

import pyarrow
import pyarrow.parquet

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "fleet"), str(HERE.parent / "outside")]
import judge  # noqa: E402
import network as networks  # noqa: E402
import slopes  # noqa: E402
import supervised  # noqa: E402
from common import connect, lines_of  # noqa: E402
from feeder import Feeder, Mover  # noqa: E402
from refusals import snapshot  # noqa: E402
from watcher import Watcher  # noqa: E402

LINES = [b'{"n":0}\n', b'{"n":1}\n', b"\xff no record\n"]


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)


class Lakes(Folder):
    """A source of three lines and its lake, as it should be; a test changes one thing."""

    def setUp(self):
        super().setUp()
        self.source, self.lake = self.folder / "in", self.folder / "lake"
        self.source.mkdir()
        (self.source / "a.ndjson").write_bytes(b"".join(LINES))
        self.rows = [("file:///in", "a.ndjson", "0", 0), ("file:///in", "a.ndjson", "8", 0)]
        self.letters = [{"stream": "file:///in", "shardId": "a.ndjson", "sequenceNumber": "16", "subSequenceNumber": 0}]
        self.raw = list(LINES)

    def write(self):
        path = self.lake / "processed/events/year=2025/a.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        names = ["ingest_stream", "ingest_shard", "ingest_sequence", "ingest_subsequence"]
        pyarrow.parquet.write_table(pyarrow.table(dict(zip(names, map(list, zip(*self.rows))))), path)
        for key, lines in [("error/reason=x/a.json.gz", [json.dumps(x).encode() + b"\n" for x in self.letters]),
                           ("raw/events/a.json.gz", self.raw)]:
            path = self.lake / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(b"".join(lines)))
        (self.lake / "_staging").mkdir(exist_ok=True)

    def fault(self, words, check):
        self.write()
        with self.assertRaisesRegex(AssertionError, words):
            check(connect(), self.lake, self.source)

    def test_a_whole_lake_has_no_fault(self):
        self.write()
        self.assertEqual(judge.check_positions(connect(), self.lake, self.source), (3, 2, 1))
        self.assertEqual(judge.check_content(connect(), self.lake, self.source), 3)
        judge.check_swept(self.lake)

    def test_a_missing_row_is_told(self):
        self.rows.pop()
        self.fault("neither a row nor a dead letter", judge.check_positions)
        self.fault("2 rows and dead letters of 3", judge.check_content)

    def test_a_doubled_row_is_told(self):
        self.rows.append(self.rows[0])
        self.fault("more than once", judge.check_positions)
        self.fault("more than once", judge.check_content)

    def test_a_row_that_is_a_dead_letter_as_well_is_told(self):
        self.letters.append(self.letters[0] | {"sequenceNumber": "8"})
        self.fault("more than once", judge.check_positions)
        self.fault("more than once", judge.check_content)

    def test_a_row_of_no_record_is_told(self):
        self.rows.append(("file:///in", "a.ndjson", "9", 0))
        self.fault("of no record", judge.check_positions)
        self.fault("4 rows and dead letters of 3", judge.check_content)

    def test_a_raw_line_too_few_or_changed_is_told(self):
        self.raw[0] = b'{"n":7}\n'
        self.fault("lacks 1 lines and has 1", judge.check_content)
        self.raw.pop()
        self.fault("raw/ has 2 lines", judge.check_positions)

    def test_what_a_sweep_left_is_told(self):
        for key in ["_staging/put-x", "_intents/x.json"]:
            self.write()
            (self.lake / key).parent.mkdir(exist_ok=True)
            (self.lake / key).touch()
            with self.assertRaisesRegex(AssertionError, key):
                judge.check_swept(self.lake)
            (self.lake / key).unlink()

    def watched(self):
        watcher = Watcher(self.lake)
        watcher.look()
        watcher.count()
        return watcher

    def test_a_reader_of_a_whole_lake_sees_no_fault(self):
        self.write()
        watcher = self.watched()
        self.assertEqual((watcher.faults, watcher.rows, len(watcher.seen)), ([], 2, 3))

    def test_a_reader_tells_part_of_a_file(self):
        for key in ["processed/events/year=2025/a.parquet", "raw/events/a.json.gz"]:
            self.write()
            path = self.lake / key
            path.write_bytes(path.read_bytes()[:-20])
            watcher = Watcher(self.lake)
            watcher.look()
            self.assertEqual([fault.split(":")[0] for fault in watcher.faults], [key])

    def test_a_reader_tells_a_doubled_row_and_rows_that_are_gone(self):
        self.rows.append(self.rows[0])
        self.write()
        watcher = self.watched()
        self.assertRegex(watcher.faults[0], "1 rows were there twice, of 3")
        self.rows = self.rows[:1]
        self.write()
        watcher.count()
        self.assertRegex(watcher.faults[1], "there were 3 rows, and then 1")

    def test_a_reader_waits_for_a_lake_that_was_taken_away(self):
        self.write()
        watcher = self.watched()
        self.lake.rename(self.folder / "away")
        watcher.look()
        watcher.count()
        self.assertEqual((watcher.faults, watcher.rows), ([], 2))

    def test_a_snapshot_tells_what_was_touched(self):
        self.write()
        before = snapshot(self.folder)
        (self.source / "a.ndjson").write_bytes(b"".join(reversed(LINES)))
        (self.folder / "new").mkdir()
        after = snapshot(self.folder)
        self.assertEqual({path for path in before.keys() | after.keys() if before.get(path) != after.get(path)},
                         {"in/a.ndjson", "new"})


class Logs(unittest.TestCase):
    def test_a_crash_is_told(self):
        for text in ["thread 'main' (7) panicked at src/worker/epoch.rs:76:9:", "stack backtrace:\n   0: rust_begin_unwind"]:
            with self.assertRaisesRegex(AssertionError, "crashed"):
                supervised.check_log("worker 1", text, set())
        supervised.check_log("worker 1", "WARN trying again error=could not write _intents/a.json: lost wait_ms=99", set())

    def test_personal_values_are_told_and_not_repeated(self):
        lines = [b'{"user_id":"u-000007","email":"jane@example.org","plan":"free","tags":["beta-tester"]}',
                 b'{"client":{"client_id":"24aa629d-4bd3"},"client_context":{"custom":{"endpoint":"{\\"Address\\":\\"+13125550132\\"}"}}}',
                 b"no record"]
        personal = supervised.personal_values(lines)
        self.assertEqual(personal, {"u-000007", "jane@example.org", "24aa629d-4bd3", "+13125550132"})
        for value in personal:
            with self.assertRaises(AssertionError) as told:
                supervised.check_log("worker 1", f'WARN a record of user "{value}" failed', personal)
            self.assertNotIn(value, str(told.exception))
        with self.assertRaisesRegex(AssertionError, "e-mail address"):
            supervised.check_log("worker 1", "WARN someone@example.org", personal)

    def test_last_words_are_the_last_sentence_of_its_own(self):
        text = "WARN x\nshardlake: first\nCommitted before it failed: 3 records\nshardlake: could not sync the lake: full\n"
        self.assertEqual(supervised.last_words(text), "shardlake: could not sync the lake: full")
        self.assertEqual(supervised.last_words("WARN the key of shardlake: x"), "")


class Supervision(Folder):
    def fleet(self, script, allowed):
        fleet = supervised.Supervised(["sh", "-c", script], 1, self.folder, random.Random(1), {}, tell=lambda _: None)
        self.addCleanup(fleet.end)
        fleet.allowed = allowed
        fleet.workers[0].process.wait()
        return fleet

    def test_a_worker_that_ends_without_reason_is_told(self):
        with self.assertRaisesRegex(AssertionError, "for no reason of the test's"):
            self.fleet("echo 'shardlake: disk full'; exit 1", None).watch()

    def test_a_worker_that_ends_for_another_reason_is_told(self):
        with self.assertRaisesRegex(AssertionError, "are not of 'disk full'"):
            self.fleet("echo 'shardlake: bored'; exit 1", "disk full").watch()
        with self.assertRaisesRegex(AssertionError, "are not of 'disk full'"):
            self.fleet("echo 'disk full'; exit 1", "disk full").watch()

    def test_an_exit_code_that_is_no_failure_of_its_own_is_told(self):
        for script, code in [("exit 0", 0), ("kill -ABRT $$", -6), ("exit 101", 101)]:
            with self.assertRaisesRegex(AssertionError, f"with {code}, not with 1 or 2"):
                self.fleet(f"echo 'shardlake: disk full'; {script}", "disk full").watch()

    def test_a_crash_is_told_even_where_an_end_is_allowed(self):
        with self.assertRaisesRegex(AssertionError, "crashed"):
            self.fleet("echo 'panicked at x'; echo 'shardlake: disk full'; exit 1", "disk full").watch()

    def test_a_plain_end_is_counted_and_the_worker_is_started_again(self):
        fleet = self.fleet("echo 'shardlake: disk full'; exit 1", "disk full")
        fleet.watch()
        self.assertEqual((fleet.refusals, fleet.workers), ([("worker 1", "shardlake: disk full")], []))
        deadline = time.monotonic() + 10
        while fleet.started < 2 and time.monotonic() < deadline:
            fleet.watch()
        self.assertEqual(fleet.started, 2)


class Slopes(unittest.TestCase):
    def samples(self, minutes=30, **changes):
        """A worker whose memory goes up and down by 4 MiB, with 20 descriptors, in samples of two seconds."""
        rng = random.Random(1)
        samples = []
        for at in range(0, int(60 * minutes), 2):
            flat = {"seconds": at, "rss": 60 << 20, "anonymous": 40 << 20, "descriptors": 20, "threads": 12}
            flat["rss"] += rng.randrange(4 << 20)
            flat["anonymous"] += rng.randrange(4 << 20)
            flat["descriptors"] += rng.randrange(3)
            for name, change in changes.items():
                flat[name] += change(at)
            samples.append(flat)
        return samples

    def growing(self, **changes):
        return [name for name, fit in slopes.judge(self.samples(**changes)).items() if fit.grows()]

    def test_noise_is_flat(self):
        self.assertEqual(self.growing(), [])
        self.assertEqual(self.growing(minutes=1), [])

    def test_a_leak_is_told(self):
        self.assertEqual(self.growing(rss=lambda at: int(at / 3600 * (8 << 20))), ["rss"])
        self.assertEqual(self.growing(anonymous=lambda at: int(at / 3600 * (8 << 20))), ["anonymous"])
        self.assertEqual(self.growing(descriptors=lambda at: at // 300), ["descriptors"])
        self.assertEqual(self.growing(threads=lambda at: at // 300), ["threads"])

    def test_a_great_leak_is_told_in_a_minute(self):
        self.assertEqual(self.growing(minutes=1, rss=lambda at: at << 18), ["rss"])

    def test_a_warm_up_and_a_peak_are_no_leak(self):
        self.assertEqual(self.growing(rss=lambda at: min(at, 300) << 16), [])
        self.assertEqual(self.growing(rss=lambda at: (900 < at < 960) * (64 << 20)), [])

    def test_the_slope_is_right(self):
        slope, intercept = slopes.theil_sen([(x, 3 * x + 5) for x in range(100)] + [(100, 10_000)])
        self.assertAlmostEqual(slope, 3)
        self.assertAlmostEqual(intercept, 5)

    def test_a_share_of_the_shards_that_comes_and_goes_is_no_leak(self):
        self.assertEqual(self.growing(rss=lambda at: (at // 45 % 2 if at < 900 else at % 45 > 3) * (8 << 20)), [])

    def test_too_few_samples_are_no_proof(self):
        with self.assertRaisesRegex(AssertionError, "too few"):
            slopes.judge(self.samples(minutes=0.2))


class Feeding(Folder):
    def test_all_lines_arrive_once_and_whole(self):
        records = self.folder / "records"
        records.write_bytes(b"".join(b'{"n":%d}\n' % number for number in range(20_000)))
        for number, kind in enumerate(["grow", "move"]):
            source = self.folder / f"in-{number}"
            source.mkdir()
            if kind == "grow":
                feeder = Feeder(records, source, 1e6, seed=1)
            else:
                feeder = Mover(records, self.folder / "making", source, 1e6, seed=1)
            feeder.start()
            feeder.join(60)
            feeder.finish()
            found = collections.Counter(line for path in source.iterdir() for line in path.read_bytes().splitlines())
            self.assertEqual(found, collections.Counter(records.read_bytes().splitlines()))
            if kind == "grow":
                self.assertEqual(len(lines_of(source)), 20_000)

    def test_a_fault_is_told(self):
        feeder = Feeder(self.folder / "nothing", self.folder, 100, seed=1)
        feeder.start()
        with self.assertRaisesRegex(AssertionError, "feeding failed"):
            feeder.finish()


class Clock(Folder):
    def test_only_the_wall_clock_is_ahead(self):
        told = "import time; print(time.time(), time.monotonic())"
        environment = {"LD_PRELOAD": str(judge.build_clock()), "LATER_S": "90000"}
        now, monotonic = time.time(), time.monotonic()
        done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, env=environment, check=True)
        later, same = map(float, done.stdout.split())
        self.assertAlmostEqual(later - now, 90_000, delta=30)
        self.assertAlmostEqual(same - monotonic, 0, delta=30)


class Networks(unittest.TestCase):
    def setUp(self):
        carried_out = self.carried_out = []

        class Service(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if len(body) == int(self.headers["Content-Length"]):
                    carried_out.append(body)
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"y" * 1000)

            def log_message(self, *_args):
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_args):
                """Connections are cut: that is the test."""

        service = Quiet(("127.0.0.1", 0), Service)
        self.addCleanup(service.server_close)
        self.addCleanup(service.shutdown)
        threading.Thread(target=service.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{service.server_port}"

    def network(self, parts):
        network = networks.Network(dict.fromkeys(networks.SERVICES, self.url), 1, parts)
        self.addCleanup(network.stop)
        return network

    def ask(self, links, service="s3", timeout=10.0, times=1, body=b"x" * 5000):
        """How many of so many requests were answered whole, each on a connection of its own."""
        answered, port = 0, int(links.relays[service].url.rsplit(":", 1)[1])
        for _ in range(times):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("POST", "/", body)
                answered += connection.getresponse().read() == b"y" * 1000
            connection.close()
        return answered

    def test_without_faults_all_is_handed_on(self):
        network = self.network({})
        self.assertEqual(self.ask(network.links(), times=50), 50)
        self.assertEqual((network.requests["s3"], len(self.carried_out), sum(network.counts.values())), (50, 50, 0))
        self.assertEqual(network.missing(), networks.KINDS)

    def test_cut_in_the_request_never_takes_effect(self):
        network = self.network({"cut in the request": 1.0})
        self.assertEqual(self.ask(network.links(), times=30), 0)
        self.assertEqual((network.counts["s3", "cut in the request"], self.carried_out), (30, []))

    def test_a_lost_or_cut_answer_took_effect(self):
        for kind in ["answer lost", "cut in the answer"]:
            self.carried_out.clear()
            network = self.network({kind: 1.0})
            self.assertEqual(self.ask(network.links(), times=30), 0)
            self.assertEqual((network.counts["s3", kind], len(self.carried_out)), (30, 30))

    def test_a_request_that_is_held_takes_effect_after_it_was_given_up(self):
        network = self.network({"request held": 1.0})
        with unittest.mock.patch.object(networks, "HELD", (1, 1)):
            links = network.links()
            self.assertEqual((self.ask(links, timeout=0.3), self.carried_out), (0, []))
            deadline = time.monotonic() + 10
            while not self.carried_out and time.monotonic() < deadline:
                time.sleep(0.05)
        self.assertEqual(len(self.carried_out), 1)

    def test_an_answer_that_is_held_comes_late(self):
        network = self.network({"answer held": 1.0})
        with unittest.mock.patch.object(networks, "HELD", (0.5, 0.5)):
            begun = time.monotonic()
            self.assertEqual(self.ask(network.links()), 1)
        self.assertGreater(time.monotonic() - begun, 0.5)

    def test_a_partition_cuts_off_one_service_of_one_worker(self):
        network = self.network({})
        for kind in networks.PARTITIONS:
            self.carried_out.clear()
            mine, other = network.links(), network.links()
            self.assertFalse(mine.troubled(60))
            mine.partition("s3", kind, 1.0)
            self.assertTrue(mine.troubled(60))
            self.assertFalse(other.troubled(60))
            begun = time.monotonic()
            self.assertEqual(self.ask(mine, timeout=0.2), 0)
            self.assertEqual(self.ask(mine, "kinesis") + self.ask(other), 2)
            self.assertLess(time.monotonic() - begun, 1.0)
            time.sleep(1.2)
            self.assertEqual(self.ask(mine), 1)
            self.assertEqual((len(self.carried_out), network.counts["s3", kind]), (3, 1))

    def test_kinds_are_drawn_as_often_as_they_should_be(self):
        network = self.network(networks.PARTS)
        drawn = collections.Counter(network.draw() for _ in range(100_000))
        for kind, part in networks.PARTS.items():
            self.assertAlmostEqual(drawn[kind] / 100_000, part, delta=part / 4)


if __name__ == "__main__":
    unittest.main()
