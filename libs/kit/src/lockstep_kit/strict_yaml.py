"""YAML and JSON files as people write them, read strictly: no key twice, no key unknown, every finding with its field and rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from lockstep_kit.fields import FieldInvalid

_M = TypeVar("_M", bound=BaseModel)

FILE_BYTES_MAX: Final = 1 << 20


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a mapping that has a key twice, or a key that is no text."""


def _mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise FieldInvalid("file", f"must have text as keys (line {key_node.start_mark.line + 1})")
        if key in found:
            raise FieldInvalid(key, f"must be there once (line {key_node.start_mark.line + 1})")
        found[key] = loader.construct_object(value_node, deep=True)
    return found


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def parse(content: str | bytes, model: type[_M]) -> _M:
    """What a YAML or JSON file holds, as a model.

    Raises:
        FieldInvalid: it is no such file, or a field breaks a rule; the field is the path inside the file, as ``actors[0].keys[0].public_key``.
    """
    try:
        text = content if isinstance(content, str) else content.decode()
    except UnicodeDecodeError as error:
        raise FieldInvalid("file", "must be UTF-8") from error
    try:
        document = yaml.load(text, _UniqueKeys)  # noqa: S506 - the loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        where = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise FieldInvalid("file", f"must be YAML or JSON: {error.problem or error.context}{where}") from error
    except (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError) as error:
        # The last two are what the library raises over a tag whose text is none of its kind, as in `!!int ""`.
        if isinstance(error, FieldInvalid):
            raise
        raise FieldInvalid("file", "must be YAML or JSON, with characters and nesting that those allow") from error
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
        rule = {
            "extra_forbidden": "must not be there: it is no field of this kind of file",
            "missing": "must be present",
            "string_type": "must be text: numbers and times are written in quotes",
        }.get(first["type"], f"is not acceptable: {first['msg']}")
        raise FieldInvalid(field or "file", rule) from error


def read(path: Path, model: type[_M], *, bytes_max: int = FILE_BYTES_MAX) -> _M:
    """A YAML or JSON file of at most `bytes_max` bytes as a model.

    Raises:
        FieldInvalid: the file cannot be read, is too large, or a field breaks a rule.
    """
    try:
        with path.open("rb") as file:
            octets = file.read(bytes_max + 1)
    except OSError as error:
        raise FieldInvalid("file", f"must be readable: {error.strerror}") from error
    if len(octets) > bytes_max:
        raise FieldInvalid("file", f"must have at most {bytes_max} bytes")
    return parse(octets, model)
