"""`rollout simulate`: what the plan in a file would do, from what is expected of it; asks no service."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rollout.cli.files import Authored, BadFile
from rollout.domain.cohort import Cohort
from rollout.domain.document import Problem
from rollout.domain.environment import Environment
from rollout.domain.expectation import Expectation, expectation_problems
from rollout.domain.flag import Flag
from rollout.domain.forecast import Fate, Forecast, forecast
from rollout.domain.metric import Metric
from rollout.domain.plan import Plan, PlanBody, RolloutDocument
from rollout.domain.plan_problems import plan_problems

D = TypeVar("D")


def simulate(documents: Sequence[Authored | Expectation]) -> Forecast:
    """The forecast of the one rollout, or else the one plan, among the documents.

    Raises:
        BadFile: not one of them, no expectation, or something wrong with either.
    """
    expected = _one([each for each in documents if isinstance(each, Expectation)], "Expectation")
    rollouts = [each for each in documents if isinstance(each, RolloutDocument)]
    plans = [each for each in documents if isinstance(each, Plan)]
    body = _body(_one(rollouts, "Rollout"), plans) if rollouts else _one(plans, "Rollout, or else one Plan")
    world = _World(documents)
    _refuse("the plan", plan_problems(body, world))
    _refuse("the expectation", expectation_problems(expected, body, world.metrics))
    try:
        return forecast(body, world.metrics, expected)
    except ValueError as error:
        raise BadFile(str(error)) from error


def lines(found: Forecast) -> Iterator[str]:
    """The forecast as people read it."""
    without, *worse = found.fates
    yield f"{found.runs} runs each, a look every {_minutes(found.minutes_per_look)}"
    wrongly = f"{without.rolled_back:.1%} taken back wrongly"
    yield f"no difference: {_parts(without)}; {_span(without.hours)} until it ends; {wrongly}"
    for stage in found.stages:
        last = ", ".join(f"{name} in {part:.0%}" for name, part in sorted(stage.last.items(), key=lambda i: -i[1]))
        yield f"  stage {stage.stage} ({stage.percentage:g} %): {_span(stage.hours)}; passed last: {last}"
    for fate in worse:
        yield _fate(fate)
    for each in found.left_out:
        yield f"not simulated: {each}"


class _World:
    """What the files know of what a plan may name; cohorts and flags are the service's to check."""

    def __init__(self, documents: Sequence[Authored | Expectation]) -> None:
        self.metrics = {each.key: each for each in documents if isinstance(each, Metric)}
        self.flags = {each.key: each for each in documents if isinstance(each, Flag)}
        self.cohorts = {each.key: each for each in documents if isinstance(each, Cohort)}
        self.environments = frozenset(each.key for each in documents if isinstance(each, Environment))


def _body(document: RolloutDocument, plans: Sequence[Plan]) -> PlanBody:
    if document.plan is None:
        return document
    key = document.plan.partition("@")[0]
    named = next((plan for plan in plans if plan.key == key), None)
    if named is None:
        raise BadFile(f"the rollout names the plan {key!r}, which is in none of the files; add its file with -f")
    return document.filled(named, document.plan)


def _one(found: Sequence[D], kind: str) -> D:
    if len(found) != 1:
        raise BadFile(f"give exactly one document of kind {kind}; the files have {len(found)}")
    return found[0]


def _refuse(what: str, problems: Sequence[Problem]) -> None:
    if problems:
        raise BadFile("\n".join(f"{what}: {problem.path}: {problem.message}" for problem in problems))


def _parts(fate: Fate) -> str:
    parts = {"taken back": fate.rolled_back, "completed": fate.completed, "undecided": fate.undecided}
    return ", ".join(f"{part:.1%} {name}" for name, part in parts.items() if part) or "never reached"


def _fate(fate: Fate) -> str:
    regression = fate.regression
    assert regression is not None
    ended = f"{_span(fate.hours)} until it ends"
    if fate.until_rollback is not None and fate.rolled_back >= 0.5:
        ended = f"{_span(fate.until_rollback)} until then"
    harmed = ""
    if fate.events is not None and fate.units_harmed is not None:
        harmed = f"; {fate.events:,.0f} events too many, met by {fate.units_harmed:,.0f} of them"
    return (
        f"{regression.metric} x {regression.times:g} from stage {fate.stage} on: {_parts(fate)}; {ended}, "
        f"{fate.requests:,} requests of {fate.units:,} units to the candidate{harmed}"
    )


def _span(hours: tuple[float, float]) -> str:
    return f"{hours[0]:.1f} h (nine in ten within {hours[1]:.1f} h)"


def _minutes(minutes: int) -> str:
    return "minute" if minutes == 1 else f"{minutes} minutes"
