"""Where a database is: one address, also of several servers of which one takes writes, in the driver's own words."""

import re
from typing import Any

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}
_SEVERAL = re.compile(
    r"(?P<scheme>postgresql(?:\+\w+)?://)(?P<who>[^/?#]*@)?(?P<hosts>[^/?#@]*,[^/?#@]*)(?P<rest>.*)", re.S
)
_HOST = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>\d+))?")
_PORT = "5432"
_PATIENCE = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 8000,
}
"""A server that vanished without a word is passed over after seconds (the last in milliseconds), not after minutes."""


def asynchronous(url: str) -> str:
    """The same database through its asynchronous driver: a plain `sqlite:///` or `postgresql://` address will do.

    Several servers are written as libpq takes them, `postgresql://user@a:5432,b:5432/name`. They are tried in turn, and
    only one that takes writes will do, unless the address has a `target_session_attrs` of its own.

    Raises:
        ValueError: it is no address of a database this service knows.
    """
    several = _SEVERAL.fullmatch(url)
    servers = {} if several is None else _servers(several["hosts"])
    try:
        parsed = make_url(url if several is None else f"{several['scheme']}{several['who'] or ''}{several['rest']}")
    except (ArgumentError, ValueError):  # their messages quote the address, which may hold a password
        raise ValueError("it cannot be read; use 'sqlite:///FILE' or 'postgresql://USER@HOST:PORT/NAME'") from None
    backend = parsed.get_backend_name()
    if backend not in _DRIVERS:
        raise ValueError(f"{backend!r} is no database this service knows; use sqlite or postgresql")
    if backend == "postgresql":
        if several is not None and {"host", "port"} & parsed.query.keys():
            raise ValueError("the servers stand before the name of the database or in ?host=, not in both")
        parsed = parsed.update_query_dict(servers)
        if _is_several(parsed.query.get("host", "")) and "target_session_attrs" not in parsed.query:
            parsed = parsed.update_query_dict({"target_session_attrs": "read-write"})
    return parsed.set(drivername=_DRIVERS[backend]).render_as_string(hide_password=False)


def patient(url: str) -> dict[str, Any]:
    """How long a connection of the driver waits for a server, as far as the address does not say so itself."""
    return {name: value for name, value in _PATIENCE.items() if name not in make_url(url).query}


def _servers(hosts: str) -> dict[str, str]:
    found = [_HOST.fullmatch(each) for each in hosts.split(",")]
    if not all(each is not None and each["host"] for each in found):
        raise ValueError("between '@' and '/' stand servers: write HOST:PORT,HOST:PORT")
    known = [each for each in found if each is not None]
    return {
        "host": ",".join(each["host"].strip("[]") for each in known),
        "port": ",".join(each["port"] or _PORT for each in known),
    }


def _is_several(host: str | tuple[str, ...]) -> bool:
    return "," in host if isinstance(host, str) else len(host) > 1
