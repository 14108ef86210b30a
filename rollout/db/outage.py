"""Which errors of a database pass by themselves: a lost server, one that changes its role, a lock held too long."""

import sqlite3
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnection

Failed = DBAPIError
"""Whatever a driver raised."""
Crowded = NoConnection
"""Every connection of the pool stayed busy for too long."""

_ENDS = frozenset({"25006", "25P03", "25P04", "57P01", "57P02", "57P03", "57P05"})
"""SQLSTATEs after which a connection is no good: a server that is read-only, ending or starting, and its timeouts."""
_PASSING_CLASSES = frozenset({"08", "40", "53"})
"""Classes of SQLSTATEs: connection lost, deadlock, no room."""
_PASSING = _ENDS | {"55P03", "57014"}
"""The same and: a lock that was not to be had, a statement that took too long."""
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def ends_connection(error: object) -> bool:
    """Whether the driver's error says that its connection, and others to that server, should not be used again."""
    return getattr(error, "sqlstate", None) in _ENDS


def passing(error: BaseException) -> bool:
    """Whether the same may well succeed in a moment.

    Nothing was changed then, unless the connection was lost just when the database committed: that nobody knows.
    """
    if isinstance(error, Crowded):
        return True
    if not isinstance(error, Failed):
        return False
    cause: Any = error.orig
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF in _BUSY
    state = getattr(cause, "sqlstate", None)
    if state is None:  # no server said it
        return error.connection_invalidated or type(cause).__name__ == "OperationalError"
    return state in _PASSING or state[:2] in _PASSING_CLASSES
