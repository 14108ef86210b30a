"""GrowthBook's sequential test: its own package on a sample of looks, the same formula as arrays on all of them.

gbstats 0.8.0 is no dependency of this project. The bench installs it, locked by hash and without what it pins, into
`.tools/peers`, which is on the import path for that one import only. Without it, the race goes on without GrowthBook.
"""

import math
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benches._stats.streams import Arms

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Kind = Literal["proportion", "mean"]

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".tools" / "peers"
LOCK = Path(__file__).with_name("peers.txt")

VERSION = "0.8.0"
TUNING = 5000.0  # N*, the package's default
CLOSE = 1e-9
SAMPLED_LOOKS = 15  # every so many looks, a few replications are put to the package itself
SAMPLED_ROWS = 2


def install() -> bool:
    """Put the package into its folder if it is not there; whether it can be used."""
    if package() is not None:
        return True
    import dev

    options = ["--quiet", "--no-deps", "--require-hashes", "--target", str(FOLDER), "-r", str(LOCK)]
    command = [*dev.PIP, "install", *options]
    subprocess.run(command, env=dev.pip_environment(), stdin=subprocess.DEVNULL, capture_output=True)
    package.cache_clear()
    return package() is not None


@cache
def package() -> SimpleNamespace | None:
    """What of gbstats is used here; None if it is not installed."""
    if not FOLDER.is_dir():
        return None
    sys.path.append(str(FOLDER))
    try:
        from gbstats.frequentist import tests
        from gbstats.models import statistics
    except ImportError:
        return None
    finally:
        sys.path.remove(str(FOLDER))
    return SimpleNamespace(
        Test=tests.SequentialTwoSidedTTest,
        Config=tests.SequentialConfig,
        Proportion=statistics.ProportionStatistic,
        Mean=statistics.SampleMeanStatistic,
    )


def half_width(arms: Arms, alpha: float, *, relative: bool) -> tuple[Floats, Floats]:
    """Estimate and half-width of the confidence sequence, each (R,); not a number where the package has no result.

    Eq. 9 and 161 of Waudby-Smith et al. (arXiv:2103.06476v7) as gbstats writes them, with N = n_t + n_c as time.
    """
    n_t, mean_t, var_t, n_c, mean_c, var_c = arms
    with np.errstate(all="ignore"):
        if relative:
            estimate = (mean_t - mean_c) / mean_c
            variance = var_t / (mean_c**2 * n_t) + var_c * mean_t**2 / (mean_c**4 * n_c)
        else:
            estimate, variance = mean_t - mean_c, var_t / n_t + var_c / n_c
        total = n_t + n_c
        rho2 = (-2.0 * math.log(alpha) + math.log(-2.0 * math.log(alpha) + 1.0)) / TUNING
        spread = total * rho2 + 1.0
        width = np.sqrt(variance * total * 2.0 * spread * np.log(np.sqrt(spread) / alpha) / (total**2 * rho2))
    silent = (mean_c == 0.0) | ~(var_t > 0.0) | ~(var_c > 0.0)
    return estimate, np.where(silent, np.nan, width)


class GrowthBook:
    """The test at each look: harm if the lower limit is above 0, advance if the upper one is below the margin.

    Attributes:
        largest_difference: between the package's limits and the formula's, relative to the half-width, so far.
        compared: how many results of the package that was.
    """

    def __init__(
        self,
        name: str,
        alpha: float = 0.05,
        *,
        relative: bool = False,
        margin: float | None = None,
        kind: Kind = "proportion",
        checked: bool = True,
    ) -> None:
        self.lines: Mapping[str, float] = {name: 0.0}
        self.alpha, self.relative, self.margin, self.kind = alpha, relative, margin, kind
        self.checked = checked
        self.largest_difference, self.compared = 0.0, 0

    def look(self, seen: Any, waiting: Ints) -> Floats:
        """How far the limit is beyond the line, (R,)."""
        estimate, width = half_width(seen.arms, self.alpha, relative=self.relative)
        if self.checked and seen.number % SAMPLED_LOOKS == 0:
            for row in waiting[:SAMPLED_ROWS].tolist():
                self._compare(Arms(*(float(column[row]) for column in seen.arms)), estimate[row], width[row])
        return estimate - width if self.margin is None else self.margin - (estimate + width)

    def _compare(self, arms: Arms, estimate: float, width: float) -> None:
        if not (arms.n_t > 1 and arms.n_c > 1):
            return
        low, high = limits_of_the_package(arms, self.alpha, self.relative, self.kind)
        self.compared += 1
        if math.isnan(width):  # the package must have no result either
            difference = max(abs(low), abs(high))
        else:
            difference = max(abs(low - (estimate - width)), abs(high - (estimate + width))) / width
        self.largest_difference = max(self.largest_difference, difference)


def limits_of_the_package(arms: Arms, alpha: float, relative: bool, kind: Kind) -> tuple[float, float]:
    """The confidence limits that gbstats itself computes; (0, 0) is its "no result"."""
    gbstats = package()
    assert gbstats is not None
    statistics = []
    for n, mean, variance in ((arms.n_c, arms.mean_c, arms.var_c), (arms.n_t, arms.mean_t, arms.var_t)):
        total = mean * n
        if kind == "proportion":
            statistics.append(gbstats.Proportion(n=int(n), sum=round(total)))
        else:
            squares = variance * (n - 1.0) + total * total / n
            statistics.append(gbstats.Mean(n=int(n), sum=total, sum_squares=squares))
    config = gbstats.Config(alpha=alpha, difference_type="relative" if relative else "absolute")
    low, high = gbstats.Test(*statistics, config).compute_result().ci
    return float(low), float(high)
