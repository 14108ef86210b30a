"""What is served now, and whether the service still vouches for it.

One writer (the background thread) swaps one reference; evaluation reads it and never waits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import msgspec

from rollout_client.evaluation.ruleset import Patch, Ruleset
from rollout_client.native import pause
from rollout_client.report import Reporter, Source

if TYPE_CHECKING:
    from rollout_client.evaluation.evaluate import CompiledRuleset
    from rollout_client.evaluation.rules import Lapsed

_MANY = 1000
"""Flags that may be freed at once."""


class Serving(msgspec.Struct, frozen=True, gc=False):
    """One ruleset with the lease lengths (ms) that have lapsed: all that an evaluation reads."""

    compiled: CompiledRuleset
    lapsed: Lapsed
    source: Source


def lapsed_leases(leases: frozenset[int], vouched: float | None, now: float) -> tuple[Lapsed, float | None]:
    """Return the lease lengths (ms) lapsed at `now`, and when the next one will (None: none will).

    Without anybody who vouched, None is among those that lapsed: nothing is evidence then, leased or not.

    Args:
        leases: the lease lengths in use.
        vouched: when the engine's last complete protect pass was, monotonic seconds; None when nobody ever vouched.
        now: monotonic seconds.
    """
    if vouched is None:
        return leases | {None}, None
    lapsed = frozenset(lease for lease in leases if (now - vouched) * 1000 > lease)
    alive = leases - lapsed
    return lapsed, vouched + min(alive) / 1000 if alive else None


class Served:
    """The ruleset in memory. Disk cache and bootstrap never vouch, so their leased rules serve the baseline."""

    def __init__(
        self, environment: str, killed: frozenset[str], monotonic: Callable[[], float], reporter: Reporter
    ) -> None:
        self.current: Serving | None = None
        self.vouched: float | None = None
        self.changes = 0
        self.killed = killed
        self.moved: Callable[[], None] | None = None
        self.listeners: list[Callable[[], None]] = []
        self._former: list[object] = []
        self._environment = environment
        self._monotonic = monotonic
        self._reporter = reporter

    def adopt(self, ruleset: Ruleset, source: Source, age_ms: int | None = None) -> bool:
        """Serve a whole ruleset.

        False, and what was served stays, when it is of another environment or contradicts itself.
        """
        heard = self._monotonic()
        compiled = self.compile(ruleset)
        if compiled is not None:
            self.take(compiled, source, age_ms, heard)
            self.let_go()
        return compiled is not None

    def compile(self, ruleset: Ruleset, changed: Collection[str] | None = None) -> CompiledRuleset | None:
        """Return a ruleset ready to be served, None when it cannot be. Any thread may do this; nothing is changed."""
        from rollout_client.evaluation.evaluate import RulesetError, compile_ruleset  # as nothing before it needs them

        if ruleset.environment != self._environment:
            self._reporter.trouble(
                "environment",
                f'got the ruleset of environment "{ruleset.environment}", not "{self._environment}"; check the key',
            )
            return None
        try:
            previous = self.current.compiled if self.current else None
            return compile_ruleset(ruleset, previous, self.killed, changed, pause)
        except (RulesetError, RecursionError) as error:
            self._reporter.trouble("ruleset", f"revision {ruleset.revision} is not served: {error}")
            return None

    def take(self, compiled: CompiledRuleset, source: Source, age_ms: int | None, heard: float) -> None:
        """Serve what was compiled; `heard` is when `age_ms` was true (monotonic seconds)."""
        self._note(age_ms, heard)
        if compiled.killed != self.killed:  # somebody killed a flag here while it was compiled
            compiled = self.compile(compiled.ruleset) or compiled
        former = self.current
        if former is not None and len(former.compiled.flags) > _MANY:
            key, flag = next(iter(former.compiled.flags.items()))
            if compiled.flags.get(key) is not flag:  # else most flags are served on
                self._former += former.compiled.flags.values()
        self._swap(compiled, source)
        self.changes += 1

    def let_go(self) -> None:
        """Free what is served no more a little at a time: many flags that go at once would hold up every thread."""
        while self._former:
            del self._former[-_MANY:]
            pause()

    def patched(self, patch: Patch) -> CompiledRuleset | None:
        """Return what a patch makes of what is served, None when it does not fit: the whole must be fetched then."""
        current = self.current
        if current is None or current.source != "service":
            return None
        from rollout_client.evaluation.evaluate import apply_patch

        ruleset = apply_patch(current.compiled.ruleset, patch)
        return None if ruleset is None else self.compile(ruleset, patch.flags)

    def vouch(self, age_ms: int | None) -> None:
        """Take note of how old the engine's last complete protect pass is (ms; None: there was none)."""
        self._note(age_ms, self._monotonic())
        self.look()

    def kill(self, killed: frozenset[str]) -> None:
        """Kill flags in this process only, whatever the ruleset says; they serve their default variant."""
        if killed == self.killed:
            return
        self.killed = killed
        if self.current is not None:
            self.adopt(self.current.compiled.ruleset, self.current.source)

    def look(self) -> float | None:
        """Let leases lapse or return as the clock says; return when to look again (monotonic seconds, None: never)."""
        current = self.current
        if current is None:
            return None
        lapsed, again = lapsed_leases(current.compiled.leases, self.vouched, self._monotonic())
        if lapsed != current.lapsed:
            self.current = msgspec.structs.replace(current, lapsed=lapsed)
            self._tell()
        return again

    def abandon(self) -> None:
        """Nobody watches the leases any more: all of them lapse."""
        self.vouched = None
        self.look()

    def _note(self, age_ms: int | None, heard: float) -> None:
        # A pass that was completed stays completed: an older answer that arrives late takes nothing back.
        if age_ms is not None:
            vouched = heard - max(age_ms, 0) / 1000
            self.vouched = vouched if self.vouched is None else max(vouched, self.vouched)
            self._move()

    def _swap(self, compiled: CompiledRuleset, source: Source) -> None:
        lapsed, _ = lapsed_leases(compiled.leases, self.vouched, self._monotonic())
        self.current = Serving(compiled, lapsed, source)
        self._move()
        self._tell()

    def _move(self) -> None:
        """Tell whoever waits for the next lease to lapse that it may be another one now."""
        if self.moved is not None:
            self.moved()

    def _tell(self) -> None:
        """Tell whoever listens that another ruleset is served, or the same one with other leases."""
        for listener in list(self.listeners):
            try:
                listener()
            except Exception as error:
                self._reporter.trouble("listener", f"a listener failed: {type(error).__name__}")
