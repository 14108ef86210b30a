"""Exclusion groups: ranges never overlap, the first that fits is taken, and a refusal says who holds what."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.exclusion import Exclusion, Holder, Range, exclusion_problems, first_fit, no_place
from rollout.domain.plan_problems import rollout_problems
from rollout.domain.share import width_of
from rollout_client.evaluation.ruleset import BUCKETS
from tests.core.domain.plans import World, rollout


def holder(rollout: str, start: int, end: int, unit: str | None = None) -> Holder:
    return Holder(rollout=rollout, unit=unit, range=Range(start=start, end=end))


@pytest.mark.parametrize(
    ("taken", "width", "place"),
    [
        ([], 30_000, (0, 30_000)),
        ([], BUCKETS, (0, BUCKETS)),
        ([(0, 30_000)], 70_000, (30_000, BUCKETS)),
        ([(0, 30_000)], 70_001, None),
        ([(30_000, 60_000)], 30_000, (0, 30_000)),
        ([(30_000, 60_000)], 30_001, (60_000, 90_001)),
        ([(60_000, BUCKETS), (0, 10_000), (20_000, 30_000)], 10_000, (10_000, 20_000)),
        ([(60_000, BUCKETS), (0, 10_000), (20_000, 30_000)], 10_001, (30_000, 40_001)),
        ([(0, 50_000), (50_000, BUCKETS)], 1, None),
    ],
)
def test_the_lowest_gap_that_is_wide_enough_is_taken(
    taken: list[tuple[int, int]], width: int, place: tuple[int, int] | None
) -> None:
    found = first_fit([Range(start=start, end=end) for start, end in taken], width)
    assert (None if found is None else (found.start, found.end)) == place


@given(st.lists(st.tuples(st.integers(1, BUCKETS), st.booleans()), max_size=30))
def test_rollouts_that_come_and_go_never_share_a_bucket(course: list[tuple[int, bool]]) -> None:
    taken: list[Range] = []
    for width, leaves in course:
        if leaves and taken:
            taken.pop(width % len(taken))
        place = first_fit(taken, width)
        if place is None:
            gaps = sorted(taken, key=lambda each: each.start)
            edges = [0, *(edge for each in gaps for edge in (each.start, each.end)), BUCKETS]
            assert all(high - low < width for low, high in zip(edges[::2], edges[1::2], strict=True))
            continue
        assert place.end - place.start == width
        assert all(place.end <= each.start or each.end <= place.start for each in taken)
        assert 0 <= place.start < place.end <= BUCKETS
        taken.append(place)


def test_a_full_group_says_who_holds_it_and_what_to_do() -> None:
    one = Exclusion(group="checkout", share=31)
    assert no_place(one, None, []) is None
    assert no_place(one, None, [holder("ro_x", 0, 69_000)]) is None
    assert no_place(one, None, [holder("ro_x", 0, 70_000)]) == (
        "group 'checkout' has 30 % left; ro_x holds 70 %; end one of them first, "
        "or take a share of at most 30 % in a new rollout"
    )
    apart = [holder("ro_x", 20_000, 70_000), holder("ro_y", 70_000, 80_000)]
    assert no_place(one, None, apart) == (
        "group 'checkout' has 40 % left, at most 20 % in one piece; ro_x holds 50 %, ro_y holds 10 %; "
        "end one of them first, or take a share of at most 20 % in a new rollout"
    )
    full = no_place(one, None, [holder("ro_x", 0, BUCKETS)])
    assert full == "group 'checkout' has 0 % left; ro_x holds 100 %; end one of them first, or use another group"


def test_ranges_of_two_kinds_of_unit_are_not_disjoint_and_refused() -> None:
    one = Exclusion(group="checkout", share=1)
    assert no_place(one, "user_id", [holder("ro_x", 0, 1_000, "user_id")]) is None
    refused = no_place(one, None, [holder("ro_x", 0, 1_000, "user_id")])
    assert refused is not None
    assert "divided by 'user_id' (ro_x), and this rollout randomises the targeting key" in refused
    assert "use another group" in refused


@pytest.mark.parametrize(
    ("exclusion", "path", "says"),
    [
        ({"group": "a b", "share": 10}, "exclusion.group", "is no key"),
        ({"group": "g", "share": 0}, "exclusion.share", "above 0 and at most 100"),
        ({"group": "g", "share": 100.5}, "exclusion.share", "above 0 and at most 100"),
        ({"group": "g", "share": float("nan")}, "exclusion.share", "above 0 and at most 100"),
        ({"group": "g", "share": 33.33333}, "exclusion.share", "the finest step is 0.001"),
    ],
)
def test_a_place_that_cannot_be_is_refused_with_the_path(exclusion: dict[str, Any], path: str, says: str) -> None:
    [problem] = rollout_problems(rollout(exclusion=exclusion), World())
    assert problem.path == path
    assert says in problem.message


@pytest.mark.parametrize("share", [0.001, 33.333, 50, 100])
def test_every_thousandth_is_a_share(share: float) -> None:
    assert exclusion_problems(Exclusion(group="g", share=share)) == []
    assert width_of(share) == round(share * 1000)
