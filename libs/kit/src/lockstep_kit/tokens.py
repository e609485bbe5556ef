"""Keys on PKCS#11 tokens, as far as it is the same for every kind of key: finding the token, logging in, finding the key.

What is not found or not taken is named by the caller's own field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pkcs11
from pkcs11 import Attribute, ObjectClass

from lockstep_kit.fields import FieldInvalid, require

PIN_ERRORS: Final = (
    pkcs11.exceptions.PinIncorrect,
    pkcs11.exceptions.PinInvalid,
    pkcs11.exceptions.PinLenRange,
    pkcs11.exceptions.PinLocked,
    pkcs11.exceptions.PinExpired,
    pkcs11.exceptions.UserPinNotInitialized,
)


class PinRefused(FieldInvalid):
    """The token does not take the PIN. It is not tried again: so many wrong ones lock the token.

    Attributes:
        error: what the token answers.
    """

    def __init__(self, field: str, error: str) -> None:
        super().__init__(field, f"must hold the token's user PIN; the token answers {error}")
        self.error = error


def find_token(library: Any, field: str, named: Mapping[str, str]) -> Any:
    """The one token of a module with these properties (label, manufacturer_id, model, serial).

    Raises:
        FieldInvalid: there is none, or more than one.
    """
    wanted = dict(named)
    label = wanted.pop("label", None)
    found = [
        token
        for token in library.get_tokens(token_label=label)
        if all(_shown(getattr(token, name)) == value for name, value in wanted.items())
    ]
    require(bool(found), field, "must be the label of a token of the module" if not wanted else "must name a token of the module")
    require(len(found) == 1, field, "must be the label of one token only" if not wanted else "must name one token only")
    return found[0]


def _shown(value: str | bytes) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    return text.rstrip(" \x00")


def log_in(token: Any, field: str, pin: str) -> Any:
    """A session of the token's user.

    Raises:
        PinRefused: the PIN is not taken; the field is that which names it.
    """
    try:
        return token.open(user_pin=pin)
    except pkcs11.exceptions.UserAlreadyLoggedIn:
        # Who is logged in is a matter of the process, not of a session (PKCS#11 2.40, 2.6.6).
        return token.open()
    except PIN_ERRORS as error:
        raise PinRefused(field, type(error).__name__) from None


def find_key(session: Any, field: str, kind: ObjectClass, key_type: Any, *, label: str | None, key_id: bytes | None) -> Any:
    """The one key of a kind with these names.

    Raises:
        FieldInvalid: there is none, or more than one.
    """
    word = "private" if kind is ObjectClass.PRIVATE_KEY else "public"
    named = {Attribute.LABEL: label, Attribute.ID: key_id}
    wanted = {Attribute.CLASS: kind, Attribute.KEY_TYPE: key_type} | {name: value for name, value in named.items() if value}
    # Read to its end: a search that is left unfinished keeps the session from anything else.
    found = list(session.get_objects(wanted))
    require(bool(found), field, f"must name a key of the token: there is no such {word} key")
    require(len(found) == 1, field, f"must name one key: there is more than one such {word} key")
    return found[0]
