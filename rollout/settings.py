"""Settings: read from the environment (`ROLLOUT_...`) by `rollout.app` and `rollout.cli`, and by nobody else."""

import re
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

SHORTEST_KEY = 24


class Settings(BaseSettings):
    """Everything that can be set; the variable of a field is its name in capitals after `ROLLOUT_`."""

    model_config = SettingsConfigDict(
        env_prefix="ROLLOUT_", frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True
    )

    database_url: str = "sqlite:///rampline.db"
    """Where everything is kept: `sqlite:///FILE` (one process) or `postgresql://USER@HOST/NAME` (any number).

    Several servers, `postgresql://USER@HOST:PORT,HOST:PORT/NAME`, are tried in turn for the one that takes writes."""

    host: str = "127.0.0.1"
    """Address to listen on. Loopback unless told otherwise; put TLS in front before listening elsewhere."""

    port: int = Field(8080, ge=0, le=65_535)
    """Port to listen on; 0 takes a free one and prints it."""

    role: Literal["all", "api", "worker"] = "all"
    """`api` answers requests, `worker` runs the engine and answers only `/health` and `/metrics`, `all` does both.

    Any number of each can share a PostgreSQL; without one of `all` or `worker` nothing is decided and leases lapse."""

    tick_seconds: float = Field(1.0, gt=0)
    """How often the engine looks at what is due, besides looking soon after every accepted batch (seconds)."""

    admin_key: SecretStr | None = None
    """A key with the scope `admin` that exists from the first start on (`rl_` and at least 21 characters more).

    Without it the first start makes one and prints it once."""

    max_body_bytes: int = Field(1 << 20, ge=1024)
    """Largest request body that is read (bytes, as sent)."""

    max_decompressed_bytes: int = Field(8 << 20, ge=1024)
    """Largest batch of evidence after decompression (bytes)."""

    read_requests_per_minute: int = Field(6000, ge=1)
    """How many rulesets and streams one key may ask for in a minute, in each process."""

    evidence_requests_per_minute: int = Field(6000, ge=1)
    """How many batches of evidence one key may send in a minute, to each process."""

    api_requests_per_minute: int = Field(1200, ge=1)
    """How many other requests one key may make in a minute, to each process."""

    heartbeat_seconds: float = Field(5.0, gt=0)
    """How often a stream says that it is alive and how old the engine's last pass is (seconds)."""

    stream_seconds: float = Field(600.0, gt=0)
    """How long a stream lives; the client then connects again from where it was (seconds)."""

    open_metrics: bool = False
    """Whether `/metrics` (Prometheus) answers without a key."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is logged to standard error."""

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        if re.match(r"(sqlite|postgresql)(\+\w+)?://", value) is None:
            raise ValueError("use 'sqlite:///FILE' or 'postgresql://USER@HOST/NAME'")
        return value

    @field_validator("admin_key")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            secret = value.get_secret_value()
            if not secret.startswith("rl_") or len(secret) < SHORTEST_KEY or not secret.isascii() or " " in secret:
                raise ValueError(f"a key begins with 'rl_' and has at least {SHORTEST_KEY} characters without spaces")
        return value
