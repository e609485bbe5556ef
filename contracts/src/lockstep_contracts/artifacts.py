"""What the compiler gave: each contract's ABI and code, loaded from the files that `contracts/compile.mjs` writes and checks."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, TypeAlias

#: One entry of a contract's ABI (the JSON ABI of the Solidity documentation).
AbiEntry: TypeAlias = dict[str, Any]

NAMES: Final = ("SettlementEscrow", "NotaryRegistry", "SandboxToken")


@dataclass(frozen=True, slots=True)
class Artifact:
    """One compiled contract."""

    #: Name in its source.
    name: str
    #: The JSON ABI.
    abi: tuple[AbiEntry, ...]
    #: Creation code; constructor arguments are appended to it.
    bytecode: bytes
    #: SHA-256 of the deployed code before immutable values are filled in.
    deployed_sha256: bytes

    def entry(self, kind: str, name: str) -> AbiEntry:
        """The only entry of that kind ("function", "event", "error", "constructor" with name "") and name.

        Raises:
            KeyError: there is none, or there are several.
        """
        found = [entry for entry in self.abi if entry["type"] == kind and entry.get("name", "") == name]
        if len(found) != 1:
            raise KeyError(f"{self.name} has {len(found)} entries {kind} {name}")
        return found[0]


def parse_artifact(text: str) -> Artifact:
    """An artifact from the text of its file."""
    document = json.loads(text)
    return Artifact(
        name=document["name"],
        abi=tuple(document["abi"]),
        bytecode=bytes.fromhex(document["bytecode"].removeprefix("0x")),
        deployed_sha256=bytes.fromhex(document["deployed_sha256"]),
    )


@functools.cache
def artifact(name: str) -> Artifact:
    """A contract of this package.

    Raises:
        KeyError: `name` is none of NAMES.
    """
    if name not in NAMES:
        raise KeyError(f"no contract {name}; there are {', '.join(NAMES)}")
    return parse_artifact((resources.files(__package__) / "artifacts" / f"{name}.json").read_text("utf-8"))
