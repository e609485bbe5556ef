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
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import ActorId, party_id
from lockstep_kit.registry import Actor, Participant, RegisteredKey, Registry, Role
from lockstep_kit.signing import PublicKey
from lockstep_kit.strict_yaml import parse, read

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


def load_registry(path: Path) -> Registry:
    """The registry in a file.

    Raises:
        FieldInvalid: the file cannot be read or breaks a rule; the field is the path inside the file, as ``actors[0].keys[0].public_key``.
    """
    return _registry(read(path, _File, bytes_max=FILE_BYTES_MAX))


def parse_registry(octets: bytes) -> Registry:
    """The registry in the bytes of a file.

    Raises:
        FieldInvalid: as `load_registry`.
    """
    return _registry(parse(octets, _File))


def _registry(file: _File) -> Registry:
    actors = [
        Actor(ActorId(each.actor_id), frozenset(each.roles), _keys(each.keys, f"actors[{index}]"))
        for index, each in enumerate(file.actors)
    ]
    participants = [
        Participant(each.name, _keys(each.keys, f"participants[{index}]")) for index, each in enumerate(file.participants)
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
