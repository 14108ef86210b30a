"""Folds exposures and observations where they happen, so that a flush costs the same for one or a million.

One short lock guards plain counters. It is re-entrant, because a signal handler may evaluate a flag while the
thread it interrupts is counting.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Container, Mapping
from typing import TYPE_CHECKING, Any

from rollout_client import native
from rollout_client.evaluation.answer import Evaluation
from rollout_client.evaluation.bucketing import cell as cell_of
from rollout_client.evaluation.bucketing import sketch_entry, valid_unit
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.receipt import Receipt
from rollout_client.evaluation.ruleset import Arm, RolloutRule, RulesetMetric
from rollout_client.increments import add, measure
from rollout_client.memory import Memory
from rollout_client.options import Options
from rollout_client.tally import ENDED, KEPT_SLOTS, ArmTally, Attempts, Minute, Sketches, weigh, weigh_slot

if TYPE_CHECKING:
    from rollout_client.evaluation.evaluate import CompiledRuleset

Metrics = Mapping[str, RulesetMetric]
_NOTHING: Metrics = {}
_MOST = 16_384
"""Exposures that wait at most to be counted. The client counts at each flush, and before that whoever asks for counts;
beyond this many, whoever exposes counts some."""
_SLICE = 256
_EARLY = 1_000
"""Observations that wait for the first ruleset, which says how they are measured."""
_FORMER = 256
"""Attempts that are not in the ruleset any more, whose metrics are kept for late outcomes."""


class Folder:
    """The evidence of one process. Every method may be called from any thread and returns at once.

    Whoever evaluates appends what is evidence to `noted`, and calls `crowd` when `together` of them wait.
    It calls `end` for what is none, if the flag is in `units`: it has, or had, a rollout.
    """

    def __init__(self, options: Options, wake: Callable[[], None]) -> None:
        self.dropped: Counter[str] = Counter()
        self._lock = native.rlock()
        self._wake = wake
        self._flush_after = options.flush_exposures
        self.unsent = 0
        self._asked_for = False
        self.together = min(_MOST, options.flush_exposures)
        self.noted: deque[Any] = deque()
        self._memory: Memory[Minute] = Memory(options.remembered_units)
        self._tallies: dict[str, dict[Arm, ArmTally]] = {}
        self._strays: dict[str, dict[Arm, ArmTally]] = {}
        self._metrics: dict[str, Metrics] = {}
        self._rollouts: dict[str, str] = {}
        self._measured: dict[str, Metrics] = {}
        self._readers: dict[tuple[str, ...], tuple[Callable[[Context], Any], ...]] = {}
        self.units: dict[str, tuple[Callable[[Context], Any], ...]] = {}
        self._asked: frozenset[str] = frozenset()
        self._ended: dict[tuple[str, Arm], Minute] = {}
        self._sealed: list[Attempts] = []
        self._early: list[tuple[str, Any, Context | None, Receipt | None, int]] = []
        self._ahead: list[tuple[Evaluation, Mapping[str, Any], Container[str]]] = []
        self._compiled: CompiledRuleset | None = None
        self._closed = False

    def follow(self, compiled: CompiledRuleset) -> None:
        """Learn which metrics each attempt wants; one that is now folded otherwise closes what was folded before."""
        from rollout_client.evaluation.targeting import unit_reader  # here, for the first ruleset has had it imported

        running = {attempt: _measured(rule, compiled.metrics) for attempt, rule in compiled.attempts.items()}
        measured = {rule.rollout: running[attempt] for attempt, rule in compiled.attempts.items()}
        wanted: dict[str, Metrics] = {}
        for attempt in [key for key in self._metrics if key not in running][-_FORMER:]:
            now = measured.get(self._rollouts[attempt], {})
            wanted[attempt] = {name: now.get(name, metric) for name, metric in self._metrics[attempt].items()}
        wanted.update(running)
        changed = any(
            wanted[attempt].get(name, metric) != metric
            for attempt, before in self._metrics.items()
            for name, metric in (before.items() if attempt in wanted else ())
        )
        for flag, rules in compiled.splitting.items():
            names = tuple(dict.fromkeys(rule.unit or "targeting_key" for rule in rules))
            if names not in self._readers:
                self._readers[names] = tuple(unit_reader(name) for name in names)
            self.units[flag] = self._readers[names]
        with self._lock:
            if changed:
                self._seal(0)
            self._metrics, self._measured = wanted, measured
            self._ended = {where: ended for where, ended in self._ended.items() if where[0] in wanted}
            now_running = {attempt: rule.rollout for attempt, rule in compiled.attempts.items()}
            self._rollouts = {key: now_running.get(key) or self._rollouts[key] for key in wanted}
            early, self._early = self._early, []
            self._asked = frozenset(name for metrics in wanted.values() for name in metrics) | compiled.metrics.keys()
            self._compiled = compiled
            ahead, self._ahead = self._ahead, []
            for finished in ahead:
                self._finish(*finished)
            for observed in early:
                try:
                    self.observe(*observed)
                except Exception:  # as `Client.observe`, which is not there to catch it
                    self.dropped["bad_value"] += 1

    def end(self, flag: str, context: Context) -> None:
        """End the unit's exposure: it was answered by something that is no evidence, and so is what it does next."""
        self.noted.extend((flag, unit) for unit in self._units_of(flag, context))
        if len(self.noted) >= self.together:
            self.crowd()

    def start(self, evaluation: Evaluation) -> None:
        """Count one attempt of the AI call that began."""
        if evaluation.attempt is not None and evaluation.arm is not None:
            with self._lock:
                minute = self._arm(evaluation.attempt, evaluation.arm).minute(evaluation.slot)
                minute.started[cell_of(evaluation.unit)] += 1

    def finish(self, evaluation: Evaluation, outcomes: Mapping[str, Any], automatic: Container[str]) -> None:
        """Record the outcomes of one attempt against the arm it was assigned to; `automatic` ones where asked for.

        A ruleset is served a moment before `follow` has read it: what ended in between waits for that.
        """
        if evaluation.attempt is None or evaluation.arm is None:
            return
        with self._lock:
            if self._closed:
                self.dropped["observations"] += sum(name not in automatic for name in outcomes)
            elif self._is_ahead(evaluation):
                self._ahead.append((evaluation, outcomes, automatic))
            else:
                self._finish(evaluation, outcomes, automatic)

    def _is_ahead(self, evaluation: Evaluation) -> bool:
        if evaluation.attempt in self._metrics or len(self._ahead) >= _EARLY:
            return False
        return self._compiled is None or self._compiled.revision != evaluation.revision

    def _finish(self, evaluation: Evaluation, outcomes: Mapping[str, Any], automatic: Container[str]) -> None:
        if evaluation.attempt is None or evaluation.arm is None:
            return
        wanted = self._metrics.get(evaluation.attempt, {})
        for name, value in outcomes.items():
            if name in wanted:
                tally = self._arm(evaluation.attempt, evaluation.arm)
                self._record(tally, evaluation.slot, cell_of(evaluation.unit), wanted[name], name, value)
            elif name not in automatic:
                self.dropped["unused"] += 1

    def observe(self, metric: str, value: Any, context: Context | None, receipt: Receipt | None, now: int) -> None:
        """Attribute one observation: to the receipt, else to what this process exposed the unit to, else to nothing."""
        with self._lock:
            if self._closed:
                self.dropped["observations"] += 1
            elif self._compiled is None and len(self._early) < _EARLY:
                self._early.append((metric, value, context, receipt, now))
            elif metric not in self._asked:
                self.dropped["unused"] += 1
            elif receipt is not None:
                self._observe_receipt(metric, value, receipt, now)
            elif context is None or not self._observe_context(metric, value, context, now):
                self.dropped["no_exposure"] += 1

    def drop(self, reason: str, number: int = 1) -> None:
        """Count what was lost."""
        with self._lock:
            self.dropped[reason] += number

    def give_back(self, sketches: Sketches) -> None:
        """Take back what a lost batch carried of the sketches of attempts that still run."""
        with self._lock:
            for attempt, arms in sketches.items():
                for arm, entries in arms.items() if attempt in self._tallies else ():
                    self._tallies[attempt][arm].owe(entries)

    def close(self) -> None:
        """Nobody takes any more: what is observed from now on is dropped, counted, and so is what still waits."""
        with self._lock:
            self._closed = True
            self.dropped += Counter(observations=len(self._early))
            self._early = []
            ahead, self._ahead = self._ahead, []
            for finished in ahead:
                self._finish(*finished)
            for attempts in self.take(0):
                exposures, observations = weigh(attempts)
                self.dropped += Counter(exposures=exposures, observations=observations)  # and nothing for none

    def take(self, now: int) -> list[Attempts]:
        """Return all increments since the last take, oldest first; both arms of an interval are in one of them."""
        with self._lock:
            self._seal(now)
            sealed, self._sealed = self._sealed, []
        return sealed

    def crowd(self) -> None:
        """Have counted what was noted, as `together` of them wait: by whoever flushes, or here if nobody does."""
        if len(self.noted) >= _MOST:
            self.count(_SLICE)
        self._ask()

    def count(self, most: int | None = None) -> None:
        """Count what was noted, in the order it was noted, or so much of it.

        What a signal handler takes meanwhile is counted by it.
        """
        noted = self.noted
        number = len(noted) if most is None else min(most, len(noted))
        self.unsent += number
        if self.unsent >= self._flush_after:
            self._ask()
        with self._lock:
            for _ in range(number):
                try:
                    one = noted.popleft()
                except IndexError:
                    return
                try:
                    self._count_one(one)
                except Exception:  # whatever it was: the others are counted
                    self.dropped["exposures"] += 1

    def _count_one(self, one: Any) -> None:
        if one.__class__ is tuple:
            self._end(*one)
            return
        cell = cell_of(one.unit)
        units = self._memory.flags.get(one.flag)
        minute = None if units is None else units.young.get(one.unit)
        if minute is not None and minute.open == one.slot and minute.attempt == one.attempt and minute.arm == one.arm:
            minute.exposures[cell] += 1
        else:
            self._enter(one, minute, cell)

    def _ask(self) -> None:
        """Ask for a flush, once until there is one."""
        if not self._asked_for:
            self._asked_for = True
            self._wake()

    def _enter(self, evaluation: Evaluation, latest: Minute | None, cell: int) -> None:
        """Count an exposure that is not another of the unit's latest minute."""
        attempt, flag, unit = evaluation.attempt or "", evaluation.flag, evaluation.unit
        tally = self._arm(attempt, evaluation.arm or "baseline")
        minute = tally.minute(evaluation.slot)
        minute.exposures[cell] += 1
        if latest is None:
            latest = self._memory.find(flag, unit)
        if latest is None or latest.attempt != attempt:
            minute.first[cell] += 1
            tally.see(*sketch_entry(unit))
        self._memory.remember(flag, unit, minute)
        if len(tally.slots) > KEPT_SLOTS:
            self._make_room(tally)

    def _end(self, flag: str, unit: str) -> None:
        minute = self._memory.find(flag, unit)
        if minute is not None and minute.slot != ENDED:
            where = minute.attempt, minute.arm
            ended = self._ended.get(where)
            if ended is None:
                ended = self._ended[where] = Minute(*where, ENDED)
            self._memory.remember(flag, unit, ended)

    def _seal(self, now: int) -> None:
        self.count()
        self.unsent, self._asked_for = 0, False
        for tallies, kept in ((self._tallies, self._metrics.keys()), (self._strays, ())):
            attempts: Attempts = {}
            for attempt, arms in list(tallies.items()):
                taken = {arm: tally.take(now) for arm, tally in arms.items()}
                if any(increment.slots or increment.sketch for increment in taken.values()):
                    attempts[attempt] = taken
                elif attempt not in kept and not any(tally.slots for tally in arms.values()):
                    del tallies[attempt]
            if attempts:
                self._sealed.append(attempts)

    def _arm(self, attempt: str, arm: Arm, stray: bool = False) -> ArmTally:
        tallies = self._strays if stray else self._tallies
        arms = tallies.get(attempt)
        if arms is None:
            both: tuple[Arm, Arm] = ("baseline", "candidate")
            arms = tallies[attempt] = {name: ArmTally(attempt, name) for name in both}
        return arms[arm]

    def _make_room(self, tally: ArmTally) -> None:
        lost = tally.crowded()
        if lost is not None:
            exposures, observations = weigh_slot(lost)
            self.dropped.update(exposures=exposures, observations=observations)

    def _units_of(self, flag: str, context: Context) -> list[str]:
        found = (read(context) for read in self.units.get(flag, ()))
        return [unit for unit in found if valid_unit(unit)]

    def _observe_context(self, metric: str, value: Any, context: Context, now: int) -> bool:
        self.count()
        pinned = context.receipt
        honoured = pinned is not None and self._honours(pinned, context)
        believed = True
        recorded: set[str] = set()
        for flag in self._memory.flags:
            found = [(unit, self._memory.find(flag, unit)) for unit in self._units_of(flag, context)]
            unit, minute = next((one for one in found if one[1] is not None and one[1].slot != ENDED), ("", None))
            if pinned is not None and flag == pinned.flag:
                if honoured and minute is not None and minute.attempt != pinned.attempt:
                    continue  # what the unit was given elsewhere is not what this conversation has
                believed = honoured or not any(one[1] for one in found)
            wanted = None if minute is None else self._metrics.get(minute.attempt, {}).get(metric)
            if minute is not None and wanted is not None:
                tally = self._arm(minute.attempt, minute.arm)
                self._record(tally, minute.slot, cell_of(unit), wanted, metric, value)
                recorded.add(minute.attempt)
        if pinned is not None and pinned.attempt not in recorded and believed:
            self._observe_receipt(metric, value, pinned, now)
            return True
        return bool(recorded)

    def _honours(self, pinned: Receipt, context: Context) -> bool:
        """Whether the receipt in the context is why its flag is answered as it is."""
        if self._compiled is None:
            return False
        answer = self._compiled.answer_anew(pinned.flag, context)
        return answer.pinned == pinned or (answer.attempt, answer.arm) == (pinned.attempt, pinned.arm)

    def _observe_receipt(self, metric: str, value: Any, receipt: Receipt, now: int) -> None:
        compiled = self._compiled
        if compiled is None or receipt.environment != compiled.environment:
            self.dropped["no_exposure"] += 1
            return
        wanted: RulesetMetric | None = None
        stray = receipt.attempt not in self._rollouts
        if not stray:
            if self._rollouts[receipt.attempt] == receipt.rollout:
                wanted = self._metrics[receipt.attempt].get(metric)
        # An earlier attempt of a running rollout, or a rollout this process has not heard of: what the ruleset knows.
        # The service may refuse it, and so it travels apart from what this process knows to be right.
        elif metric in compiled.rollout_metrics.get(receipt.rollout, compiled.metrics):
            room = receipt.attempt in self._strays or len(self._strays) < _FORMER
            known = self._measured.get(receipt.rollout, compiled.metrics)
            wanted = known.get(metric, compiled.metrics.get(metric)) if room else None
        if wanted is None:
            self.dropped["unused"] += 1
            return
        # Receipts pass through hands that may change them: a minute to come counts as this one, as in the service.
        tally = self._arm(receipt.attempt, receipt.arm, stray)
        self._record(tally, min(receipt.slot, now), receipt.cell, wanted, metric, value)

    def _record(self, tally: ArmTally, slot: int, cell: int, metric: RulesetMetric, name: str, value: Any) -> None:
        try:
            numbers, bucket = measure(metric, value)
        except Exception:  # a value may be an object whose comparison raises anything
            self.dropped["bad_value"] += 1
            return
        add(tally.minute(slot).metric(name), cell, numbers, bucket)
        self.unsent += 1
        self._make_room(tally)


def _measured(rule: RolloutRule, metrics: Metrics) -> Metrics:
    """Return what the rule asks for, as its rollout measures it."""
    if not rule.metrics:
        return _NOTHING
    return {name: metrics[name].measured(rule.frozen.get(name)) for name in rule.metrics if name in metrics}
