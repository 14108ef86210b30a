"""Units that come back, in numbers of units: how often each has come, how many have met the candidate.

N units, each request made by any of them with the same chance. A unit's place is fixed: it has the baseline until a
stage reaches it and the candidate from then on, so a *group* g of units joins the candidate at stage g, and the last
group never does.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CANDIDATE, BASELINE = 0, 1


@dataclass(frozen=True, slots=True)
class Population:
    """Who makes the requests of a rollout.

    Attributes:
        units: how many different ones, N.
        percentages: of the S stages, rising, each above 0 and below 100.
    """

    units: float
    percentages: tuple[float, ...]

    @property
    def groups(self) -> Floats:
        """Units that join the candidate at each stage, and those that never do, (S + 1,)."""
        shares = np.array([0.0, *self.percentages, 100.0]) / 100.0
        return np.asarray(self.units * np.diff(shares), np.float64)

    def members(self, stage: int) -> Floats:
        """Units of each arm in a stage, (2,): candidate, baseline."""
        share = self.percentages[stage] / 100.0
        return self.units * np.array([share, 1.0 - share])

    def visits(self, requests: Floats) -> Floats:
        """Requests that a unit of each group has made in each arm, (2, S + 1, r), from requests (S, r, 2)."""
        stages = len(self.percentages)
        members = np.stack([self.members(stage) for stage in range(stages)])  # (S, 2)
        joined = np.arange(stages + 1)[:, None] <= np.arange(stages)[None, :]  # (S + 1, S)
        per_unit = requests / members[:, None, :]
        return np.stack([joined @ per_unit[..., CANDIDATE], ~joined @ per_unit[..., BASELINE]])

    def returns(self, requests: Floats) -> Floats:
        """How many other requests of its own unit a request of each arm meets, on average, (2, r).

        sum_u m_u (m_u - 1) / sum_u m_u, where the m_u of a group are Poisson with its visits.
        """
        visits, groups = self.visits(requests), self.groups[None, :, None]
        made = (groups * visits).sum(axis=1)
        return np.asarray((groups * visits**2).sum(axis=1) / np.where(made > 0.0, made, 1.0), np.float64)

    def met(self, requests: Floats) -> Floats:
        """Different units that have had the candidate, (r,), from its requests and the baseline's, (S, r, 2)."""
        return np.asarray(self.groups @ -np.expm1(-self.visits(requests)[CANDIDATE]), np.float64)
