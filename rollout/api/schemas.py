"""The JSON Schema of every document that people write."""

from typing import Any

import msgspec
from litestar import Router, get
from litestar.params import FromPath

from rollout.api.auth import PEOPLE, admits
from rollout.api.problems import REFUSALS
from rollout.domain.cohort import Cohort
from rollout.domain.environment import Environment
from rollout.domain.flag import Flag
from rollout.domain.metric import Metric
from rollout.domain.plan import Plan, RolloutDocument
from rollout.errors import NotFound

KINDS = {
    "environment": Environment,
    "flag": Flag,
    "cohort": Cohort,
    "metric": Metric,
    "plan": Plan,
    "rollout": RolloutDocument,
}


@get("/{kind:str}", opt=admits(*PEOPLE), responses=REFUSALS)
async def get_schema(kind: FromPath[str]) -> dict[str, Any]:
    """JSON Schema (2020-12) of a kind of document."""
    if kind not in KINDS:
        raise NotFound(f"there is no document {kind!r}; there are {', '.join(KINDS)}")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(KINDS[kind])}


routes = Router("/schemas", route_handlers=[get_schema], tags=["schemas"])
