"""Which service the command talks to, and with which key: the only place that reads ROLLOUT_URL and ROLLOUT_KEY."""

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Remote(BaseSettings):
    """Where the service is."""

    model_config = SettingsConfigDict(env_prefix="ROLLOUT_", frozen=True, extra="ignore", use_attribute_docstrings=True)

    url: str = "http://127.0.0.1:8080"
    """Address of the service, without a path."""

    key: SecretStr | None = None
    """A key of the service, such as the one its first start printed."""
