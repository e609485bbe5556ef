"""Messages as broken software sends them: spoiled copies of what the bank said. What it said itself stays as it was, so that a question brings it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from uuid import UUID

from bank_simulator import message_store
from bank_simulator.database import Connection
from bank_simulator.misbehaviour import Kind, Script

_MADE = """
-- A message that was made, byte for byte.
select counterparty, kind, business_message_id, uetrs, body from messages_out where message_id = $1
"""

#: Ways to break a message's form.
_GARBLED: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "truncated": lambda body: body[: len(body) * 2 // 3],
    "entity": lambda body: body.replace(b"<BusinessMessage", b'<!DOCTYPE a [<!ENTITY e "x">]>\n<BusinessMessage', 1),
    "encoding": lambda body: re.sub(rb"""encoding=(['"])[^'"]*""", rb"encoding=\1ISO-8859-1", body, count=1),
    "schema": lambda body: body.replace(b"</Document>", b"<Unknown/></Document>", 1),
    "definition": lambda body: body.replace(b"<MsgDefIdr>", b"<MsgDefIdr>x", 1),
}
#: Ways to break a message's signature.
_MISSIGNED: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "absent": lambda body: re.sub(rb"<Sgntr\b.*</Sgntr>", b"", body, flags=re.DOTALL),
    "content": lambda body: re.sub(
        rb"(<CreDt>[^.]*\.)(\d)", lambda found: found[1] + b"%d" % ((int(found[2]) + 1) % 10), body, count=1
    ),
    "value": lambda body: re.sub(rb"(SignatureValue>)(.{4})", rb"\1AAAA", body, count=1),
}
#: What a spoiled copy says is kept under another name than the message that it is made of.
_COPY: Final = "~"


async def spoiled_copy(tx: Connection, message: int, script: Script, sign: Callable[[bytes], bytes]) -> int:
    """Keeps a spoiled copy of a message, as an answer to nothing; returns its number."""
    made = await tx.fetchrow(_MADE, message)
    if made is None:
        raise AssertionError("a message that is to be sent was made")
    body = spoiled(made["body"], made["uetrs"], script, sign)
    name = f"{made['business_message_id']}{_COPY}{secrets.token_hex(4)}"
    (number,) = await message_store.add_messages(
        tx, made["counterparty"], [message_store.NewMessage(made["kind"], name, None, made["uetrs"], body)]
    )
    return number


def spoiled(body: bytes, uetrs: Sequence[UUID], script: Script, sign: Callable[[bytes], bytes]) -> bytes:
    """A message with a mistake in it; one that says something wrong is signed like any other."""
    if script.kind is Kind.GARBLE:
        return _GARBLED[script.how](body)
    if script.kind is Kind.MISSIGN:
        return _MISSIGNED[script.how](body)
    for uetr in uetrs:
        body = body.replace(str(uetr).encode(), str(UUID(int=uetr.int ^ 1)).encode())
    return sign(body)
