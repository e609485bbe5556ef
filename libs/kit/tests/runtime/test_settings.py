from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from lockstep_kit.fields import FieldInvalid
from lockstep_kit.settings import ServiceSettings, load


class Margins(BaseModel):
    """A block of a service's own."""

    prepare_seconds: float = Field(default=1.0, gt=0, description="margin")


class OwnSettings(ServiceSettings):
    """A service's settings."""

    margins: Margins = Field(default_factory=Margins, description="margins")


GIVEN = """
database:
  url: postgresql://coordinator@127.0.0.1:5432/coordinator
  password_file: /secrets/database
tls: {certificate_file: /certs/own.pem, key_file: /certs/own-key.pem, ca_file: /certs/ca.pem}
"""


def loaded(folder: Path, text: str) -> OwnSettings:
    file = folder / "settings.yaml"
    file.write_text(text)
    return load(OwnSettings, ["--config", str(file)])


def test_a_file_is_read_and_defaults_are_safe(tmp_path: Path) -> None:
    """What the file says is taken; what it does not say is loopback, a free port, nothing exported."""
    settings = loaded(tmp_path, GIVEN + "margins: {prepare_seconds: 2.5}\n")
    assert settings.database.password_file == Path("/secrets/database")
    assert settings.margins.prepare_seconds == 2.5
    assert (settings.listen.host, settings.listen.port, settings.telemetry.endpoint) == ("127.0.0.1", 0, None)
    assert settings.telemetry.sampled_ratio == 0.01


def test_the_environment_overrides_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable replaces one field and leaves the rest of its block; variables that are no settings do no harm."""
    monkeypatch.setenv("LOCKSTEP_LISTEN__PORT", "7000")
    monkeypatch.setenv("LOCKSTEP_DATABASE__POOL_SIZE_MAX", "3")
    monkeypatch.setenv("LOCKSTEP_FAILPOINTS", "")
    settings = loaded(tmp_path, GIVEN)
    assert (settings.listen.port, settings.database.pool_size_max) == (7000, 3)
    assert settings.database.url.endswith("/coordinator")


def test_the_environment_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file everything may come from variables."""
    monkeypatch.setenv("LOCKSTEP_DATABASE__URL", "postgresql://a@h/d")
    for name in ("CERTIFICATE_FILE", "KEY_FILE", "CA_FILE"):
        monkeypatch.setenv(f"LOCKSTEP_TLS__{name}", "/certs/x")
    assert load(OwnSettings, []).database.url == "postgresql://a@h/d"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (GIVEN + "colour: red\n", "colour"),
        (GIVEN + "listen: {prot: 1}\n", "listen.prot"),
        (GIVEN + "margins: {prepare_seconds: -1}\n", "margins.prepare_seconds"),
        (GIVEN + "telemetry: {sampled_ratio: 2}\n", "telemetry.sampled_ratio"),
        (GIVEN + "telemetry: {endpoint: collector.example:4317}\n", "telemetry"),
        (GIVEN + "log_level: LOUD\n", "log_level"),
        (GIVEN.replace("coordinator@", "coordinator:hunter2@"), "database.url"),
        ("tls: {}\n", "database"),
        ("a: [b\n", "--config"),
        ("\x00", "--config"),
        ("database: {url: *hunter2}\n", "--config"),
        ("database: !hunter2 {}\n", "--config"),
        (GIVEN.replace("url:", "password: hunter2\n  url:"), "database.password"),
        (GIVEN + "listen: hunter2\n", "listen"),
        (GIVEN + "margins: {prepare_seconds: hunter2}\n", "margins.prepare_seconds"),
    ],
)
def test_what_is_wrong_is_named_without_its_value(tmp_path: Path, text: str, field: str) -> None:
    """An unknown key, a value out of its bounds, a password in a URL, a missing block, no YAML: refused by the field's name, and no value is shown."""
    with pytest.raises(FieldInvalid) as caught:
        loaded(tmp_path, text)
    assert caught.value.field == field
    assert caught.value.rule.startswith("must")
    shown = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in shown.partition("OwnSettings")[2]
    assert "hunter2" not in str(caught.value)


def test_every_finding_is_told(tmp_path: Path) -> None:
    """Several mistakes are reported at once."""
    with pytest.raises(FieldInvalid, match=r"must be given.*tls must be given|tls must be given") as caught:
        loaded(tmp_path, "log_level: LOUD\n")
    assert "log_level" in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A named file must exist."""
    with pytest.raises(FieldInvalid, match="--config"):
        load(OwnSettings, ["--config", str(tmp_path / "nowhere.yaml")])


def test_every_setting_says_what_it_is_for() -> None:
    """Every field of every common block has a description."""

    def blocks(model: type[BaseModel]) -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            if not field.description:
                found.append(f"{model.__name__}.{name}")
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                found.extend(blocks(field.annotation))
        return found

    assert blocks(ServiceSettings) == []
