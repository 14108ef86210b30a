"""What the database says, read past the product: rows as they are committed, and JSON as plain dictionaries."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from rollout.domain.cohort import Cohort
from rollout.domain.compile import Running, Served
from rollout.domain.environment import Environment
from rollout.domain.flag import Flag, FlagState
from rollout.domain.metric import Metric
from rollout.domain.plan import RolloutDocument
from rollout.domain.rollout import State

Rows = Callable[[str], Iterable[tuple[Any, ...]]]
Json = dict[str, Any]


class Record(NamedTuple):
    """One rollout's row."""

    id: str
    flag: str
    environment: str
    status: str
    exclusive: str | None
    revision: int
    author: str
    accepted: int
    judged: int
    tick: int
    judged_at: str | datetime | None
    protected_at: str | datetime | None
    next_check_at: str | datetime | None
    state: Json
    latest: Json | None


class Step(NamedTuple):
    """One transition's row."""

    seq: int
    tick: int | None
    ruleset_revision: int | None
    change: Json

    @property
    def at(self) -> datetime:
        """When it happened."""
        return datetime.fromisoformat(self.change["at"])

    @property
    def rises(self) -> bool:
        """Whether more units have the candidate after it."""
        return bool(self.change["to_percentage"] > self.change["from_percentage"])


class Look(NamedTuple):
    """One evaluation's row; `outcome` is the last one that was written out, for a look that only repeats it."""

    tick: int
    inputs: Json
    outcome: Json


class Flags(NamedTuple):
    """Everything authored that a ruleset is made of."""

    flags: dict[str, Json]
    cohorts: dict[str, Json]
    states: dict[tuple[str, str], tuple[str | None, bool]]
    """(flag, environment) -> (released, killed)."""
    overrides: dict[tuple[str, str], dict[str, tuple[str, datetime]]]
    """(flag, environment) -> unit -> (variant, its end)."""
    holdouts: dict[str, float]
    """environment -> percent of its units; 0 without a holdout."""


class Audited(NamedTuple):
    """One audit row."""

    id: int
    actor: str
    action: str
    target: str
    reason: str


def rollouts(rows: Rows) -> dict[str, Record]:
    """Every rollout by id."""
    query = (
        "SELECT id, flag, environment, status, exclusive, revision, author, accepted, judged, tick, judged_at,"
        " protected_at, next_check_at, state, latest FROM rollouts ORDER BY id"
    )
    return {row[0]: Record(*row[:13], _json(row[13]), _json(row[14])) for row in rows(query)}


def steps(rows: Rows, rollout: str, after: int) -> list[Step]:
    """Transitions of a rollout behind a number, in order."""
    query = (
        f"SELECT seq, tick, ruleset_revision, change FROM transitions WHERE rollout = '{rollout}' AND seq > {after}"
        " ORDER BY seq"
    )
    return [Step(*row[:3], _json(row[3])) for row in rows(query)]


def looks(rows: Rows, rollout: str, after: int) -> list[Look]:
    """Evaluations of a rollout behind a tick, in order."""
    query = f"SELECT tick, inputs, outcome FROM evaluations WHERE rollout = '{rollout}' ORDER BY tick"
    found, outcome = [], {}
    for tick, inputs, written in rows(query):
        outcome = _json(written) or outcome
        if tick > after:
            found.append(Look(tick, _json(inputs), outcome))
    return found


def flags(rows: Rows) -> Flags:
    """Flags, cohorts, and what happened to flags where."""
    given: dict[tuple[str, str], dict[str, tuple[str, datetime]]] = {}
    for flag, environment, unit, variant, end in rows(
        "SELECT flag, environment, unit, variant, expires_at FROM overrides"
    ):
        given.setdefault((flag, environment), {})[unit] = (variant, moment(end))
    return Flags(
        overrides=given,
        holdouts={
            key: (_json(document).get("holdout") or {}).get("percentage", 0.0)
            for key, document in rows("SELECT key, document FROM environments")
        },
        flags={key: _json(document) for key, document in rows("SELECT key, document FROM flags")},
        cohorts={key: _json(document) for key, document in rows("SELECT key, document FROM cohorts")},
        states={
            (flag, environment): (released, killed_at is not None)
            for flag, environment, released, killed_at in rows(
                "SELECT flag, environment, released, killed_at FROM flag_states"
            )
        },
    )


def audited(rows: Rows, after: int) -> list[Audited]:
    """Audit rows behind an id, in order."""
    query = f"SELECT id, actor, action, target, detail FROM audit WHERE id > {after} ORDER BY id"
    return [Audited(*row[:4], str((_json(row[4]) or {}).get("reason", ""))) for row in rows(query)]


def environments(rows: Rows) -> dict[str, str]:
    """The tag of every environment's newest ruleset."""
    return {key: f"{revision}.{edition}" for key, revision, edition in rows(
        "SELECT key, revision, edition FROM environments"
    )}  # fmt: skip


def ruleset_body(rows: Rows, environment: str, revision: int) -> bytes:
    """A published ruleset as it is kept."""
    query = f"SELECT document FROM rulesets WHERE environment = '{environment}' AND revision = {revision}"
    ((document,),) = rows(query)
    return bytes(document)


def ruleset(rows: Rows, environment: str, revision: int) -> Json:
    """A published ruleset."""
    decoded: Json = msgspec.json.decode(ruleset_body(rows, environment, revision))
    return decoded


def recorded(rows: Rows, environment: str, given: Mapping[tuple[str, str], dict[str, str]]) -> Served:
    """Everything that an environment's newest ruleset is compiled from, as it is recorded."""

    def every(table: str, kind: Any) -> dict[str, Any]:
        found = rows(f"SELECT key, document FROM {table}")
        return {key: msgspec.json.decode(document, type=kind) for key, document in found}

    exposed = rows(
        f"SELECT id, document, state, metrics FROM rollouts WHERE environment = '{environment}'"
        " AND status IN ('running', 'paused', 'baking') ORDER BY id"
    )
    states = rows(f"SELECT flag, released, killed_at FROM flag_states WHERE environment = '{environment}'")
    return Served(
        environment=environment,
        flags=every("flags", Flag),
        cohorts=every("cohorts", Cohort),
        states={
            flag: FlagState(released=released, killed_at=None if at is None else moment(at))
            for flag, released, at in states
        },
        rollouts=[
            Running(
                id=key,
                document=msgspec.json.decode(document, type=RolloutDocument),
                state=msgspec.json.decode(state, type=State),
                metrics=msgspec.json.decode(metrics, type=dict[str, Metric]),
            )
            for key, document, state, metrics in exposed
        ],
        overrides={flag: units for (flag, where), units in given.items() if where == environment and units},
        holdout=every("environments", Environment)[environment].holdout,
    )


def vouched(rows: Rows) -> int | None:
    """When an engine last vouched, in milliseconds of the database's clock."""
    return next((moment for (moment,) in rows("SELECT protected_ms FROM engine")), None)


def failures(rows: Rows) -> dict[tuple[str, str], int]:
    """(environment, metric) -> how often in a row its source has failed."""
    query = "SELECT environment, metric, failures FROM sources"
    return {(environment, metric): count for environment, metric, count in rows(query)}


def document(rows: Rows, rollout: str) -> bytes:
    """The document of a rollout as it is now."""
    ((text,),) = rows(f"SELECT document FROM rollouts WHERE id = '{rollout}'")
    return str(text).encode()


def requests(rows: Rows) -> Counter[str]:
    """How many requests the increment log counts for each attempt."""
    found: Counter[str] = Counter()
    for attempt, body in rows("SELECT attempt, body FROM increments WHERE metric = '$exposures'"):
        found[attempt] += sum(sum(slot.get("exposures", {}).values()) for slot in _json(body).values())
    return found


def moment(written: Any) -> datetime:
    """A moment as a driver or a document gives it; SQLite keeps no zone."""
    read = datetime.fromisoformat(str(written))
    return read if read.tzinfo is not None else read.replace(tzinfo=UTC)


def _json(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)
