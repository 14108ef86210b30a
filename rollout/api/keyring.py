"""Keys as this process knows them: looked up again after two seconds, so that is how long a revoked one lives."""

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from rollout.db import keys
from rollout.db.keys import Key
from rollout.db.session import Database
from rollout.errors import Unauthenticated

REMEMBERED_FOR = 2.0
"""Seconds until a key is looked up again."""
_MOST = 4096
_LONGEST = 200


class Keyring:
    """Identifies keys. Secrets are kept in no form but their hash, here as in the database."""

    def __init__(self, database: Database, clock: Callable[[], float] = monotonic) -> None:
        self._database = database
        self._clock = clock
        self._known: OrderedDict[str, tuple[Key | None, float]] = OrderedDict()
        self._good: dict[str, tuple[bool, float]] = {}

    async def identify(self, secret: str) -> Key:
        """The unrevoked key with this secret.

        Raises:
            Unauthenticated: there is none.
        """
        if not secret.startswith("rl_") or len(secret) > _LONGEST:
            raise Unauthenticated("this is no key of this service: send one as 'Authorization: Bearer rl_...'")
        name = keys.digest(secret)
        key, until = self._known.get(name, (None, 0.0))
        now = self._clock()
        if until <= now:
            async with self._database.read() as session:
                key = await keys.identify(session, secret)
            self._remember(name, key, now + REMEMBERED_FOR)
        if key is None:
            raise Unauthenticated("this key is unknown or was revoked; ask for another one")
        return key

    async def holds(self, identifier: str) -> bool:
        """Whether a key that was identified before is still good: what a long stream asks at every heartbeat."""
        good, until = self._good.get(identifier, (False, 0.0))
        now = self._clock()
        if until <= now:
            async with self._database.read() as session:
                good = await keys.is_active(session, identifier)
            if len(self._good) >= _MOST:
                self._good.clear()
            self._good[identifier] = (good, now + REMEMBERED_FOR)
        return good

    def forget(self) -> None:
        """Look every key up again: one was made or revoked here."""
        self._known.clear()
        self._good.clear()

    def _remember(self, name: str, key: Key | None, until: float) -> None:
        self._known.pop(name, None)
        self._known[name] = (key, until)
        while len(self._known) > _MOST:
            self._known.popitem(last=False)
