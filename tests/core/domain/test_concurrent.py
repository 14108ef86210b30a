"""Whom a rollout may meet: the same units or the same guardrail, unless a group or listed cohorts keep them apart."""

from typing import Any

import pytest

from rollout.domain import transition
from rollout.domain.cohort import Cohort
from rollout.domain.compile import Running
from rollout.domain.concurrent import Concurrent, concurrent, warning
from rollout.domain.rollout import State
from rollout_client.evaluation.targeting import Condition
from tests.core.domain.plans import at, rollout

COHORTS = {
    "staff": Cohort(key="staff", units=("ann", "bob")),
    "board": Cohort(key="board", units=("eve",)),
    "friends": Cohort(key="friends", units=("eve", "max")),
    "swiss": Cohort(key="swiss", when=Condition(attribute="country", op="equals", values=("CH",))),
}
QUALITY = [{"metric": "quality", "max_regression": {"absolute": 0.02}}]
THUMBS = [{"metric": "thumbs_down", "max_regression": {"relative": 0.2}}]


def running(flag: str, *, started: bool = True, **plan: Any) -> Running:
    document = rollout(flag=flag, **plan)
    state = transition.start(document, State(), f"at_{flag}", at(0)) if started else State()
    return Running(id=f"ro_{flag}", document=document, state=state, metrics={})


def cohort(*names: str) -> dict[str, Any]:
    stages = [{"name": name, "cohort": name, "percentage": 100} for name in names]
    return {"stages": stages, "guardrails": [], "signals": THUMBS}


def meet(mine: Running, *others: Running) -> tuple[Concurrent, ...]:
    return concurrent(mine, others, COHORTS)


def test_two_that_reach_everyone_meet_and_say_what_they_both_watch() -> None:
    [met] = meet(running("answer"), running("search"))
    assert (met.rollout, met.flag, met.metrics, met.population) == ("ro_search", "search", ("error_rate",), "shared")
    assert met.message == (
        "ro_search on flag search may have the same units; both watch error_rate, so harm by one may be blamed on the "
        "other; both arms meet it equally, so it favours neither and holds nothing; one exclusion group for both would "
        "keep them apart"
    )


def test_the_same_units_without_a_common_guardrail_are_still_shown() -> None:
    [met] = meet(running("answer"), running("search", guardrails=QUALITY))
    assert (met.metrics, met.population) == ((), "shared")
    assert "blamed" not in met.message
    [met] = meet(running("answer", guardrails=[*QUALITY], signals=THUMBS), running("search", signals=THUMBS))
    assert met.metrics == ("thumbs_down",), "a signal is watched too"


def test_a_draft_is_told_before_it_starts_and_itself_and_its_flag_do_not_count() -> None:
    draft = running("answer", started=False)
    assert [met.rollout for met in meet(draft, running("search"), draft, running("answer"))] == ["ro_search"]
    assert meet(draft, running("search", environment="staging")) == ()
    assert meet(draft) == ()


def test_a_group_keeps_its_rollouts_apart_and_from_nobody_else() -> None:
    one, two = ({"exclusion": {"group": group, "share": 30}} for group in ("pages", "mails"))
    assert meet(running("answer", **one), running("search", **one)) == ()
    assert len(meet(running("answer", **one), running("search", **two))) == 1
    assert len(meet(running("answer", **one), running("search"))) == 1
    assert len(meet(running("answer"), running("search", **one))) == 1


def test_units_of_two_kinds_are_shown_only_with_a_common_guardrail() -> None:
    [met] = meet(running("answer", unit="user_id"), running("search"))
    assert (met.metrics, met.population) == (("error_rate",), "unknown")
    assert "randomises the targeting key and this rollout user_id: whether they meet cannot be known" in met.message
    assert meet(running("answer", unit="user_id"), running("search", guardrails=QUALITY)) == ()
    same_group = {"exclusion": {"group": "pages", "share": 30}}
    assert len(meet(running("answer", unit="user_id", **same_group), running("search", **same_group))) == 1


@pytest.mark.parametrize(
    ("mine", "theirs", "met"),
    [
        (["staff"], ["board"], False),
        (["staff"], ["staff"], True),
        (["board"], ["friends"], True),
        (["staff"], ["swiss"], True),
        (["staff", "board"], ["friends"], True),
        (["staff"], ["gone"], True),
        (["swiss"], ["swiss"], True),
    ],
)
def test_only_listed_cohorts_are_known_to_be_apart(mine: list[str], theirs: list[str], met: bool) -> None:
    assert bool(meet(running("answer", **cohort(*mine)), running("search", **cohort(*theirs)))) is met


def test_a_cohort_meets_whoever_reaches_everyone_now_or_later() -> None:
    staff = running("answer", **cohort("staff"))
    later = cohort("board")
    later["stages"] = [*later["stages"], {"name": "open", "percentage": 10}]
    assert meet(staff, running("search"))
    assert meet(staff, running("search", **later))
    baking = running("search", **cohort("board"), bake={"duration": "1h", "holdback": 2})
    assert meet(staff, baking)


def test_a_start_names_a_few_and_counts_the_rest() -> None:
    assert warning(()) == ""
    others = [running(f"flag-{number}", guardrails=QUALITY) for number in range(5)]
    said = warning(meet(running("answer"), running("search"), *others))
    assert said == (
        "runs beside ro_search on search (both watch error_rate), ro_flag-0 on flag-0, ro_flag-1 on flag-1 and 3 more, "
        "which both arms meet equally"
    )
