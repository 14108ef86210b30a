"""OpenFeature's own client with its no-op provider, and with ours."""

from typing import Any

from openfeature import api
from openfeature.evaluation_context import EvaluationContext

from benches._sdk.workload import PEOPLE


def prepare() -> tuple[Any, list[tuple[Any, ...]]]:
    """What is called for one evaluation, and with what."""
    client = api.get_client()
    users: list[tuple[Any, ...]] = [(EvaluationContext(unit, attributes),) for unit, attributes in PEOPLE]

    def ask(key: str, user: Any) -> Any:
        return client.get_boolean_details(key, False, user)

    return ask, users
