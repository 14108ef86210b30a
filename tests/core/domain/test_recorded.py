"""How many units a stay has had, from counts that began at other moments."""

from rollout.domain.recorded import UnitsSince


def test_the_same_stays_have_the_recorded_units_also_when_one_is_come_back_to() -> None:
    units = UnitsSince()
    for stay, total in (("a", 40), ("a", 100), ("b", 30), ("b", 500), ("a", 100), ("a", 130), ("b", 520)):
        assert units.count(stay, total, stay) == total


def test_another_stay_has_at_least_the_largest_growth_since_it_began() -> None:
    units = UnitsSince()
    assert units.count("a", 100, "one") == 100
    assert units.count("a", 160, "two") == 60
    assert units.count("b", 20, "two") == 60
    assert units.count("b", 90, "two") == 90
