"""docs/settings.md: every setting of every service with its type, its default and its bounds, as the settings classes hold them."""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import annotated_types
from protocol_page import table
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from bank_gateway.settings import BankGatewaySettings
from coordinator.settings import CoordinatorSettings
from dlt_gateway.settings import DltGatewaySettings
from event_journal.settings import JournalSettings
from lockstep_console.settings import ConsoleSettings
from lockstep_kit.settings import ServiceSettings
from lockstep_monitor.settings import MonitorSettings
from notary.settings import NotarySettings

INTRODUCTION = """\
# Settings

This page is generated from the services' settings classes (`make docs`).

A service reads one YAML file, `--config FILE`; a part of a name is a level of the file: `database.pool_size_max` is `pool_size_max` under `database`.
A variable `LOCKSTEP_<NAME>`, its parts parted by two underscores (`LOCKSTEP_DATABASE__POOL_SIZE_MAX`), overrides the file. A key that is no setting is
refused, and a service that is told something it cannot use does not start. Secrets come from files that settings name, never from settings.
`[]` stands for each entry of a list, `{}` for each name of a mapping. **required** has no default.
"""

SERVICES: Mapping[str, type[BaseModel]] = {
    "coordinator": CoordinatorSettings,
    "dlt-gateway": DltGatewaySettings,
    "bank-gateway": BankGatewaySettings,
    "notary": NotarySettings,
    "event-journal": JournalSettings,
    "monitor": MonitorSettings,
    "console": ConsoleSettings,
}


def page() -> str:
    """The page."""
    common = ServiceSettings.model_fields
    parts = [INTRODUCTION, section("Every service", ServiceSettings, common)]
    for name, model in SERVICES.items():
        own = {
            field: info
            for field, info in model.model_fields.items()
            if not issubclass(model, ServiceSettings) or field not in common
        }
        parts.append(section(name, model, own))
    return "\n".join(parts)


def section(title: str, model: type[BaseModel], fields: Mapping[str, FieldInfo]) -> str:
    """A service's settings."""
    rows = [row for name, info in fields.items() for row in rows_of(name, info, default_of(info))]
    about = (model.__doc__ or "").strip().splitlines()[0]
    return f"## {title}\n\n{about}\n\n{table(('setting', 'what it is', 'type', 'default'), rows)}"


def rows_of(name: str, info: FieldInfo, value: Any) -> Iterator[Sequence[str]]:
    """A setting's row, with what stands where nothing is given, and the rows of what it holds."""
    models = list(models_of(info.annotation, ""))
    if not models or info.description:
        yield f"`{name}`", cell(info.description or ""), cell(said(info.annotation) + bounds(info)), default(value)
    for suffix, model in models:
        for inner, each in model.model_fields.items():
            # A part that is given as a whole has its own defaults.
            found = getattr(value, inner) if isinstance(value, model) and not suffix else default_of(each)
            yield from rows_of(f"{name}{suffix}.{inner}", each, found)


def models_of(annotation: Any, suffix: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """The parts that a type holds, each with how it is reached."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        yield from models_of(arguments[0], suffix)
    elif origin in (types.UnionType, typing.Union):
        for each in arguments:
            yield from models_of(each, suffix)
    elif origin in (list, tuple, set, frozenset):
        yield from models_of(arguments[0], f"{suffix}[]")
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        yield from models_of(arguments[1], f"{suffix}.{{}}")
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield suffix, annotation


def said(annotation: Any) -> str:
    """A type in the words of the file."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    match annotation:
        case _ if origin is typing.Annotated:
            return said(arguments[0])
        case _ if origin is typing.Literal:
            return " or ".join(str(each) for each in arguments)
        case _ if origin in (types.UnionType, typing.Union):
            return " or ".join(dict.fromkeys(said(each) for each in arguments if each is not type(None)))
        case _ if origin in (list, tuple, set, frozenset):
            return f"list of {said(arguments[0])}"
        case _ if isinstance(origin, type) and issubclass(origin, Mapping):
            return f"mapping of {said(arguments[0])} to {said(arguments[1])}"
        case type() if issubclass(annotation, enum.Enum):
            return " or ".join(str(each.value) for each in annotation)
        case type() if issubclass(annotation, BaseModel):
            return "settings"
        case type() if issubclass(annotation, Path):
            return "path"
        case _:
            return {str: "text", int: "whole number", float: "number", bool: "true or false"}.get(annotation, "text")


def bounds(info: FieldInfo) -> str:
    """The bounds of a value."""
    found = []
    for each in info.metadata:
        match each:
            case annotated_types.Ge(ge=least):
                found.append(f">= {least}")
            case annotated_types.Gt(gt=least):
                found.append(f"> {least}")
            case annotated_types.Le(le=most):
                found.append(f"<= {most}")
            case annotated_types.Lt(lt=most):
                found.append(f"< {most}")
            case annotated_types.MinLen(min_length=least):
                found.append(f"at least {least} long")
            case annotated_types.MaxLen(max_length=most):
                found.append(f"at most {most} long")
    return "".join(f", {each}" for each in found)


def default_of(info: FieldInfo) -> Any:
    """What stands where nothing is given; undefined where something has to be."""
    return PydanticUndefined if info.is_required() else info.get_default(call_default_factory=True, validated_data={})


def default(value: Any) -> str:
    """A default in words."""
    match value:
        case _ if value is PydanticUndefined:
            return "**required**"
        case None | "":
            return "none"
        case BaseModel():
            return "as below"
        case bool():
            return str(value).lower()
        case enum.Enum():
            return f"`{value.value}`"
        case float() if value.is_integer():
            return f"{value:,.0f}"
        case int() | float():
            return f"{value:,}"
        case Mapping() if any(isinstance(each, BaseModel) for each in value.values()):
            return "as below"
        case Mapping():
            return cell(", ".join(f"`{text(key)}: {text(each)}`" for key, each in value.items()) or "none")
        case tuple() | list() | set() | frozenset():
            return cell(
                ", ".join(f"`{text(each)}`" for each in (sorted(value) if isinstance(value, (set, frozenset)) else value)) or "none"
            )
        case _:
            return f"`{cell(str(value))}`"


def text(value: Any) -> str:
    """A value as the file has it."""
    return str(value.value) if isinstance(value, enum.Enum) else str(value)


def cell(words: str) -> str:
    """Words that part no columns."""
    return words.replace("|", "\\|")
