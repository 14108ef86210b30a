"""What the database says, read past the product: rows as they are committed, and JSON as plain dictionaries."""

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

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
        "SELECT id, flag, environment, status, exclusive, revision, author, accepted, judged, tick, protected_at,"
        " next_check_at, state, latest FROM rollouts ORDER BY id"
    )
    return {row[0]: Record(*row[:12], _json(row[12]), _json(row[13])) for row in rows(query)}


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
    return Flags(
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


def ruleset(rows: Rows, environment: str, revision: int) -> Json:
    """A published ruleset."""
    query = f"SELECT document FROM rulesets WHERE environment = '{environment}' AND revision = {revision}"
    ((document,),) = rows(query)
    decoded: Json = msgspec.json.decode(bytes(document))
    return decoded


def vouched(rows: Rows) -> int | None:
    """When an engine last vouched, in milliseconds of the database's clock."""
    return next((moment for (moment,) in rows("SELECT protected_ms FROM engine")), None)


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
