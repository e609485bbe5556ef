"""Settings: a YAML file and the environment, strictly read. Secrets come from files that the settings name, never from the settings.

`load(ServiceSettings, argv)` takes `--config FILE`. A variable LOCKSTEP_<NAME> (parts parted by two underscores) overrides a field of the file. A key
that is no field is refused.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)

from lockstep_kit.db import DatabaseSettings
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.metrics.settings import MetricsSettings
from lockstep_kit.rpc import ListenSettings, TlsSettings
from lockstep_kit.telemetry import TelemetrySettings

_S = TypeVar("_S", bound=BaseSettings)


class ServiceSettings(BaseSettings):
    """What every service is told."""

    model_config = SettingsConfigDict(env_prefix="LOCKSTEP_", env_nested_delimiter="__", extra="forbid")

    database: DatabaseSettings = Field(description="the service's own database")
    listen: ListenSettings = Field(default_factory=ListenSettings, description="where it listens")
    tls: TlsSettings = Field(description="who it is and whom it trusts")
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings, description="where its spans go")
    metrics: MetricsSettings = Field(default_factory=MetricsSettings, description="where its metrics are")
    inspectors: tuple[str, ...] = Field(
        default=(),
        description="names of operators' and auditors' clients (spiffe://lockstep.local/client/<name>): they may ask how the service is installed",
    )
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="lowest level that is logged")


def load(settings: type[_S], argv: Sequence[str] | None = None) -> _S:
    """The settings of a process from its arguments.

    Raises:
        FieldInvalid: the file cannot be read, or a field breaks a rule.
        SystemExit: the arguments are wrong.
    """
    parser = argparse.ArgumentParser(description=settings.__doc__)
    parser.add_argument("--config", type=Path, help="YAML file with settings")
    path = parser.parse_args(argv).config
    if path is not None and not path.is_file():
        raise FieldInvalid("--config", f"must be a readable file: {path}")

    class FromFile(settings):  # type: ignore[valid-type, misc]  # the file's path is known only now
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            del dotenv_settings, file_secret_settings
            return init_settings, env_settings, YamlConfigSettingsSource(settings_cls, yaml_file=path)

    try:
        found: _S = FromFile()
    except ValidationError as error:
        # The texts name no values: one of them might be a secret in the wrong place.
        first, *others = (f"{'.'.join(str(part) for part in each['loc'])} {_rule(each)}" for each in error.errors())
        field, _, rule = first.partition(" ")
        raise FieldInvalid(field, "; ".join((rule, *others))) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, SettingsError) as error:
        raise FieldInvalid("--config", f"must be a readable YAML file of settings: {_unreadable(error)}") from None
    return found


def _unreadable(error: Exception) -> str:
    """Where the file is wrong: what stands there may be a secret."""
    match error:
        case yaml.MarkedYAMLError(problem_mark=yaml.Mark() as mark):
            return f"no YAML in line {mark.line + 1}, column {mark.column + 1}"
        case OSError():
            return error.strerror or "it cannot be read"
        case SettingsError():
            return "a variable holds no JSON where its setting has parts"
        case _:
            return type(error).__name__


def _rule(finding: ErrorDetails) -> str:
    match finding["type"]:
        case "missing":
            return "must be given"
        case "extra_forbidden":
            return "must not be given: there is no such setting"
        case "value_error":
            return finding["msg"].removeprefix("Value error, ")
        case _:
            return f"must be acceptable: {finding['msg'][:1].lower()}{finding['msg'][1:]}"
