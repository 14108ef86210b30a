"""The OpenFeature provider, through the real SDK."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import EventDetails, ProviderEvent
from openfeature.exception import ErrorCode, ProviderNotReadyError
from openfeature.provider.no_op_provider import NoOpProvider
from openfeature.track import TrackingEventDetails

from clients.python.tests.service import FAST, KEY, Service, document, eventually
from rollout_client import Client
from rollout_client.openfeature import RamplineProvider
from rollout_client.testing import InMemoryClient

FLAG, USER = "support-answer", EvaluationContext("user-1", {"plan": "pro"})


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    api.clear_providers()
    api.clear_evaluation_context()
    api.set_provider_and_wait(NoOpProvider())


def provided(client: Client) -> OpenFeatureClient:
    api.set_provider_and_wait(RamplineProvider(client))
    return api.get_client()


@pytest.fixture
def flags() -> InMemoryClient:
    client = InMemoryClient()
    for flag, value in {
        "yes": True, "text": "large", "whole": 3, "broken": 0.5, "object": {"model": "large"}, "list": [1],
        "null": None,
    }.items():  # fmt: skip
        client.set(flag, "v1", value)
    return client


Details = Callable[..., Any]
CALLS = ("boolean", "string", "integer", "float", "object")
DEFAULTS: dict[str, Any] = {"boolean": False, "string": "mine", "integer": 7, "float": 0.25, "object": {"a": 1}}
FITS = {
    "yes": {"boolean"}, "text": {"string"}, "whole": {"integer", "float"}, "broken": {"float"},
    "object": {"object"}, "list": {"object"}, "null": set(),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("flag", FITS)
async def test_a_value_is_of_the_type_that_is_asked_for_or_the_default_is_given(
    flags: InMemoryClient, call: str, flag: str
) -> None:
    sdk = provided(flags)
    details = getattr(sdk, f"get_{call}_details")(flag, DEFAULTS[call], USER)
    if call in FITS[flag]:
        assert (details.value, details.variant, details.reason, details.error_code) == (
            flags.evaluate(flag, None).value, "v1", "STATIC", None,
        )  # fmt: skip
        assert type(details.value) is not int or call == "integer"
    else:
        assert (details.value, details.reason) == (DEFAULTS[call], "ERROR")
        assert details.error_code == ErrorCode.TYPE_MISMATCH
    assert await getattr(sdk, f"get_{call}_details_async")(flag, DEFAULTS[call], USER) == details


@pytest.mark.parametrize("call", CALLS)
def test_a_flag_that_is_not_there_gives_the_default(flags: InMemoryClient, call: str) -> None:
    details = getattr(provided(flags), f"get_{call}_details")("nothing", DEFAULTS[call], USER)
    assert (details.value, details.reason) == (DEFAULTS[call], "ERROR")
    assert details.error_code == ErrorCode.FLAG_NOT_FOUND


def test_details_say_which_rollout_gave_the_answer(flags: InMemoryClient) -> None:
    flags.set(FLAG, "v7", "small")
    flags.set(FLAG, "v8", "large", baseline="v7")
    details = provided(flags).get_string_details(FLAG, "mine", USER)
    assert (details.value, details.variant, details.reason) == ("large", "v8", "SPLIT")
    revision = flags.status().revision
    assert details.flag_metadata == {"revision": revision, "rollout": f"ro_{FLAG}", "arm": "candidate"}
    details = provided(flags).get_string_details(FLAG, "mine", EvaluationContext())
    assert (details.value, details.error_code) == ("mine", ErrorCode.TARGETING_KEY_MISSING)


def test_the_targeting_key_is_the_unit_and_attributes_are_attributes() -> None:
    rule = {"kind": "serve", "variant": "v8", "when": {"attribute": "plan", "op": "equals", "values": ["pro"]}}
    made = document()
    made["flags"][FLAG] |= {"rules": [rule], "overrides": {"user-9": "v8"}}
    sdk = provided(InMemoryClient(made))
    assert sdk.get_string_value(FLAG, "mine", USER) == "large"
    assert sdk.get_string_value(FLAG, "mine", EvaluationContext("user-1")) == "small"
    assert sdk.get_string_value(FLAG, "mine", EvaluationContext("user-9")) == "large"
    assert sdk.get_string_value(FLAG, "mine") == "small"
    api.set_evaluation_context(EvaluationContext(attributes={"plan": "pro"}))
    assert sdk.get_string_value(FLAG, "mine") == "large"


def test_a_killed_flag_is_disabled() -> None:
    made = document()
    made["flags"][FLAG]["killed"] = True
    details = provided(InMemoryClient(made)).get_string_details(FLAG, "mine", USER)
    assert (details.value, details.variant, details.reason) == ("small", "v7", "DISABLED")


def test_tracking_observes(flags: InMemoryClient) -> None:
    sdk = provided(flags)
    flags.set(FLAG, "v7", "small")
    flags.set(FLAG, "v8", "large", baseline="v7")
    receipt = flags.evaluate(FLAG, None).receipt or ""
    sdk.track("purchase", USER)
    sdk.track("cost_usd", USER, TrackingEventDetails(0.25))
    sdk.track("thumbs_down", None, TrackingEventDetails(0, {"receipt": receipt}))
    assert [(each.metric, each.value) for each in flags.observations] == [
        ("purchase", 1), ("cost_usd", 0.25), ("thumbs_down", 0),
    ]  # fmt: skip
    assert flags.observations[0].context is not None
    assert flags.observations[0].context.targeting_key == "user-1"


class Heard:
    """The events of the SDK."""

    def __init__(self) -> None:
        self.events: list[tuple[str, list[str] | None]] = []
        for event in ProviderEvent:
            api.add_handler(event, self._hear(event))

    def _hear(self, event: ProviderEvent) -> Callable[[EventDetails], None]:
        def hear(details: EventDetails) -> None:
            assert threading.current_thread().name != "rollout-client"
            self.events.append((event.value.removeprefix("PROVIDER_"), details.flags_changed))

        self.handlers = [*getattr(self, "handlers", []), (event, hear)]
        return hear

    def leave(self) -> None:
        for event, handler in self.handlers:
            api.remove_handler(event, handler)


def test_it_tells_of_what_happens_and_waits_for_nothing(service: Service) -> None:
    service.hangs.set()
    client = Client(service.url, KEY, environment="production", options=FAST)
    heard = Heard()
    api.set_provider_and_wait(RamplineProvider(client))
    eventually(lambda: ("READY", None) in heard.events)
    assert api.get_client().get_string_details(FLAG, "mine", USER).error_code == ErrorCode.PROVIDER_NOT_READY
    heard.events.clear()
    service.serve(document(lease_ms=1500))  # long enough not to lapse before it is meant to, on a busy machine
    service.hangs.clear()
    eventually(lambda: sorted(heard.events, key=str) == [("CONFIGURATION_CHANGED", [FLAG]), ("READY", None)])
    assert api.get_client().get_string_value(FLAG, "mine", USER) == "large"
    service.engine_age = None
    eventually(lambda: ("STALE", None) in heard.events)
    assert api.get_client().get_string_details(FLAG, "mine", USER).reason == "STALE"
    heard.events.clear()
    service.engine_age = 0
    service.push_raw(service.heartbeat())
    eventually(lambda: ("READY", None) in heard.events)
    heard.leave()
    api.shutdown()
    assert client.status().stream == "closed"
    service.engine_age = 0


def test_it_may_wait_and_says_what_it_waited_for_in_vain(service: Service) -> None:
    client = Client(service.url, KEY, environment="production", options=FAST)
    api.set_provider_and_wait(RamplineProvider(client, wait=5.0))
    assert api.get_client().get_string_value(FLAG, "mine", USER) == "large"
    client.close()
    refused = Client(service.url, "other", environment="production", options=FAST)
    with pytest.raises(ProviderNotReadyError, match="401"):
        api.set_provider_and_wait(RamplineProvider(refused, wait=0.3))
    refused.close(0.1)


def test_a_client_that_the_application_started_is_the_applications_to_close(
    service: Service, connect: Callable[..., Client]
) -> None:
    client = connect(options=msgspec.structs.replace(FAST, flush_interval=0.05))
    api.set_provider_and_wait(RamplineProvider(client, wait=5.0))
    api.shutdown()
    eventually(lambda: client.status().stream == "open")
    assert client._served.listeners == []
