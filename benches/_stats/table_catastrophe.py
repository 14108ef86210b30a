"""How many requests a broken candidate answers when somebody looks after each, and nothing is known beforehand."""

from collections.abc import Mapping
from typing import Any

from benches._stats.cells import Cell, Summary
from benches._stats.figures import Block, Row, at_most
from benches._stats.proportions import (
    GROWTHBOOK,
    SHARES,
    STRICT,
    Harm,
    Raced,
    agreement,
    by_method,
    comparison,
    harm,
    ratio_name,
)
from benches._stats.streams import steady

NAME = "catastrophe"
# Scenario: true rates of the candidate and the baseline, targets by share
SCENARIOS = {
    "50 % errors, base 2 %": (0.5, 0.02, (10.0, 12.0, 30.0)),
    "100 % errors, base 2 %": (1.0, 0.02, (5.0, 5.0, None)),
    "100 % errors, base without any": (1.0, 0.0, (None, None, None)),
}
LONGEST = {0.01: 60, 0.1: 100, 0.5: 150}  # candidate requests, by share
PEERS = ("naive z, p < .05 at each look", "mSPRT, normal mixture, tau .01", GROWTHBOOK)


def key(scenario: str, share: float) -> str:
    """The name of a cell."""
    return f"{NAME}/{scenario}, {ratio_name(share)}"


def cells(quick: bool) -> list[Cell]:
    """One cell per scenario and share."""
    return [
        Cell(
            key(scenario, share),
            harm,
            {
                "world": steady(share, base, rate, looks=round(LONGEST[share] / share), units=share),
                "replications": 200 if quick else 2000,
                "options": Harm(single=True, slow_peers=False),
            },
        )
        for scenario, (rate, base, _) in SCENARIOS.items()
        for share in SHARES
    ]


def summary(results: Mapping[str, Any]) -> Summary:
    """The mean requests where there is a target, and whether it is always found."""
    blocks, rows = [], []
    for scenario, (rate, _, targets) in SCENARIOS.items():
        raced: list[Raced] = [results[key(scenario, share)] for share in SHARES]
        title = f"{scenario} (R = {raced[0].replications:,})"
        blocks.append(Block(title, [ratio_name(share) for share in SHARES], by_method(raced, lambda of: of.delay)))
        for result, share, target in zip(raced, SHARES, targets, strict=True):
            name = f"{scenario}, {ratio_name(share)}"
            ours = result.crossings[STRICT]
            if target is not None:
                peers = {peer: result.crossings[peer].delay.value for peer in PEERS if peer in result.crossings}
                rows.append(at_most(f"requests until rollback, {name}", ours.delay, "requests", target, None, peers))
            if rate == 1.0:
                found = ours.rate.value
                peers = result.rates(PEERS)
                rows.append(
                    Row(f"rolled back, {name} (at least)", found, "probability", 1.0, found == 1.0, None, peers)
                )
    return Summary(TEXT + comparison(results), blocks, [*rows, *agreement(NAME, results)])


TEXT = f"""Mean candidate requests until the rollback at alpha .01 (peers: .05), a look after each single request, no
history; restricted at about {", ".join(map(str, LONGEST.values()))} candidate requests. Naive z is here for its speed
only: see false-rollback.
"""
