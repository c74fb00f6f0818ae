"""The judgement of a number that was sampled for a long time (`e2e.chaos.slopes`)."""

import random
import unittest

from e2e.chaos import slopes


class Slopes(unittest.TestCase):
    def samples(self, minutes=30, **changes):
        """A worker whose memory goes up and down by 4 MiB, with 20 descriptors, sampled every two seconds."""
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

    def test_finds_a_leak(self):
        self.assertEqual(self.growing(rss=lambda at: int(at / 3600 * (8 << 20))), ["rss"])
        self.assertEqual(self.growing(anonymous=lambda at: int(at / 3600 * (8 << 20))), ["anonymous"])
        self.assertEqual(self.growing(descriptors=lambda at: at // 300), ["descriptors"])
        self.assertEqual(self.growing(threads=lambda at: at // 300), ["threads"])

    def test_finds_a_large_leak_in_a_minute(self):
        self.assertEqual(self.growing(minutes=1, rss=lambda at: at << 18), ["rss"])

    def test_a_warm_up_and_a_peak_are_not_a_leak(self):
        self.assertEqual(self.growing(rss=lambda at: min(at, 300) << 16), [])
        self.assertEqual(self.growing(rss=lambda at: (900 < at < 960) * (64 << 20)), [])

    def test_the_slope_is_right(self):
        slope, intercept = slopes.theil_sen([(x, 3 * x + 5) for x in range(100)] + [(100, 10_000)])
        self.assertAlmostEqual(slope, 3)
        self.assertAlmostEqual(intercept, 5)

    def test_a_share_of_the_shards_that_comes_and_goes_is_not_a_leak(self):
        self.assertEqual(self.growing(rss=lambda at: (at // 45 % 2 if at < 900 else at % 45 > 3) * (8 << 20)), [])

    def test_too_few_samples_are_refused(self):
        with self.assertRaisesRegex(AssertionError, "too few"):
            slopes.judge(self.samples(minutes=0.2))
