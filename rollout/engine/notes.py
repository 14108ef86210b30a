"""What the looks of one transaction leave behind, written together: as many statements for sixteen as for one."""

from typing import Any

from rollout.db import increments, rollouts
from rollout.db.increments import Cover
from rollout.db.session import Session


class Notes:
    """What is not written yet; `write` must be called before the transaction ends."""

    def __init__(self) -> None:
        self._looked: list[dict[str, Any]] = []
        self._records: list[dict[str, Any]] = []
        self._covers: list[Cover] = []

    def take(self, left: dict[str, Any]) -> None:
        """What a look leaves in its rollout's row."""
        self._looked.append(left)

    def keep(self, record: dict[str, Any], cover: Cover) -> None:
        """The record of a look, and the increments it took in."""
        self._records.append(record)
        self._covers.append(cover)

    async def write(self, session: Session) -> None:
        """Write everything, and forget it."""
        if self._looked:
            await rollouts.looked(session, self._looked)
        if self._records:
            await increments.cover(session, self._covers)
            await rollouts.add_evaluations(session, self._records)
        self._looked, self._records, self._covers = [], [], []
