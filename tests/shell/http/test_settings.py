"""Settings: each one says what it is for."""

import pytest
from pydantic import ValidationError

from rollout.settings import Settings


def test_every_setting_is_documented() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, f"{name} says nothing about itself"
        assert len(field.description) > 30, name


def test_it_listens_on_loopback_and_runs_alone_unless_told_otherwise() -> None:
    settings = Settings()
    assert settings.host == "127.0.0.1"
    assert settings.database_url == "sqlite:///rampline.db"
    assert settings.role == "all"
    assert settings.open_metrics is False


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLOUT_PORT", "9000")
    monkeypatch.setenv("ROLLOUT_ADMIN_KEY", "rl_a-key-that-is-long-enough")
    settings = Settings()
    assert settings.port == 9000
    assert "long-enough" not in repr(settings)
    monkeypatch.setenv("ROLLOUT_TICK_SECONDS", "0")
    with pytest.raises(ValidationError):
        Settings()
