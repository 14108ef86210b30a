"""The holdout of an environment: units that are in no rollout of it while it is set."""

from collections.abc import Sequence

from rollout.domain.document import Document, Problem
from rollout.domain.share import share_problems, width_of
from rollout_client.evaluation.ruleset import BUCKETS, Slice

SALT = "holdout/"
"""What the salt of a holdout begins with on the wire; no key of a flag can contain a slash."""
MOST = 50.0
"""Percent; more would leave the rollouts less than what they are compared with."""


class Holdout(Document, frozen=True, kw_only=True):
    """Which units are held out: `percentage` of them, drawn under `salt`.

    `unit` None holds out units of each rollout's own kind (users where users are randomised, sessions where sessions
    are); naming an attribute holds out all that belongs to one of its units, and whoever comes without it.

    Held-out units are in neither arm and no evidence; they get what everybody gets without the rollout, so also what a
    completed one released. A pinned conversation ends as it began. Overrides of single units and targeting rules are
    no rollouts and reach them too.

    A holdout changes who is in which arm of a running rollout only by leaving: the salts are independent, so both arms
    lose the same share, and nobody changes arms. Setting and growing it do only that. Anything else would bring units
    into running rollouts that no gate admitted, and is refused while a rollout is exposed (`holdout_refusal`).
    """

    percentage: float
    salt: str = "holdout"
    unit: str | None = None


def holdout_problems(holdout: Holdout | None) -> list[Problem]:
    """Problems of a holdout; without one there are none."""
    if holdout is None:
        return []
    problems = share_problems(holdout.percentage, "holdout.percentage", most=MOST)
    if not holdout.salt:
        problems.append(Problem("holdout.salt", "is empty; give a text, or leave it out"))
    if holdout.unit == "":
        problems.append(Problem("holdout.unit", "name an attribute, or leave it out for each rollout's own unit"))
    return problems


def holdout_refusal(before: Holdout | None, after: Holdout | None, exposed: Sequence[str]) -> Problem | None:
    """Why a holdout cannot change so while these rollouts are exposed, and what to do; None when it can."""
    if before is None or not exposed or before == after:
        return None
    if after is None:
        path, what = "holdout", "removing the holdout"
    elif after.salt != before.salt:
        path, what = "holdout.salt", "another salt"
    elif after.unit != before.unit:
        path, what = "holdout.unit", "another unit"
    elif after.percentage < before.percentage:
        path, what = "holdout.percentage", "a smaller holdout"
    else:
        return None
    running = ", ".join(exposed)
    return Problem(
        path,
        f"{what} would bring units into {running} that no gate has admitted; end what is exposed first, or keep "
        f"the holdout at {before.percentage:g} % or more, under the salt {before.salt!r} and of the same unit",
    )


def slice_of(holdout: Holdout) -> Slice:
    """The units that are not held out, as the rules of every rollout carry it; a growing holdout only takes away."""
    return Slice(salt=SALT + holdout.salt, start=width_of(holdout.percentage), end=BUCKETS, unit=holdout.unit)
