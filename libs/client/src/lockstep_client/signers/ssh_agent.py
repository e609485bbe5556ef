"""A key that an SSH agent holds, on this machine or forwarded to it (draft-ietf-sshm-ssh-agent, over the socket that SSH_AUTH_SOCK names).

The agent signs the very bytes that it is given (RFC 8709), so that the registry's public key verifies what comes back. The same key may open SSH
sessions: what is signed here begins with a domain of Lockstep's, which neither a session's authentication (RFC 4252, 7: it begins with a length) nor a
signature by `ssh-keygen -Y` (it begins with SSHSIG) ever does.

Each request has a connection of its own: an agent that was started anew is found again.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
from collections.abc import Mapping
from typing import Final, Self

from lockstep_client.signers.ports import SignerUnavailable
from lockstep_kit.fields import require
from lockstep_kit.signing import PublicKey, Signature
from lockstep_kit.values import dataclass

SOCKET: Final = "SSH_AUTH_SOCK"
ALGORITHM: Final = b"ssh-ed25519"
#: What everything begins with that a person of Lockstep's signs.
DOMAIN_PREFIX: Final = b"lockstep/"
#: Longest that the agent may take to say what it holds.
LIST_SECONDS_MAX: Final = 10.0
#: And to sign: it may ask a person first (`ssh-add -c`, or a key that wants to be touched).
SIGN_SECONDS_MAX: Final = 120.0
_ANSWER_BYTES_MAX: Final = 256 * 1024
_FAILURE: Final = 5
_REQUEST_IDENTITIES, _IDENTITIES = 11, 12
_SIGN_REQUEST, _SIGN_RESPONSE = 13, 14
_SOURCE: Final = "ssh_agent"


@dataclass(frozen=True, slots=True)
class Identity:
    """An Ed25519 key of the agent's."""

    #: The key as SSH writes it.
    blob: bytes
    #: What its owner calls it.
    comment: str

    @property
    def fingerprint(self) -> str:
        """As `ssh-add -l` shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    @property
    def public(self) -> PublicKey:
        """The key itself."""
        return PublicKey(self.blob[-32:])


class SshAgentSigner:
    """`Signer` with a key of an SSH agent."""

    def __init__(self, path: str, identity: Identity) -> None:
        self._path = path
        self._identity = identity

    @classmethod
    def open(cls, which: str, environ: Mapping[str, str] = os.environ) -> Self:
        """The key of that fingerprint or comment.

        Raises:
            FieldInvalid: the agent has no such Ed25519 key, or more than one.
            SignerUnavailable: there is no agent.
        """
        path = environ.get(SOCKET, "")
        if not path:
            raise SignerUnavailable(_SOURCE, f"no SSH agent: {SOCKET} is not set")
        held = identities(_asked(path, bytes([_REQUEST_IDENTITIES]), LIST_SECONDS_MAX))
        found = [each for each in held if each.fingerprint == which] or [each for each in held if each.comment == which]
        require(bool(found), "key", f"must name an Ed25519 key of the SSH agent, which has {len(held)}: there is no {which!r}")
        require(
            len(found) == 1,
            "key",
            f"must name one key: {len(found)} of the SSH agent's are called {which!r}; name it by its fingerprint",
        )
        return cls(path, found[0])

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return self._identity.public

    def sign(self, message: bytes) -> Signature:
        """Signature over the message, checked before it is handed out.

        Raises:
            SignerUnavailable: the agent does not sign, or not with this key.
        """
        if not message.startswith(DOMAIN_PREFIX):
            raise AssertionError("an agent's key signs nothing but statements of Lockstep's")
        request = bytes([_SIGN_REQUEST]) + _string(self._identity.blob) + _string(message) + bytes(4)
        answer = _asked(self._path, request, SIGN_SECONDS_MAX)
        try:
            kind, reader = answer[0], _Reader(answer[1:])
            signed = _Reader(reader.string() if kind == _SIGN_RESPONSE else b"")
            algorithm, octets = signed.string(), signed.string()
        except (ValueError, IndexError):
            said = "refuses to sign" if answer[:1] == bytes([_FAILURE]) else "gives no signature"
            raise SignerUnavailable(_SOURCE, f"the SSH agent {said}; nothing was signed") from None
        if algorithm != ALGORITHM or not self.public.verifies(message, octets):
            raise SignerUnavailable(_SOURCE, "the SSH agent signed something else, or with another key; its signature is not used")
        return Signature(self.public.key_id, octets)


def identities(answer: bytes) -> list[Identity]:
    """The Ed25519 keys of the agent's answer; those of other kinds are left out.

    Raises:
        SignerUnavailable: it is no such answer.
    """
    try:
        if answer[0] != _IDENTITIES:
            raise ValueError
        reader, found = _Reader(answer[1:]), []
        for _ in range(reader.number()):
            blob, comment = reader.string(), reader.string()
            if blob[:-32] == _string(ALGORITHM) + (32).to_bytes(4):
                found.append(Identity(blob, comment.decode(errors="replace")))
    except (ValueError, IndexError):
        raise SignerUnavailable(_SOURCE, "the SSH agent does not say which keys it has") from None
    return found


class _Reader:
    """Reads what SSH writes (RFC 4251, 5)."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def number(self) -> int:
        return int.from_bytes(self._taken(4))

    def string(self) -> bytes:
        return self._taken(self.number())

    def _taken(self, count: int) -> bytes:
        if count > len(self._octets):
            raise ValueError("the answer ends too early")
        taken, self._octets = self._octets[:count], self._octets[count:]
        return taken


def _string(octets: bytes) -> bytes:
    return len(octets).to_bytes(4) + octets


def _asked(path: str, request: bytes, seconds_max: float) -> bytes:
    """The agent's answer."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
            agent.settimeout(seconds_max)
            agent.connect(path)
            agent.sendall(_string(request))
            length = int.from_bytes(_received(agent, 4))
            if not 1 <= length <= _ANSWER_BYTES_MAX:
                raise SignerUnavailable(_SOURCE, "the SSH agent's answer has no length that an answer has")
            return _received(agent, length)
    except TimeoutError:
        raise SignerUnavailable(_SOURCE, f"the SSH agent gave no answer in {seconds_max:g} s") from None
    except OSError as error:
        raise SignerUnavailable(_SOURCE, f"the SSH agent at {path} cannot be reached: {error.strerror or error}") from None


def _received(agent: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = agent.recv(count - len(found))
        if not part:
            raise SignerUnavailable(_SOURCE, "the SSH agent ended the connection")
        found += part
    return found
