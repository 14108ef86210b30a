"""The context of one request: who is asking, and what is known about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollout_client.evaluation.bucketing import plain, unit_text
from rollout_client.evaluation.receipt import Receipt, decode_receipt


class Context:
    """Who a flag is answered for: `Context("user-42", plan="pro")` or `Context("user-42", {"plan": "pro"})`.

    The targeting key is the unit that is randomised unless a rule names another attribute. Neither it nor
    any attribute leaves the process. `receipt` (a text or a decoded Receipt) pins a conversation to the
    variant it began with; a text that is no receipt pins nothing.
    """

    __slots__ = ("_targeting_key", "attributes", "receipt", "unit")

    def __init__(
        self,
        targeting_key: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        /,
        *,
        receipt: Receipt | str | None = None,
        **more: Any,
    ) -> None:
        self.targeting_key = targeting_key
        self.attributes: Mapping[str, Any] = {**attributes, **more} if attributes else more
        self.receipt = None if receipt is None else decode_receipt(receipt)

    @property
    def targeting_key(self) -> str | None:
        """Who is asking."""
        return self._targeting_key

    @targeting_key.setter
    def targeting_key(self, targeting_key: str | None) -> None:
        self._targeting_key = targeting_key if type(targeting_key) is str else plain(targeting_key)
        self.unit = unit_text(targeting_key)  # once for all flags; empty when nobody can be randomised by it

    def __repr__(self) -> str:
        return f"Context({self.targeting_key!r}, {dict(self.attributes)!r})"


NOBODY = Context()
"""A request without a unit and without attributes."""
