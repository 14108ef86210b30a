"""Tokens and cost of what model libraries return, with the prices of whoever pays them."""

from types import SimpleNamespace as Shape
from typing import Any

import pytest

from rollout_client import Price, Prices, Usage, usage_of

PRICES = Prices(
    {
        "gpt-x": Price(input=2.0, output=10.0, cached=0.5),
        "gpt-x-mini": Price(input=1.0, output=1.0),
        "claude-x": Price(input=3.0, output=15.0, cached=0.3, written=3.75),
    }
)


@pytest.mark.parametrize(
    ("response", "usage", "cost"),
    [
        (
            {
                "model": "gpt-x-2026-01-31",
                "usage": {
                    "prompt_tokens": 1000, "completion_tokens": 200, "prompt_tokens_details": {"cached_tokens": 400},
                },
            },
            Usage(model="gpt-x-2026-01-31", input_tokens=1000, output_tokens=200, cached_tokens=400),
            (600 * 2.0 + 400 * 0.5 + 200 * 10.0) / 1e6,
        ),
        (
            Shape(
                model="gpt-x",
                usage=Shape(input_tokens=10, output_tokens=5, input_tokens_details=Shape(cached_tokens=3)),
            ),
            Usage(model="gpt-x", input_tokens=10, output_tokens=5, cached_tokens=3),
            (7 * 2.0 + 3 * 0.5 + 5 * 10.0) / 1e6,
        ),
        (
            Shape(
                model="claude-x-20260131",
                usage=Shape(
                    input_tokens=10, output_tokens=5, cache_read_input_tokens=100, cache_creation_input_tokens=20
                ),
            ),
            Usage(model="claude-x-20260131", input_tokens=130, output_tokens=5, cached_tokens=100, written_tokens=20),
            (10 * 3.0 + 100 * 0.3 + 20 * 3.75 + 5 * 15.0) / 1e6,
        ),
        (
            {"model": "gpt-x-mini", "usage": {"prompt_tokens": 8, "completion_tokens": 2}},
            Usage(model="gpt-x-mini", input_tokens=8, output_tokens=2),
            1e-5,
        ),
        (
            {"usage": {"prompt_tokens": 8}, "model": "gpt-x-maxi"},
            Usage(model="gpt-x-maxi", input_tokens=8),
            None,
        ),
    ],
)  # fmt: skip
def test_tokens_and_cost_are_read_from_a_response(response: Any, usage: Usage, cost: float | None) -> None:
    assert usage_of(response) == usage
    assert PRICES.cost(usage) == (None if cost is None else pytest.approx(cost))


@pytest.mark.parametrize(
    "thing", [None, "text", 3, {}, {"usage": None}, {"usage": {}}, {"usage": {"prompt_tokens": "many"}},
              {"usage": {"prompt_tokens": True, "completion_tokens": -1}}, Shape(usage=object())],
)  # fmt: skip
def test_what_says_nothing_of_tokens_has_no_usage(thing: Any) -> None:
    assert usage_of(thing) is None


def test_a_name_that_begins_like_another_is_another_model() -> None:
    for model in ("gpt-x-turbo", "gpt", "gpt-x-2026", None):
        assert PRICES.cost(Usage(model=model, input_tokens=1)) is None
