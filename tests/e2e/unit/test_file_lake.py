"""The checks of a lake that was filled from files: the judge, the reader that watches it, snapshots, feeding, and the clock."""

import collections
import gzip
import json
import subprocess
import sys
import time

import pyarrow
import pyarrow.parquet

from e2e.chaos import judge
from e2e.chaos.feeder import Feeder, Mover
from e2e.chaos.refusals import snapshot
from e2e.chaos.watcher import Watcher
from e2e.common.lake import connect, source_lines
from e2e.unit import FolderTest

LINES = [b'{"n":0}\n', b'{"n":1}\n', b"\xff not a record\n"]


class LakeTest(FolderTest):
    """A source of three lines and its correct lake. A test changes one thing before it is written."""

    def setUp(self):
        super().setUp()
        self.source, self.lake = self.folder / "in", self.folder / "lake"
        self.source.mkdir()
        (self.source / "a.ndjson").write_bytes(b"".join(LINES))
        self.rows = [("file:///in", "a.ndjson", "0", 0), ("file:///in", "a.ndjson", "8", 0)]
        self.dead = [{"stream": "file:///in", "shardId": "a.ndjson", "sequenceNumber": "16", "subSequenceNumber": 0}]
        self.raw = list(LINES)

    def write(self):
        path = self.lake / "processed/events/year=2025/a.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        names = ["ingest_stream", "ingest_shard", "ingest_sequence", "ingest_subsequence"]
        pyarrow.parquet.write_table(pyarrow.table(dict(zip(names, map(list, zip(*self.rows))))), path)
        for key, lines in [("error/reason=x/a.json.gz", [json.dumps(dead).encode() + b"\n" for dead in self.dead]),
                           ("raw/events/a.json.gz", self.raw)]:
            path = self.lake / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(b"".join(lines)))
        (self.lake / "_staging").mkdir(exist_ok=True)


class Judge(LakeTest):
    def assert_fault(self, message, check):
        self.write()
        with self.assertRaisesRegex(AssertionError, message):
            check(connect(), self.lake, self.source)

    def test_a_correct_lake_has_no_fault(self):
        self.write()
        self.assertEqual(judge.check_positions(connect(), self.lake, self.source), (3, 2, 1))
        self.assertEqual(judge.check_content(connect(), self.lake, self.source), 3)
        judge.check_swept(self.lake)

    def test_reports_a_lost_row(self):
        self.rows.pop()
        self.assert_fault("neither a row nor a dead letter", judge.check_positions)
        self.assert_fault("2 rows and dead letters of 3", judge.check_content)

    def test_reports_a_row_that_landed_twice(self):
        self.rows.append(self.rows[0])
        self.assert_fault("more than once", judge.check_positions)
        self.assert_fault("more than once", judge.check_content)

    def test_reports_a_record_that_is_a_row_and_a_dead_letter(self):
        self.dead.append(self.dead[0] | {"sequenceNumber": "8"})
        self.assert_fault("more than once", judge.check_positions)
        self.assert_fault("more than once", judge.check_content)

    def test_reports_a_row_of_no_record(self):
        self.rows.append(("file:///in", "a.ndjson", "9", 0))
        self.assert_fault("of no record", judge.check_positions)
        self.assert_fault("4 rows and dead letters of 3", judge.check_content)

    def test_reports_a_lost_or_changed_raw_line(self):
        self.raw[0] = b'{"n":7}\n'
        self.assert_fault("lacks 1 lines and has 1", judge.check_content)
        self.raw.pop()
        self.assert_fault("raw/ has 2 lines", judge.check_positions)

    def test_reports_what_a_sweep_left_behind(self):
        for key in ["_staging/put-x", "_intents/x.json"]:
            self.write()
            (self.lake / key).parent.mkdir(exist_ok=True)
            (self.lake / key).touch()
            with self.assertRaisesRegex(AssertionError, key):
                judge.check_swept(self.lake)
            (self.lake / key).unlink()

    def test_a_snapshot_shows_what_was_touched(self):
        self.write()
        before = snapshot(self.folder)
        (self.source / "a.ndjson").write_bytes(b"".join(reversed(LINES)))
        (self.folder / "new").mkdir()
        after = snapshot(self.folder)
        self.assertEqual({path for path in before.keys() | after.keys() if before.get(path) != after.get(path)},
                         {"in/a.ndjson", "new"})

    def test_only_the_wall_clock_is_ahead(self):
        script = "import time; print(time.time(), time.monotonic())"
        environment = {"LD_PRELOAD": str(judge.build_clock()), "LATER_S": "90000"}
        now, monotonic = time.time(), time.monotonic()
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
        later, same = map(float, done.stdout.split())
        self.assertAlmostEqual(later - now, 90_000, delta=30)
        self.assertAlmostEqual(same - monotonic, 0, delta=30)


class Watching(LakeTest):
    def watched(self):
        watcher = Watcher(self.lake)
        watcher.scan()
        watcher.count()
        return watcher

    def test_a_correct_lake_has_no_fault(self):
        self.write()
        watcher = self.watched()
        self.assertEqual((watcher.faults, watcher.rows, len(watcher.seen)), ([], 2, 3))

    def test_reports_part_of_a_file(self):
        for key in ["processed/events/year=2025/a.parquet", "raw/events/a.json.gz"]:
            self.write()
            path = self.lake / key
            path.write_bytes(path.read_bytes()[:-20])
            watcher = Watcher(self.lake)
            watcher.scan()
            self.assertEqual([fault.split(":")[0] for fault in watcher.faults], [key])

    def test_reports_a_row_that_landed_twice_and_rows_that_vanished(self):
        self.rows.append(self.rows[0])
        self.write()
        watcher = self.watched()
        self.assertRegex(watcher.faults[0], "1 of 3 rows were there twice")
        self.rows = self.rows[:1]
        self.write()
        watcher.count()
        self.assertRegex(watcher.faults[1], "there were 3 rows, and then 1")

    def test_waits_for_a_lake_that_was_taken_away(self):
        self.write()
        watcher = self.watched()
        self.lake.rename(self.folder / "away")
        watcher.scan()
        watcher.count()
        self.assertEqual((watcher.faults, watcher.rows), ([], 2))


class Feeding(FolderTest):
    def test_all_lines_arrive_once_and_whole(self):
        records = self.folder / "records"
        records.write_bytes(b"".join(b'{"n":%d}\n' % number for number in range(20_000)))
        for number, kind in enumerate(["grow", "move"]):
            source = self.folder / f"in-{number}"
            source.mkdir()
            if kind == "grow":
                feeder = Feeder(records, source, 1e6, seed=1)
            else:
                feeder = Mover(records, self.folder / "staging", source, 1e6, seed=1)
            feeder.start()
            feeder.join(60)
            feeder.finish()
            found = collections.Counter(line for path in source.iterdir() for line in path.read_bytes().splitlines())
            self.assertEqual(found, collections.Counter(records.read_bytes().splitlines()))
            if kind == "grow":
                self.assertEqual(len(list(source_lines(source))), 20_000)

    def test_reports_a_failure_of_the_feeder(self):
        feeder = Feeder(self.folder / "nothing", self.folder, 100, seed=1)
        feeder.start()
        with self.assertRaisesRegex(AssertionError, "failed to feed the source"):
            feeder.finish()
