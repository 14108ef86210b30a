"""`rollout apply`: brings a service to what files say, and changes nothing that says so already."""

from collections.abc import Sequence
from typing import Any

import msgspec

from rollout.cli.files import Authored
from rollout.cli.remote import Api, Refused
from rollout.domain.cohort import Cohort
from rollout.domain.document import content_hash
from rollout.domain.environment import Environment
from rollout.domain.flag import Flag
from rollout.domain.metric import Metric
from rollout.domain.plan import Plan, PlanBody, RolloutDocument
from rollout.domain.rollout import ENDED

_ADDRESSES: dict[type[Any], str] = {
    Environment: "/environments",
    Cohort: "/cohorts",
    Metric: "/metrics",
    Flag: "/flags",
    Plan: "/plans",
}


def apply(api: Api, documents: Sequence[Authored], *, start: bool) -> list[str]:
    """One sentence for each document: created, changed or unchanged.

    Args:
        api: the service.
        documents: in an order in which they can be saved.
        start: whether to start the rollouts among them.

    Raises:
        Refused: the service refused one; the ones before it stay applied, and applying again goes on from there.
    """
    said = []
    for document in documents:
        try:
            if isinstance(document, RolloutDocument):
                said.append(_rollout(api, document, start=start))
            else:
                said.append(_keyed(api, document))
        except Refused as error:
            done = "".join(f"{line}\n" for line in said)
            raise Refused(f"{done}{_name(document)}: refused\n{error}", error.status) from error
    return said


def _keyed(api: Api, document: Environment | Cohort | Metric | Flag | Plan) -> str:
    address = f"{_ADDRESSES[type(document)]}/{document.key}"
    stored = api.find(address)
    if stored is not None and msgspec.convert(stored, type(document)) == document:
        return f"{_name(document)}: unchanged"
    api.ask("PUT", address, msgspec.to_builtins(document))
    return f"{_name(document)}: {'created' if stored is None else 'changed'}"


def _rollout(api: Api, document: RolloutDocument, *, start: bool) -> str:
    wanted = content_hash(_resolved(api, document))
    drafted = api.get("/rollouts", flag=document.flag, environment=document.environment)
    same = next((each for each in drafted if each["content_hash"] == wanted and each["status"] not in ENDED), None)
    made = same if same is not None else api.ask("POST", "/rollouts", msgspec.to_builtins(document))
    said = f"{_name(document)}: {'created' if same is None else 'unchanged'}, {made['id']}, "
    if start and made["status"] in ("draft", "scheduled"):
        api.ask("POST", f"/rollouts/{made['id']}/actions/start", {"reason": "applied with --start"})
        return said + "started"
    return said + str(made["status"])


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
    body = {field: getattr(plan, field) for field in PlanBody.__struct_fields__}
    return msgspec.structs.replace(document, plan=f"{key}@{version}", **body)


def _name(document: Authored) -> str:
    if isinstance(document, RolloutDocument):
        return f"rollout {document.flag} {document.baseline} -> {document.candidate} in {document.environment}"
    return f"{type(document).__name__.lower()} {document.key}"
