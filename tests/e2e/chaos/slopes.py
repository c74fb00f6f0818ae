"""Whether a number that was sampled for a long time stays the same.

Owns: the fit and the judgement. The first fifth of the samples is warm-up and is left out. The rest is cut into `WINDOWS`, and the
lowest sample of each counts: what a worker uses when it is least busy. (Its peak depends on its share of the shards, which comes
and goes. Memory that it never returns raises the lowest sample.) The slope is the Theil-Sen estimator: the median of the slopes
between all pairs of points, which single outliers don't change.

A number grows when both hold:
- its slope, extrapolated to an hour, is more than `PART` (2 %) of its median, and
- it grew by more than its own noise in the measured time: `FLOOR` of its kind, and twice the median distance from the line.

The floor of memory is 2 MiB: free pieces of an allocator's heap. It is 4 MiB in a run of less than ten minutes, because a process
takes its working memory in its first minutes. So a run of half an hour finds a leak of 6 MiB an hour, or of four file descriptors an
hour. A run with ten times the `--rate` finds leaks per record, file or epoch ten times as well.
"""

import itertools
import statistics

MEMORY = ("rss", "anonymous")
WARM_UP, PART, WINDOWS = 0.2, 0.02, 12
FLOOR = {"rss": 2 << 20, "anonymous": 2 << 20, "descriptors": 1.5, "threads": 1.5}
SHORT, FLOOR_OF_SHORT = 600, 4 << 20  # seconds, bytes


def theil_sen(points):
    """Slope and intercept of (x, y) points."""
    pairs = itertools.combinations(points, 2)
    slopes = [(right[1] - left[1]) / (right[0] - left[0]) for left, right in pairs if right[0] > left[0]]
    slope = statistics.median(slopes)
    return slope, statistics.median(y - slope * x for x, y in points)


def lowest(points):
    """The lowest point of each window."""
    first, last = points[0][0], points[-1][0]
    windows = {}
    for point in points:
        window = min(WINDOWS - 1, int(WINDOWS * (point[0] - first) / (last - first)))
        windows[window] = min(windows.get(window, point), point, key=lambda point: point[1])
    return [windows[window] for window in sorted(windows)]


class Fit:
    """The judgement of one number. `points`: (seconds, value)."""

    def __init__(self, name, points):
        assert len(points) >= 2 * WINDOWS, f"{name}: {len(points)} samples are too few to judge"
        self.name = name
        first, last = points[0][0], points[-1][0]
        warm = [point for point in points if point[0] >= first + WARM_UP * (last - first)]
        self.start, self.median = warm[0][1], statistics.median(value for _, value in warm)
        self.most = max(value for _, value in points)
        quiet = lowest(warm)
        self.quiet = statistics.median(value for _, value in quiet)
        slope, intercept = theil_sen(quiet)
        self.seconds = last - first
        self.an_hour = slope * 3600
        self.grown = slope * (quiet[-1][0] - quiet[0][0])
        self.noise = statistics.median(abs(value - slope * at - intercept) for at, value in quiet)

    def allowed(self):
        """How much it may have grown in the measured time: its noise."""
        floor = FLOOR[self.name]
        if self.seconds < SHORT and self.name in MEMORY:
            floor = FLOOR_OF_SHORT
        return max(floor, 2 * self.noise)

    def grows(self):
        return self.an_hour > PART * self.quiet and self.grown > self.allowed()


def judge(samples):
    """The fit of each number, by name. `samples`: dicts of `seconds` and the numbers."""
    return {name: Fit(name, [(sample["seconds"], sample[name]) for sample in samples]) for name in FLOOR}


def show(name, value):
    return f"{value / (1 << 20):.1f} MiB" if name in MEMORY else f"{value:.1f}"


def table(fits):
    """The lines of a table: what was measured of each number."""
    lines = [f"{'':13}{'start':>11}{'median':>11}{'max':>11}{'lowest':>11}{'grown':>11}{'an hour':>12}{'of lowest':>11}  judged"]
    for name, fit in fits.items():
        cells = "".join(f"{show(name, value):>11}" for value in [fit.start, fit.median, fit.most, fit.quiet, fit.grown])
        part = f"{100 * fit.an_hour / fit.quiet:+.2f} %"
        judged = "GROWS" if fit.grows() else f"flat (noise {show(name, fit.allowed())})"
        lines.append(f"{name:13}{cells}{show(name, fit.an_hour):>12}{part:>11}  {judged}")
    return lines
