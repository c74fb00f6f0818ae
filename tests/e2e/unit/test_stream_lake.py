"""The checks of a lake that was filled from a stream (`e2e.common.checks`), and of what a stream accepted."""

import base64
import gzip
import json
import random
import tempfile
import unittest

import pyarrow
import pyarrow.parquet

from e2e.common import checks, fill, stream as streams
from e2e.common.lake import connect
from e2e.unit import FolderTest

SHARD = "shardId-000000000000"
GOOD = [b'{"n":0}', b'{"n":\n1}', b'{"n":2}']
BAD = b"\xff not a record"


def make_truth():
    """Sequence 1 is an aggregate of three records, sequence 2 a plain bad one."""
    truth = streams.Truth({}, {}, 1, 0, 0)
    entry = fill.aggregate([(f"key-{number}", data) for number, data in enumerate(GOOD)])
    with tempfile.TemporaryFile() as plain:
        for sequence, key, data in [("1", entry.key, entry.data), ("2", "key-bad", BAD)]:
            truth.take(SHARD, {"SequenceNumber": sequence, "PartitionKey": key, "Data": data}, plain)
    return truth


class Lake:
    """A correct lake of one epoch. A test changes one thing before it is written."""

    def __init__(self, folder):
        self.folder = folder
        self.rows = [("kinesis://s", SHARD, "1", sub, sub) for sub in range(3)]
        self.dead = [{"errorCode": "Decode.NotUtf8", "stream": "kinesis://s", "shardId": SHARD, "sequenceNumber": "2",
                      "subSequenceNumber": 0, "partitionKey": checks.pseudonym("key-bad"),
                      "rawData": base64.b64encode(BAD).decode()}]
        self.raw = [data.replace(b"\n", b" ") for data in GOOD] + [BAD]
        self.more_keys = []

    def write(self):
        objects = {}
        path = self.folder / "processed/events/year=2025/a.parquet"
        path.parent.mkdir(parents=True)
        names = ["ingest_stream", "ingest_shard", "ingest_sequence", "ingest_subsequence", "n"]
        columns = dict(zip(names, map(list, zip(*self.rows)))) | {"ingest_arrival_time": [0] * len(self.rows)}
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        objects["processed/events/year=2025/a.parquet"] = path.stat().st_size
        for key, lines in [("error/reason=Decode.NotUtf8/a.json.gz", [json.dumps(dead).encode() for dead in self.dead]),
                           ("raw/events/a.json.gz", self.raw)]:
            path = self.folder / key
            path.parent.mkdir(parents=True)
            path.write_bytes(gzip.compress(b"".join(line + b"\n" for line in lines)))
            objects[key] = path.stat().st_size
        self.keys = [*objects, *self.more_keys, "_commits/e.json"]
        self.commits = [{"epoch": "e", "objects": [{"key": key, "bytes": size} for key, size in objects.items()],
                         "totals": {"records": 4}}]

    def check(self):
        self.write()
        truth = make_truth()
        checks.check_objects(self.folder, self.keys, self.commits)
        rows, codes = checks.check_stream_positions(connect(), self.folder, "s", truth)
        checks.check_raw(self.folder, truth)
        checks.check_totals(self.commits, truth)
        return rows, codes.total()


class StreamLakeChecks(FolderTest):
    def setUp(self):
        super().setUp()
        self.lake = Lake(self.folder)

    def assert_fault(self, message):
        with self.assertRaisesRegex(AssertionError, message):
            self.lake.check()

    def test_a_correct_lake_has_no_fault(self):
        self.assertEqual(self.lake.check(), (3, 1))

    def test_reports_a_lost_row(self):
        self.lake.rows.pop()
        self.assert_fault("neither a row nor a dead letter")

    def test_reports_a_row_that_landed_twice(self):
        self.lake.rows.append(self.lake.rows[0])
        self.assert_fault("more than once")

    def test_reports_a_record_that_is_a_row_and_a_dead_letter(self):
        self.lake.dead.append(self.lake.dead[0] | {
            "sequenceNumber": "1", "partitionKey": checks.pseudonym("key-0"), "rawData": base64.b64encode(GOOD[0]).decode()})
        self.assert_fault("more than once")

    def test_reports_a_row_of_no_record(self):
        self.lake.rows.append(("kinesis://s", SHARD, "3", 0, 0))
        self.assert_fault("of no record")

    def test_reports_a_dead_letter_with_other_bytes(self):
        self.lake.dead[0]["rawData"] = base64.b64encode(b"x").decode()
        self.assert_fault("other bytes")

    def test_reports_a_dead_letter_with_another_partition_key(self):
        self.lake.dead[0]["partitionKey"] = checks.pseudonym("key-0")
        self.assert_fault("another partition key")

    def test_reports_rows_of_another_stream(self):
        self.lake.rows[0] = ("kinesis://other", *self.lake.rows[0][1:])
        self.assert_fault("these streams")

    def test_reports_a_lost_raw_line(self):
        self.lake.raw.pop()
        self.assert_fault("lacks 1 lines and has 0")

    def test_reports_a_surplus_raw_line(self):
        self.lake.raw.append(GOOD[0])
        self.assert_fault("lacks 0 lines and has 1")

    def test_reports_an_object_that_no_commit_record_names(self):
        self.lake.more_keys.append("processed/events/year=2025/b.parquet")
        self.assert_fault("no commit record")

    def test_reports_values_that_differ(self):
        self.lake.write()
        other = Lake(self.lake.folder / "other")
        other.rows[1] = (*other.rows[1][:4], 7)
        other.write()
        with self.assertRaisesRegex(AssertionError, "events: 1 rows"):
            checks.check_values(connect(), self.lake.folder, other.folder)
        checks.check_values(connect(), self.lake.folder, self.lake.folder)


class Filling(unittest.TestCase):
    def test_packed_records_open_again(self):
        lines = [b"%d" % number for number in range(1000)]
        entries = list(fill.pack(lines, random.Random(1), 30, plain=0.1, broken_part=0))
        opened = [data for entry in entries for _, data in fill.open_aggregate(entry.data) or [(None, entry.data)]]
        self.assertEqual(sorted(opened), sorted(lines))
        self.assertEqual([digest for entry in entries for digest in entry.users], [fill.sha256(data) for data in opened])

    def test_a_broken_aggregate_is_one_record(self):
        rng = random.Random(1)
        whole = fill.aggregate([("key", b"a"), ("other", b"b")])
        for _ in range(200):
            entry = fill.broken(whole, rng)
            self.assertIsNone(fill.open_aggregate(entry.data))
            self.assertEqual(entry.users, [fill.sha256(entry.data)])

    def test_reports_a_record_that_nobody_put(self):
        filler = fill.Filler.__new__(fill.Filler)
        truth = make_truth()
        filler.accepted = [(*position, record.sha256) for position, record in truth.users.items() if position[1] == "1"]
        filler.uncertain = []
        with self.assertRaisesRegex(AssertionError, "nobody put"):
            streams.check_accepted(filler, truth)
        filler.uncertain = [fill.sha256(BAD)]
        self.assertEqual(streams.check_accepted(filler, truth), 1)
        filler.accepted.append((SHARD, "9", 0, ""))
        with self.assertRaisesRegex(AssertionError, "lost a record that it had accepted"):
            streams.check_accepted(filler, truth)
