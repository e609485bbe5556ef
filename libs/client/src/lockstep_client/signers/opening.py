"""A key's signer, by the key's name."""

from __future__ import annotations

from pathlib import Path

from lockstep_client.signers.naming import FileKey, Pkcs11Key, SshAgentKey, parse
from lockstep_client.signers.ssh_agent import SshAgentSigner
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.key_files import read_signing_key
from lockstep_kit.signing import Signer


def open_signer(name: str, *, option: str = "--key") -> Signer:
    """The signer of a key; `option` is what named it.

    Raises:
        FieldInvalid: the name is none, or there is no such key, or it cannot be used.
        OSError: a file cannot be read.
        SignerUnavailable: the agent or token does not answer.
    """
    try:
        found = parse(name)
        match found:
            case FileKey():
                return read_signing_key(Path(found.path))
            case SshAgentKey():
                return SshAgentSigner.open(found.which)
            case Pkcs11Key():
                # Whoever has no token does not wait for its library.
                from lockstep_client.signers.pkcs11 import Pkcs11Signer

                return Pkcs11Signer.open(found)
    except FieldInvalid as finding:
        # A key's file is named by its path.
        raise (FieldInvalid(option, finding.rule) if finding.field == "key" else finding) from None
