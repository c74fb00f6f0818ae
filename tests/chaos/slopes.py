"""Whether a number that was sampled for a long time stays where it is.

Owns: the fit and the judgement. The first fifth of the samples is warm-up and left out. The slope is Theil and Sen's: the median
of the slopes between all pairs of samples, which single outliers don't move.

A number is said to grow when both hold:
- its slope, carried on for an hour, is more than `PART` (2 %) of its median, and
- it grew more in the time that was measured than its own noise: `FLOOR` of its kind, and twice the median distance of samples from
  the line. (Memory goes up and down by the size of an epoch; in a short run that looks like a slope.)

So a run of half an hour finds a leak of some 2 MiB an hour, or of two file descriptors, and one of a minute only a great one.
"""

import random
import statistics

MEMORY = ("rss", "anonymous")
WARM_UP, PART, PAIRS = 0.2, 0.02, 50_000
FLOOR = {"rss": 1 << 20, "anonymous": 1 << 20, "descriptors": 1.5, "threads": 1.5}
# A process takes its working memory in its first minutes: that much in a run that is shorter than so many seconds.
SHORT, FLOOR_OF_SHORT = 600, 4 << 20


def theil_sen(points):
    """Slope and intercept of (x, y) points."""
    places = range(len(points))
    if len(points) * (len(points) - 1) // 2 <= PAIRS:
        pairs = [(i, j) for i in places for j in places if i < j]
    else:
        rng = random.Random(1)
        pairs = [sorted(rng.sample(places, 2)) for _ in range(PAIRS)]
    slopes = [(points[j][1] - points[i][1]) / (points[j][0] - points[i][0]) for i, j in pairs if points[j][0] > points[i][0]]
    slope = statistics.median(slopes)
    return slope, statistics.median(y - slope * x for x, y in points)


class Fit:
    """One number's samples, judged. `points`: (seconds, value)."""

    def __init__(self, name, points):
        assert len(points) >= 10, f"{name}: {len(points)} samples are too few to judge"
        self.name = name
        begun, ended = points[0][0], points[-1][0]
        warm = [point for point in points if point[0] >= begun + WARM_UP * (ended - begun)]
        values = [value for _, value in warm]
        self.start, self.median, self.most = warm[0][1], statistics.median(values), max(value for _, value in points)
        slope, intercept = theil_sen(warm)
        self.an_hour = slope * 3600
        self.seconds = ended - begun
        self.grown = slope * (warm[-1][0] - warm[0][0])
        self.noise = statistics.median(abs(value - slope * at - intercept) for at, value in warm)

    def allowed(self):
        """How much it may have grown in the time measured: its noise."""
        floor = FLOOR[self.name]
        if self.seconds < SHORT and self.name in MEMORY:
            floor = FLOOR_OF_SHORT
        return max(floor, 2 * self.noise)

    def grows(self):
        return self.an_hour > PART * self.median and self.grown > self.allowed()


def judge(samples):
    """`samples`: dicts of `seconds` and the numbers. The fits, by name."""
    return {name: Fit(name, [(sample["seconds"], sample[name]) for sample in samples]) for name in FLOOR}


def show(name, value):
    return f"{value / (1 << 20):.1f} MiB" if name in MEMORY else f"{value:.1f}"


def table(fits):
    """What was measured, a line for each number."""
    lines = [f"{'':13}{'start':>11}{'median':>11}{'max':>11}{'grown':>11}{'an hour':>12}{'of median':>11}  judged"]
    for name, fit in fits.items():
        cells = "".join(f"{show(name, value):>11}" for value in [fit.start, fit.median, fit.most, fit.grown])
        part = f"{100 * fit.an_hour / fit.median:+.2f} %"
        judged = "GROWS" if fit.grows() else f"flat (noise {show(name, fit.allowed())})"
        lines.append(f"{name:13}{cells}{show(name, fit.an_hour):>12}{part:>11}  {judged}")
    return lines
