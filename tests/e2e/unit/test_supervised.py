"""The supervisor's judgement of logs and of workers that end (`e2e.chaos.supervised`)."""

import random
import unittest

from e2e.chaos import supervised
from e2e.common.session import until
from e2e.unit import FolderTest


class Logs(unittest.TestCase):
    def test_reports_a_crash(self):
        for text in ["thread 'main' (7) panicked at src/worker/epoch.rs:76:9:", "stack backtrace:\n   0: rust_begin_unwind"]:
            with self.assertRaisesRegex(AssertionError, "crashed"):
                supervised.check_log("worker 1", text, set())
        supervised.check_log("worker 1", "WARN retrying error=could not write _intents/a.json: lost wait_ms=99", set())

    def test_reports_personal_values_and_does_not_repeat_them(self):
        lines = [b'{"user_id":"u-000007","email":"jane@example.org","plan":"free","tags":["beta-tester"]}',
                 b'{"client":{"client_id":"24aa629d-4bd3"},"client_context":{"custom":{"endpoint":"{\\"Address\\":\\"+13125550132\\"}"}}}',
                 b"not a record"]
        personal = supervised.personal_values(lines)
        self.assertEqual(personal, {"u-000007", "jane@example.org", "24aa629d-4bd3", "+13125550132"})
        for value in personal:
            with self.assertRaises(AssertionError) as report:
                supervised.check_log("worker 1", f'WARN a record of user "{value}" failed', personal)
            self.assertNotIn(value, str(report.exception))
        with self.assertRaisesRegex(AssertionError, "e-mail address"):
            supervised.check_log("worker 1", "WARN someone@example.org", personal)

    def test_last_words_are_the_last_sentence_of_the_worker_itself(self):
        text = "WARN x\nshardlake: first\nCommitted before it failed: 3 records\nshardlake: could not sync the lake: full\n"
        self.assertEqual(supervised.last_words(text), "shardlake: could not sync the lake: full")
        self.assertEqual(supervised.last_words("WARN the key of shardlake: x"), "")


class Supervision(FolderTest):
    def fleet(self, script, allowed):
        fleet = supervised.Supervised(["sh", "-c", script], 1, self.folder, random.Random(1), {}, log=lambda _: None)
        self.addCleanup(fleet.end)
        fleet.allowed = allowed
        fleet.workers[0].process.wait()
        return fleet

    def test_reports_a_worker_that_ends_without_a_reason(self):
        with self.assertRaisesRegex(AssertionError, "the suite gave it no reason"):
            self.fleet("echo 'shardlake: disk full'; exit 1", None).watch()

    def test_reports_a_worker_that_ends_for_another_reason(self):
        with self.assertRaisesRegex(AssertionError, "do not match 'disk full'"):
            self.fleet("echo 'shardlake: bored'; exit 1", "disk full").watch()
        with self.assertRaisesRegex(AssertionError, "do not match 'disk full'"):
            self.fleet("echo 'disk full'; exit 1", "disk full").watch()

    def test_reports_other_exit_codes(self):
        for script, code in [("exit 0", 0), ("kill -ABRT $$", -6), ("exit 101", 101)]:
            with self.assertRaisesRegex(AssertionError, f"exit code {code}, not with 1 or 2"):
                self.fleet(f"echo 'shardlake: disk full'; {script}", "disk full").watch()

    def test_reports_a_crash_even_where_an_end_is_allowed(self):
        with self.assertRaisesRegex(AssertionError, "crashed"):
            self.fleet("echo 'panicked at x'; echo 'shardlake: disk full'; exit 1", "disk full").watch()

    def test_counts_a_plain_end_and_starts_the_worker_again(self):
        fleet = self.fleet("echo 'shardlake: disk full'; exit 1", "disk full")
        fleet.watch()
        self.assertEqual((fleet.refusals, fleet.workers), ([("worker 1", "shardlake: disk full")], []))
        until(lambda: fleet.started == 2, 10, "the worker was not started again", fleet.watch)
