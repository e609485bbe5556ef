"""How a key is named: `file:PATH` or a plain path, `ssh-agent:FINGERPRINT-or-comment`, `pkcs11:…` (RFC 7512). Pure.

A secret is never part of a name: names stand in shell histories and in the list of processes.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Final
from urllib.parse import unquote_to_bytes

from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.values import dataclass

FILE: Final = "file:"
SSH_AGENT: Final = "ssh-agent:"
PKCS11: Final = "pkcs11:"
_NAME_LENGTH_MAX: Final = 2_048
#: RFC 7512, 2.3, of those attributes that tell one token or key from another.
_PATH: Final = frozenset({"token", "manufacturer", "serial", "model", "object", "id", "type"})
_QUERY: Final = frozenset({"pin-source", "module-path"})
_ESCAPE_BROKEN: Final = re.compile(r"%(?![0-9a-fA-F]{2})")


@dataclass(frozen=True, slots=True)
class FileKey:
    """A key in a file."""

    #: Its path, as it was given.
    path: str


@dataclass(frozen=True, slots=True)
class SshAgentKey:
    """A key that an SSH agent holds."""

    #: Its fingerprint (SHA256:…, as `ssh-add -l` shows it) or its comment.
    which: str


@dataclass(frozen=True, slots=True)
class Pkcs11Key:
    """A key on a token. What is None is not asked for."""

    #: CK_TOKEN_INFO.
    token: str | None = None
    #: The same.
    manufacturer: str | None = None
    #: The same.
    serial: str | None = None
    #: The same.
    model: str | None = None
    #: CKA_LABEL of both keys of the pair.
    object: str | None = None
    #: CKA_ID of both keys of the pair.
    id: bytes | None = None
    #: Path of the file with the user PIN.
    pin_source: str | None = None
    #: Path of the maker's library.
    module_path: str | None = None


KeyName = FileKey | SshAgentKey | Pkcs11Key


def parse(name: str) -> KeyName:
    """What a name means.

    Raises:
        FieldInvalid: it is none, or holds what it must not.
    """
    require(
        0 < len(name) <= _NAME_LENGTH_MAX and "\x00" not in name, "key", f"must be a name of 1 to {_NAME_LENGTH_MAX} characters"
    )
    if name.startswith(PKCS11):
        return _pkcs11(name.removeprefix(PKCS11))
    if name.startswith(SSH_AGENT):
        which = name.removeprefix(SSH_AGENT)
        require(which != "", "key", "must name a key of the agent by its fingerprint or comment, as `ssh-add -l` shows them")
        return SshAgentKey(which)
    path = name.removeprefix(FILE)
    require(path != "", "key", "must name a file")
    return FileKey(path)


def beside(name: str, folder: PurePath) -> str:
    """The same name, with a relative path of a file taken from a folder.

    Raises:
        FieldInvalid: it is no name.
    """
    found = parse(name)
    return str(folder / found.path) if isinstance(found, FileKey) else name


def _pkcs11(uri: str) -> Pkcs11Key:
    path, _, query = uri.partition("?")
    told = _attributes(path, ";", _PATH)
    asked = _attributes(query, "&", _QUERY)
    kind = told.pop("type", b"private")
    require(kind == b"private", "key", "must name a private key (type=private)")
    require("object" in told or "id" in told, "key", "must name a key by object, id or both")
    require("token" in told or "serial" in told, "key", "must name a token by token, serial or both")
    texts = {name: _text(name, value) for name, value in told.items() if name != "id"}
    pin = _text("pin-source", asked["pin-source"]) if "pin-source" in asked else None
    require(pin is None or not pin.startswith("|"), "key", "must name a file as pin-source; programs are not run")
    module = _text("module-path", asked["module-path"]) if "module-path" in asked else None
    return Pkcs11Key(**texts, id=told.get("id"), pin_source=pin.removeprefix("file:") if pin else None, module_path=module)


def _attributes(part: str, between: str, known: frozenset[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for each in part.split(between) if part else ():
        name, equals, value = each.partition("=")
        require(name != "pin-value", "key", "must not hold a PIN: name a file of mode 0600 as pin-source")
        require(name in known, "key", f"must have no other attributes than {', '.join(sorted(known))} there")
        require(bool(equals) and name not in found, "key", f"must have one value for {name}")
        require(not _ESCAPE_BROKEN.search(value), "key", f"must have two hexadecimal digits after each % in {name}")
        found[name] = unquote_to_bytes(value)
        require(bool(found[name]), "key", f"must have a value for {name}")
    return found


def _text(name: str, value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise FieldInvalid("key", f"must have UTF-8 text as {name}") from None
    require("\x00" not in text, "key", f"must have no NUL in {name}")
    return text
