"""A provider for the OpenFeature SDK (`pip install rampline-client[openfeature]`): flags answered by a `Client`.

```python
from openfeature import api
from rollout_client.openfeature import RamplineProvider

api.set_provider(RamplineProvider(client))
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEventDetails
from openfeature.exception import ErrorCode, ProviderNotReadyError
from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType
from openfeature.provider import AbstractProvider, Metadata
from openfeature.track import TrackingEventDetails

from rollout_client.client import Client
from rollout_client.evaluation.answer import Evaluation
from rollout_client.evaluation.bucketing import plain, unit_text
from rollout_client.evaluation.context import NOBODY, Context

__all__ = ["RamplineProvider"]

_CODES = {code.value: code for code in ErrorCode}
_NAMES = {bool: "boolean", str: "string", int: "integer", float: "float", dict: "object"}
_new = Context.__new__
_Objects = Sequence[FlagValueType] | Mapping[str, FlagValueType]


class RamplineProvider(AbstractProvider):
    """Answers OpenFeature's flags with a client, from memory.

    The targeting key is the unit, attributes are attributes. Details carry the variant, OpenFeature's reason, and as
    flag metadata `revision`, and in a rollout `rollout` and `arm`. A flag that was killed answers with its default
    variant and reason DISABLED. A request without the unit that a rule randomises gets error code
    TARGETING_KEY_MISSING, for which the SDK gives the caller's default.

    Events: READY when the service's ruleset is there (the SDK says so once before, when `initialize` returns),
    CONFIGURATION_CHANGED with the flags that changed, STALE when a lease lapsed, READY when it is honoured again.

    Args:
        client: started by `initialize` if it was not, and closed by `shutdown` only then.
        wait: seconds that `initialize` may wait for the service's ruleset; set the provider with
            `api.set_provider_and_wait` then. With 0 it never does: the answers meanwhile come from the cache, the
            bootstrap and the defaults.
    """

    def __init__(self, client: Client, *, wait: float = 0.0) -> None:
        super().__init__()
        self._metadata = Metadata(name="Rampline")
        self._client = client
        self._evaluate = client.evaluate
        self._wait = wait
        self._owns = self._ready = self._stale = False
        self._flags: Mapping[str, Any] = {}

    def get_metadata(self) -> Metadata:
        """Name the provider."""
        return self._metadata

    def initialize(self, evaluation_context: EvaluationContext) -> None:
        """Start the client.

        Raises:
            ProviderNotReadyError: it was to wait, and the service's ruleset has not come in time.
        """
        listeners = self._client._served.listeners
        if self._served_anew not in listeners:
            listeners.append(self._served_anew)
        self._owns = self._owns or self._client.status().stream == "off"
        self._client.start()
        if self._wait and not self._client.wait_ready(self._wait):
            raise ProviderNotReadyError(f"no ruleset within {self._wait:g} s: {self._client.status().last_error}")

    def shutdown(self) -> None:
        """Stop listening, and close the client if `initialize` started it."""
        listeners = self._client._served.listeners
        if self._served_anew in listeners:
            listeners.remove(self._served_anew)
        if self._owns:
            self._client.close()

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        """Answer with a value that is True or False."""
        return self._resolve(flag_key, default_value, evaluation_context, bool)

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """Answer with a value that is a text."""
        return self._resolve(flag_key, default_value, evaluation_context, str)

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        """Answer with a value that is a whole number; True is none."""
        return self._resolve(flag_key, default_value, evaluation_context, int)

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        """Answer with a value that is a number, whole or not."""
        return self._resolve(flag_key, default_value, evaluation_context, float)

    def resolve_object_details(
        self, flag_key: str, default_value: _Objects, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[_Objects]:
        """Answer with a value that is an object or a list. It is shared between answers: do not mutate it."""
        return self._resolve(flag_key, default_value, evaluation_context, dict)

    def track(
        self,
        tracking_event_name: str,
        evaluation_context: EvaluationContext | None = None,
        tracking_event_details: TrackingEventDetails | None = None,
    ) -> None:
        """Observe the metric of that name: the details' value, else 1.

        It counts for the exposure of the context's unit in this process, or for the one that an attribute `receipt` of
        the details names.
        """
        value: Any = 1
        receipt: Any = None
        if tracking_event_details is not None:
            receipt = tracking_event_details.attributes.get("receipt")
            if tracking_event_details.value is not None:
                value = tracking_event_details.value
        context = None if evaluation_context is None else _context(evaluation_context)
        self._client.observe(tracking_event_name, value, context, receipt=receipt)

    def _resolve(
        self, flag: str, default: Any, asked: EvaluationContext | None, wanted: type
    ) -> FlagResolutionDetails[Any]:
        answer = self._evaluate(flag, NOBODY if asked is None else _context(asked), default)
        value = answer.value
        if value.__class__ is not wanted:
            if wanted is float and value.__class__ is int:
                value = float(value)
            elif not (wanted is dict and value.__class__ is list):
                return _mismatch(answer, default, wanted)
        error = answer.error
        metadata: dict[str, bool | int | float | str] = {"revision": answer.revision}
        if answer.rollout is not None and answer.arm is not None:
            metadata["rollout"] = answer.rollout
            metadata["arm"] = answer.arm
        code = None if error is None else _CODES[error]
        return FlagResolutionDetails(value, code, None, answer.reason, answer.variant, metadata)

    def _served_anew(self) -> None:
        """Tell of what changed; on the client's thread. The SDK runs handlers on threads of its own."""
        serving = self._client._served.current
        if serving is None:
            return
        flags, before = serving.compiled.ruleset.flags, self._flags
        ready, stale = serving.source == "service", bool(serving.lapsed - {None})
        if flags is not before:
            self._flags = flags
            changed = sorted(key for key in flags.keys() | before.keys() if flags.get(key) != before.get(key))
            if changed:
                self.emit_provider_configuration_changed(ProviderEventDetails(flags_changed=changed))
        if stale and not self._stale:
            self.emit_provider_stale(ProviderEventDetails(message="a lease lapsed; its rules serve the baseline"))
        elif (ready and not stale) and (self._stale or not self._ready):
            self.emit_provider_ready(ProviderEventDetails())
        self._ready, self._stale = self._ready or ready, stale


def _context(asked: EvaluationContext) -> Context:
    context = _new(Context)  # what `Context(...)` does, but for the copy of the attributes, which are read and left
    unit = asked.targeting_key
    context._targeting_key = unit if type(unit) is str else plain(unit)
    context.unit = unit_text(unit)
    context.attributes = asked.attributes
    context.receipt = None
    return context


def _mismatch(answer: Evaluation, default: Any, wanted: type) -> FlagResolutionDetails[Any]:
    metadata: dict[str, bool | int | float | str] = {"revision": answer.revision}
    if answer.error is not None and answer.variant is None:  # the caller's own default, whatever it is
        return FlagResolutionDetails(default, _CODES[answer.error], None, answer.reason, None, metadata)
    said = f"{answer.flag} is {type(answer.value).__name__}, not {_NAMES[wanted]}"
    return FlagResolutionDetails(default, ErrorCode.TYPE_MISMATCH, said, "ERROR", None, metadata)
