"""`rollout apply`: brings a service to what files say, and changes nothing that says so already."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from rollout.cli import show
from rollout.cli.files import Authored
from rollout.cli.remote import Api, Refused
from rollout.domain.cohort import Cohort
from rollout.domain.document import canonical, content_hash
from rollout.domain.environment import Environment
from rollout.domain.flag import Flag
from rollout.domain.metric import Metric
from rollout.domain.plan import Plan, RolloutDocument
from rollout.domain.rollout import ENDED

_ADDRESSES: dict[type[Any], str] = {
    Environment: "/environments",
    Cohort: "/cohorts",
    Metric: "/metrics",
    Flag: "/flags",
    Plan: "/plans",
}


_NEARER = {"scheduled": 1, "draft": 2}
"""What is exposed is meant by a file before what is scheduled, and that before a draft; the newest of each first."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to do about the rollouts among the documents."""

    start: bool = False
    """Start those that are drafts."""

    again: bool = False
    """Make a new one although the newest that ended said the same."""


@dataclass(frozen=True, slots=True)
class Said:
    """What became of one document; not `well` when what the file asks for was tried before and taken back."""

    text: str
    well: bool = True


def apply(api: Api, documents: Sequence[Authored], wanted: Wanted) -> Iterator[Said]:
    """One sentence for each document as soon as it is settled: created, changed or unchanged.

    Args:
        api: the service.
        documents: in an order in which they can be saved.
        wanted: what to do about rollouts.

    Raises:
        Refused: the service refused one; the ones before it stay applied, and applying again goes on from there.
    """
    for document in documents:
        try:
            if isinstance(document, RolloutDocument):
                yield _rollout(api, document, wanted)
            else:
                yield Said(_keyed(api, document))
        except Refused as error:
            raise Refused(f"{_name(document)}: refused\n{error}", error.status) from error


def _keyed(api: Api, document: Environment | Cohort | Metric | Flag | Plan) -> str:
    address = f"{_ADDRESSES[type(document)]}/{document.key}"
    stored = api.find(address)
    if stored is not None and canonical(msgspec.convert(stored, type(document))) == canonical(document):
        return f"{_name(document)}: unchanged"
    api.ask("PUT", address, msgspec.to_builtins(document))
    return f"{_name(document)}: {'created' if stored is None else 'changed'}"


def _rollout(api: Api, document: RolloutDocument, wanted: Wanted) -> Said:
    content = content_hash(_resolved(api, document))
    known = sorted(
        api.get("/rollouts", flag=document.flag, environment=document.environment),
        key=lambda each: _NEARER.get(each["status"], 0),
    )
    same = next((each for each in known if each["content_hash"] == content and each["status"] not in ENDED), None)
    ended = max(
        (each for each in known if each["status"] in ENDED), key=lambda each: str(each["ended_at"]), default=None
    )
    if same is None and ended is not None and ended["content_hash"] == content and not wanted.again:
        return _over(api, ended)
    made, how = same, "unchanged"
    if made is None:
        made, how = _made(api, document, next((each for each in known if _continues(document, each)), None))
    said = f"{_name(document)}: {how}, {made['id']}, "
    if wanted.start and made["status"] == "draft":  # what is scheduled keeps its time
        done = api.ask("POST", f"/rollouts/{made['id']}/actions/start", {"reason": "applied with --start"})
        how = "scheduled" if done["change"]["to_status"] == "scheduled" else "started"
        return Said("\n".join([said + how, *show.meets(api.get(f"/rollouts/{made['id']}/status"))]))
    return Said(said + str(made["status"]))


def _made(api: Api, document: RolloutDocument, former: dict[str, Any] | None) -> tuple[dict[str, Any], str]:
    """A new rollout, or the next version of the plan of the one that is drafted or running."""
    if former is None:
        made: dict[str, Any] = api.ask("POST", "/rollouts", msgspec.to_builtins(document))
        return made, "created"
    body = {"document": msgspec.to_builtins(document), "reason": "applied", "revision": former["revision"]}
    api.ask("PUT", f"/rollouts/{former['id']}", body)
    return former, "changed"


def _continues(document: RolloutDocument, known: dict[str, Any]) -> bool:
    """Whether this is the same pair of variants in a rollout that has not ended."""
    pair = (known["baseline"], known["candidate"]) == (document.baseline, document.candidate)
    return pair and known["status"] not in ENDED


def _over(api: Api, ended: dict[str, Any]) -> Said:
    """The newest rollout that ended is this very one: what was taken back must not come again by itself."""
    if ended["status"] == "completed":
        return Said(f"rollout {ended['id']}: completed already, unchanged")
    last = api.get(f"/rollouts/{ended['id']}/transitions")[-1]["change"]
    why = last["reason"] or "no reason was given"
    how = ended["status"].replace("_", " ")
    return Said(
        f"rollout {ended['id']}: {how} at {last['at']} by {last['actor']}: {why}\n"
        "nothing started. To try again: rollout apply ... --start --again",
        well=False,
    )


def _resolved(api: Api, document: RolloutDocument) -> RolloutDocument:
    """The rollout as the service stores it: with everything that the plan it names says."""
    if document.plan is None:
        return document
    key, _, version = document.plan.partition("@")
    stored = api.find(f"/plans/{key}", version=version or None)
    if stored is None:
        return document
    plan = msgspec.convert(stored, Plan)
    if not version:
        newest = next(each["revision"] for each in api.get("/plans") if each["document"]["key"] == key)
        version = str(newest)
    return document.filled(plan, f"{key}@{version}")


def _name(document: Authored) -> str:
    if isinstance(document, RolloutDocument):
        return f"rollout {document.flag} {document.baseline} -> {document.candidate} in {document.environment}"
    return f"{type(document).__name__.lower()} {document.key}"
