"""The registry of keys as a YAML file, strictly read: a key that is no field, a key twice, a time without an offset are refused by name.

actors:
  - actor_id: alice
    roles: [maker]
    keys: [{public_key: <base64 of 32 bytes>, not_before: 2026-01-01T00:00:00Z, not_after: 2036-01-01T00:00:00Z}]
participants:
  - name: bank-gateway
    keys: [{…}]
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import ActorId, party_id
from lockstep_kit.registry import Actor, Participant, RegisteredKey, Registry, Role
from lockstep_kit.signing import PublicKey

FILE_BYTES_MAX: Final = 4 << 20
PUBLIC_KEY_BYTES: Final = 32


def _public_key(value: object) -> bytes:
    try:
        octets = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except binascii.Error:
        octets = b""
    if len(octets) != PUBLIC_KEY_BYTES:
        raise ValueError(f"must be base64 of {PUBLIC_KEY_BYTES} bytes")
    return octets


def _name(text: str) -> str:
    return party_id(text, "name")


_Name = Annotated[str, AfterValidator(_name)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Key(_Strict):
    public_key: Annotated[bytes, BeforeValidator(_public_key)]
    not_before: AwareDatetime
    not_after: AwareDatetime


class _Actor(_Strict):
    actor_id: _Name
    roles: list[Role] = Field(min_length=1)
    keys: list[_Key] = Field(min_length=1)


class _Participant(_Strict):
    name: _Name
    keys: list[_Key] = Field(min_length=1)


class _File(_Strict):
    actors: list[_Actor]
    participants: list[_Participant]


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a mapping names no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for name, _ in node.value:
            key = self.construct_object(name, deep=True)
            if key in seen:
                raise FieldInvalid(str(key), f"must be given once (line {name.start_mark.line + 1})")
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_registry(path: Path) -> Registry:
    """The registry in a file.

    Raises:
        FieldInvalid: the file breaks a rule; the field is the path inside the file, as ``actors[0].keys[0].public_key``.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        octets = file.read(FILE_BYTES_MAX + 1)
    if len(octets) > FILE_BYTES_MAX:
        raise FieldInvalid(str(path), f"must have at most {FILE_BYTES_MAX} bytes")
    return parse_registry(octets)


def parse_registry(octets: bytes) -> Registry:
    """The registry in the bytes of a file.

    Raises:
        FieldInvalid: as `load_registry`.
    """
    try:
        document = yaml.load(octets, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, RecursionError) as error:
        raise FieldInvalid("registry", "must be a well-formed YAML document") from error
    try:
        read = _File.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise FieldInvalid(_path(first["loc"]) or "registry", f"is not acceptable: {first['msg']}") from error
    actors = [
        Actor(ActorId(each.actor_id), frozenset(each.roles), _keys(each.keys, f"actors[{index}]"))
        for index, each in enumerate(read.actors)
    ]
    participants = [
        Participant(each.name, _keys(each.keys, f"participants[{index}]")) for index, each in enumerate(read.participants)
    ]
    _check_once([each.actor_id for each in actors], "actors", "actor_id")
    _check_once([each.name for each in participants], "participants", "name")
    try:
        return Registry(actors, participants)
    except ValueError as error:
        raise FieldInvalid("registry", f"must name each key once: {error}") from error


def _keys(keys: Sequence[_Key], prefix: str) -> tuple[RegisteredKey, ...]:
    for index, key in enumerate(keys):
        if key.not_before >= key.not_after:
            raise FieldInvalid(f"{prefix}.keys[{index}].not_after", "must be after not_before")
    return tuple(RegisteredKey(PublicKey(key.public_key), key.not_before, key.not_after) for key in keys)


def _check_once(names: Sequence[str], entries: str, field: str) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise FieldInvalid(f"{entries}[{index}].{field}", f"must be unique: {name} is there twice")


def _path(location: Sequence[int | str]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text
