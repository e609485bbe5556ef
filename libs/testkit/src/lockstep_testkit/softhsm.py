"""Tokens in SoftHSM, as set-up found it: for tests of accounts (secp256k1) and persons (Ed25519) whose keys lie in a hardware security module."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pkcs11
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from pkcs11 import Attribute, KeyType, ObjectClass
from pkcs11.util.ec import encode_named_curve_parameters

SECP256K1 = "1.3.132.0.10"
#: DER of the object identifier of edwards25519 (RFC 8410).
EDWARDS25519 = bytes.fromhex("06032b6570")


class SoftHsmAbsent(Exception):
    """It cannot be had on this machine; the message says why."""


@dataclass
class SoftHsm:
    """A store of tokens. The module reads from the environment where that is, so there is one in a process: the fixture `softhsm`."""

    folder: Path
    module: Path
    utility: Path
    pins: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def found(cls, folder: Path) -> SoftHsm:
        """The module that LOCKSTEP_SOFTHSM names, or that set-up found, with its tokens in `folder`.

        Raises:
            SoftHsmAbsent: set-up noted that it cannot be had here.
            FileNotFoundError: set-up has not looked for it.
        """
        module, utility = _paths()
        (folder / "tokens").mkdir()
        settings = folder / "softhsm2.conf"
        settings.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")
        os.environ["SOFTHSM2_CONF"] = str(settings)
        return cls(folder, module, utility)

    def add_token(self, label: str) -> None:
        """A token with a drawn PIN."""
        self.pins[label] = secrets.token_hex(8)
        command = [
            str(self.utility), "--module", str(self.module), "--init-token", "--free", "--label", label,
            "--so-pin", secrets.token_hex(8), "--pin", self.pins[label],
        ]  # fmt: skip
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60)  # noqa: S603 - what set-up found
        # A module that is loaded does not see tokens that come later.
        self.end_sessions()

    def add_key(self, token: str, label: str, key_id: bytes = b"", *, curve: str = SECP256K1, **attributes: bool) -> None:
        """A key pair that the token draws; SENSITIVE and not EXTRACTABLE unless told otherwise."""
        self._draw(token, label, key_id, KeyType.EC, encode_named_curve_parameters(curve), attributes)

    def add_edwards_key(self, token: str, label: str, key_id: bytes = b"", **attributes: bool) -> None:
        """An Ed25519 key pair that the token draws, with the same attributes."""
        self._draw(token, label, key_id, KeyType.EC_EDWARDS, EDWARDS25519, attributes)

    def _draw(self, token: str, label: str, key_id: bytes, kind: KeyType, curve: bytes, attributes: Mapping[str, bool]) -> None:
        private = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
        private |= {Attribute[name.upper()]: value for name, value in attributes.items()}
        library = pkcs11.lib(str(self.module))
        with library.get_token(token_label=token).open(rw=True, user_pin=self.pins[token]) as session:
            parameters = session.create_domain_parameters(kind, {Attribute.EC_PARAMS: curve}, local=True)
            named: dict[str, Any] = {"label": label} | ({"id": key_id} if key_id else {})
            parameters.generate_keypair(store=True, private_template=private, **named)

    def address(self, token: str, label: str) -> str:
        """EIP-55 address of a key."""
        library = pkcs11.lib(str(self.module))
        with library.get_token(token_label=token).open() as session:
            (public,) = list(session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.LABEL: label}))
            point = bytes(public[Attribute.EC_POINT])
        # The point lies in a DER octet string: two bytes, then 04, x and y.
        return to_checksum_address(keccak(point[3:])[-20:])

    def end_sessions(self) -> None:
        """What happens to a process whose device was taken away for a moment: every session and every login is gone."""
        library: Any = pkcs11.lib(str(self.module))
        library.reinitialize()

    def pin_file(self, token: str, *, pin: str | None = None, mode: int = 0o600) -> Path:
        """A file with a token's PIN."""
        path = self.folder / f"{secrets.token_hex(4)}.pin"
        path.touch(mode=0o600)
        path.write_text((self.pins[token] if pin is None else pin) + "\n")
        path.chmod(mode)
        return path


def _paths() -> tuple[Path, Path]:
    named = os.environ.get("LOCKSTEP_SOFTHSM")
    if named:
        return Path(named), Path(shutil.which("softhsm2-util") or "softhsm2-util")
    for folder in Path(__file__).parents:
        noted = folder / ".softhsm"
        if (noted / "absent").is_file():
            raise SoftHsmAbsent((noted / "absent").read_text().strip())
        if (noted / "found").is_file():
            module, utility = (noted / "found").read_text().splitlines()
            return Path(module), Path(utility)
    raise FileNotFoundError("nobody has looked for SoftHSM: run `make setup`")
