"""The fleet test's own checks find what they are for: each is shown a lake with one fault, and must tell it.

    python tests/fleet/test_checks.py
"""

import base64
import contextlib
import gzip
import http.server
import json
import pathlib
import random
import sys
import tempfile
import threading
import unittest
import urllib.request

import pyarrow
import pyarrow.parquet

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import lake as lakes  # noqa: E402
import stream as streams  # noqa: E402
from lossy import LossyNetwork  # noqa: E402
from stream import fill  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "outside"))
from common import connect  # noqa: E402

SHARD = "shardId-000000000000"
GOOD = [b'{"n":0}', b'{"n":\n1}', b'{"n":2}']
BAD = b"\xff no record"


def truth():
    """Sequence 1 is an aggregate of three records, sequence 2 a plain bad one."""
    found = streams.Truth({}, {}, 1, 0, 0)
    entry = fill.aggregate([(f"key-{number}", data) for number, data in enumerate(GOOD)])
    with tempfile.TemporaryFile() as plain:
        for sequence, key, data in [("1", entry.key, entry.data), ("2", "key-bad", BAD)]:
            streams._take(found, SHARD, {"SequenceNumber": sequence, "PartitionKey": key, "Data": data}, plain)
    return found


class Lake:
    """A lake of one epoch, as it should be; a test changes one thing and writes it."""

    def __init__(self, folder):
        self.folder = folder
        self.rows = [("kinesis://s", SHARD, "1", sub, sub) for sub in range(3)]
        self.letters = [{"errorCode": "Decode.NotUtf8", "stream": "kinesis://s", "shardId": SHARD, "sequenceNumber": "2",
                         "subSequenceNumber": 0, "partitionKey": lakes.pseudonym("key-bad"), "rawData": base64.b64encode(BAD).decode()}]
        self.raw = [data.replace(b"\n", b" ") for data in GOOD] + [BAD]
        self.more = []

    def write(self):
        objects = {}
        path = self.folder / "processed/events/year=2025/a.parquet"
        path.parent.mkdir(parents=True)
        names = ["ingest_stream", "ingest_shard", "ingest_sequence", "ingest_subsequence", "n"]
        columns = dict(zip(names, map(list, zip(*self.rows)))) | {"ingest_arrival_time": [0] * len(self.rows)}
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        objects["processed/events/year=2025/a.parquet"] = path.stat().st_size
        for key, lines in [("error/reason=Decode.NotUtf8/a.json.gz", [json.dumps(x).encode() for x in self.letters]),
                           ("raw/events/a.json.gz", self.raw)]:
            path = self.folder / key
            path.parent.mkdir(parents=True)
            path.write_bytes(gzip.compress(b"".join(line + b"\n" for line in lines)))
            objects[key] = path.stat().st_size
        self.keys = [*objects, *self.more, "_commits/e.json"]
        self.commits = [{"epoch": "e", "objects": [{"key": key, "bytes": size} for key, size in objects.items()],
                         "totals": {"records": 4}}]

    def check(self):
        self.write()
        known = truth()
        lakes.check_objects(self.folder, self.keys, self.commits)
        rows, codes = lakes.check_positions(connect(), self.folder, "s", known)
        lakes.check_raw(self.folder, known)
        lakes.check_sums(self.commits, known)
        return rows, sum(codes.values())


class Checks(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.lake = Lake(pathlib.Path(folder.name))

    def fault(self, words):
        with self.assertRaisesRegex(AssertionError, words):
            self.lake.check()

    def test_a_whole_lake_has_no_fault(self):
        self.assertEqual(self.lake.check(), (3, 1))

    def test_a_lost_row_is_told(self):
        self.lake.rows.pop()
        self.fault("neither a row nor a dead letter")

    def test_a_row_that_is_there_twice_is_told(self):
        self.lake.rows.append(self.lake.rows[0])
        self.fault("more than once")

    def test_a_record_that_is_a_row_and_a_dead_letter_is_told(self):
        self.lake.letters.append(self.lake.letters[0] | {
            "sequenceNumber": "1", "partitionKey": lakes.pseudonym("key-0"), "rawData": base64.b64encode(GOOD[0]).decode()})
        self.fault("more than once")

    def test_a_row_of_no_record_is_told(self):
        self.lake.rows.append(("kinesis://s", SHARD, "3", 0, 0))
        self.fault("no record of the stream")

    def test_a_dead_letter_with_other_bytes_is_told(self):
        self.lake.letters[0]["rawData"] = base64.b64encode(b"x").decode()
        self.fault("other bytes")

    def test_a_dead_letter_with_another_partition_key_is_told(self):
        self.lake.letters[0]["partitionKey"] = lakes.pseudonym("key-0")
        self.fault("another partition key")

    def test_rows_of_two_streams_are_told(self):
        self.lake.rows[0] = ("kinesis://other", *self.lake.rows[0][1:])
        self.fault("these streams")

    def test_a_lost_raw_line_is_told(self):
        self.lake.raw.pop()
        self.fault("lacks 1 lines and has 0")

    def test_a_raw_line_too_many_is_told(self):
        self.lake.raw.append(GOOD[0])
        self.fault("lacks 0 lines and has 1")

    def test_an_object_of_no_commit_record_is_told(self):
        self.lake.more.append("processed/events/year=2025/b.parquet")
        self.fault("no commit record")

    def test_values_that_differ_are_told(self):
        self.lake.write()
        other = Lake(self.lake.folder / "other")
        other.rows[1] = (*other.rows[1][:4], 7)
        other.write()
        with self.assertRaisesRegex(AssertionError, "events: 1 rows"):
            lakes.check_values(connect(), self.lake.folder, other.folder)
        lakes.check_values(connect(), self.lake.folder, self.lake.folder)


class Filling(unittest.TestCase):
    def test_what_is_packed_is_opened_again(self):
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

    def test_a_record_that_nobody_put_is_told(self):
        filler = fill.Filler.__new__(fill.Filler)
        known = truth()
        filler.accepted = [(*place, record.sha256) for place, record in known.users.items() if place[1] == "1"]
        filler.uncertain = []
        with self.assertRaisesRegex(AssertionError, "nobody put"):
            streams.check_accepted(filler, known)
        filler.uncertain = [fill.sha256(BAD)]
        self.assertEqual(streams.check_accepted(filler, known), 1)
        filler.accepted.append((SHARD, "9", 0, ""))
        with self.assertRaisesRegex(AssertionError, "lost what it had accepted"):
            streams.check_accepted(filler, known)


class Lossy(unittest.TestCase):
    def test_requests_are_lost_before_and_after_they_took_effect(self):
        carried_out = []

        class Service(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                carried_out.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_args):
                pass

        service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
        self.addCleanup(service.server_close)
        self.addCleanup(service.shutdown)
        threading.Thread(target=service.serve_forever, daemon=True).start()
        network = LossyNetwork({"AWS_ENDPOINT_URL": f"http://127.0.0.1:{service.server_port}", "OTHER": "x"}, 0.5, seed=1)
        self.assertEqual(network.environment["OTHER"], "x")
        answered = 0
        for _ in range(200):
            with contextlib.suppress(OSError):
                with urllib.request.urlopen(network.environment["AWS_ENDPOINT_URL"], b"x" * 100_000, timeout=5) as answer:
                    answered += answer.read() == b"ok"
        self.assertEqual(network.requests, 200)
        self.assertGreater(network.lost_before, 20)
        self.assertGreater(network.lost_after, 20)
        self.assertEqual(len(carried_out), 200 - network.lost_before)
        self.assertEqual(answered, 200 - network.lost_before - network.lost_after)


if __name__ == "__main__":
    unittest.main()
