"""`e2e.engines` finds the faults that it exists for: other values, missing rows, rows that are there twice."""

import datetime
import unittest

from e2e import engines


def row(number, **values):
    at = datetime.datetime(2025, 1, 15, tzinfo=datetime.timezone.utc)
    return {"ingest_shard": "a", "ingest_sequence": str(number), "unique_text": "é", "double": -0.0, "at": at, "tags": None} | values


COLUMNS = ["unique_text", "double", "at", "tags"]


class Differences(unittest.TestCase):
    def setUp(self):
        found = [row(number) for number in range(3)]
        self.expected = {
            ("a", each["ingest_sequence"]): each | {name: engines.canonical(engines.KINDS[name], each[name]) for name in COLUMNS}
            for each in found
        }

    def differences(self, rows, **options):
        return engines.differences(rows, self.expected, COLUMNS, **options)

    def test_the_same_rows_in_another_order_are_right(self):
        self.assertEqual(self.differences([row(2), row(0), row(1)]), {})

    def test_other_values_are_found(self):
        rows = [row(0, unique_text=""), row(1, double=0.0), row(2, at=datetime.datetime(2025, 1, 15, 1))]
        self.assertEqual(self.differences(rows), {"unique_text": 1, "double": 1, "at": 1})

    def test_null_is_not_empty_unless_the_reader_has_no_null_lists(self):
        rows = [row(0, tags=[]), row(1), row(2)]
        self.assertEqual(self.differences(rows), {"tags": 1})
        self.assertEqual(self.differences(rows, empty_for_null=True), {})

    def test_missing_and_doubled_rows_are_found(self):
        for rows in ([row(0), row(1)], [row(0), row(0), row(1)], [row(0), row(1), row(2), row(2)]):
            with self.assertRaises(AssertionError):
                self.differences(rows)
