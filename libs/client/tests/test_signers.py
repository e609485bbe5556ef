"""Persons' keys wherever they lie: in a file, in a real SSH agent, on a token (SoftHSM). What they sign, the registry's public key verifies."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner

from lockstep_client.cli import app
from lockstep_client.signers import SignerUnavailable, open_signer
from lockstep_client.signers.naming import FileKey, Pkcs11Key, SshAgentKey, beside, parse
from lockstep_client.signers.ssh_agent import DOMAIN_PREFIX, Identity, SshAgentSigner
from lockstep_client.signing import gate_signature
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import sha256
from lockstep_kit.key_files import write_signing_key
from lockstep_kit.resolutions import Resolution, ResolutionStatement, Verb
from lockstep_kit.signing import PublicKey, SigningKey
from lockstep_kit.statements import Gate, GateStatement, Verdict
from lockstep_testkit.softhsm import SoftHsm

SEED = sha256(b"the person's key")
LATER = datetime(2031, 1, 1, tzinfo=UTC)


def statement_bytes() -> list[bytes]:
    """Everything that a person signs: each gate, and a resolution."""
    digest = sha256(b"plan")
    gates = [
        GateStatement(gate, verdict, digest, bytes(16), LATER, digest if gate is Gate.RELEASE else None, None)
        for gate in Gate
        for verdict in Verdict
    ]
    resolution = ResolutionStatement(Resolution(digest, "escalation", Verb.RETRY), bytes(16), LATER)
    return [*(each.signed_bytes() for each in gates), resolution.signed_bytes()]


# -- Names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("maker.pem", FileKey("maker.pem")),
        ("file:maker.pem", FileKey("maker.pem")),
        ("/keys/a:b.pem", FileKey("/keys/a:b.pem")),
        ("ssh-agent:SHA256:abc", SshAgentKey("SHA256:abc")),
        ("ssh-agent:me@desk", SshAgentKey("me@desk")),
        ("pkcs11:token=one;object=maker", Pkcs11Key(token="one", object="maker")),
        (
            "pkcs11:token=My%20token;serial=12;model=m;manufacturer=us;id=%01%ff;type=private?pin-source=file:/pin&module-path=/lib/m.so",
            Pkcs11Key("My token", "us", "12", "m", None, b"\x01\xff", "/pin", "/lib/m.so"),
        ),
    ],
)
def test_a_name_means_one_key(name: str, meant: object) -> None:
    """Plain paths stay what they were."""
    assert parse(name) == meant


@pytest.mark.parametrize(
    "name",
    [
        "", "file:", "ssh-agent:", "a\x00b", "x" * 3_000, "pkcs11:", "pkcs11:token=one", "pkcs11:object=maker", "pkcs11:token=one;object=a;object=b",
        "pkcs11:token=one;object=maker;type=cert", "pkcs11:token=one;object=%zz", "pkcs11:token=one;object=%ff", "pkcs11:token=one;object=",
        "pkcs11:token=one;slot-id=1;object=maker", "pkcs11:token=one;object=maker?pin-value=1234", "pkcs11:token=one;pin-value=1;object=a",
        "pkcs11:token=one;object=maker?pin-source=|cat", "pkcs11:token=one;object=a%00b",
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused(name: str) -> None:
    """By a rule, and nothing is opened; a PIN is never taken from a name."""
    with pytest.raises(FieldInvalid) as refused:
        parse(name)
    assert refused.value.field == "key"
    assert "1234" not in str(refused.value)


def test_a_relative_path_is_taken_from_its_folder() -> None:
    """Other names stay as they are."""
    assert beside("maker.pem", Path("/etc")) == "/etc/maker.pem"
    assert beside("file:/keys/maker.pem", Path("/etc")) == "/keys/maker.pem"
    assert beside("ssh-agent:me", Path("/etc")) == "ssh-agent:me"


# -- Files -------------------------------------------------------------------------------------------------------------


def test_a_key_in_a_file(tmp_path: Path) -> None:
    """Named with or without the scheme; one that others may read is refused by its path."""
    path = tmp_path / "maker.pem"
    write_signing_key(path, SigningKey(SEED))
    for name in (str(path), f"file:{path}"):
        assert open_signer(name).public == SigningKey(SEED).public
    path.chmod(0o644)
    with pytest.raises(FieldInvalid, match="mode 0600"):
        open_signer(str(path))


# -- The SSH agent -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agent:
    """A running ssh-agent."""

    socket: Path
    folder: Path

    @property
    def environ(self) -> dict[str, str]:
        return {"SSH_AUTH_SOCK": str(self.socket)}

    def add(self, key: Ed25519PrivateKey, comment: str, *options: str) -> None:
        path = self.folder / comment.replace("/", "-")
        path.touch(mode=0o600)
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        self._run("ssh-keygen", "-q", "-c", "-C", comment, "-f", str(path))
        self._run("ssh-add", "-q", *options, str(path))

    def run_add(self, *arguments: str) -> str:
        return self._run("ssh-add", *arguments)

    def _run(self, *command: str) -> str:
        environ = {**os.environ, **self.environ}
        run = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=60)
        return run.stdout


@pytest.fixture
def agent(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    """OpenSSH's own agent."""
    if shutil.which("ssh-agent") is None:
        pytest.skip("OpenSSH's agent is not installed")
    folder = tmp_path_factory.mktemp("ssh")
    path = folder / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        for _ in range(6_000):
            if path.exists():
                break
            threading.Event().wait(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield Agent(path, folder)
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_a_key_of_an_ssh_agent(agent: Agent) -> None:
    """Found by fingerprint or comment; its signature over a statement is the very one that a key in a file makes."""
    private = Ed25519PrivateKey.from_private_bytes(SEED)
    agent.add(private, "maker@desk")
    agent.add(Ed25519PrivateKey.generate(), "other")
    fingerprint = next(line.split()[1] for line in agent.run_add("-l").splitlines() if "maker@desk" in line)
    for name in ("ssh-agent:maker@desk", f"ssh-agent:{fingerprint}"):
        signer = open_signer(name)
        assert signer.public == SigningKey(SEED).public
        for octets in statement_bytes():
            signature = signer.sign(octets)
            assert signature == SigningKey(SEED).sign(octets)
            assert SigningKey(SEED).public.verifies(octets, signature.octets)


def test_a_gate_signed_by_an_agent(agent: Agent) -> None:
    """What the client sends is signed by the registered key."""
    agent.add(Ed25519PrivateKey.from_private_bytes(SEED), "approver")
    signed = gate_signature(open_signer("ssh-agent:approver"), Gate.APPROVE, sha256(b"plan"), nonce=bytes(16), expires_at=LATER)
    assert signed.signature.key_id == SigningKey(SEED).public.key_id
    assert SigningKey(SEED).public.verifies(signed.statement.signed_bytes(), signed.signature.octets)


def test_what_an_agent_does_not_have(agent: Agent) -> None:
    """A key that is not there, one that is there twice under a name, one of another kind: each is refused, and nothing is signed."""
    with pytest.raises(FieldInvalid, match="there is no 'nobody'"):
        open_signer("ssh-agent:nobody")
    for _ in range(2):
        agent.add(Ed25519PrivateKey.generate(), "twin")
        (agent.folder / "twin").unlink()
    with pytest.raises(FieldInvalid, match="2 of the SSH agent's"):
        open_signer("ssh-agent:twin")
    rsa = generate_private_key(public_exponent=65_537, key_size=2_048)
    path = agent.folder / "rsa"
    path.touch(mode=0o600)
    path.write_bytes(rsa.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    agent.run_add("-q", str(path))
    with pytest.raises(FieldInvalid, match="must name an Ed25519 key"):
        open_signer("ssh-agent:rsa")


def test_an_agent_that_will_not_or_is_gone(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that is locked, has lost the key, or is not there: nothing was signed, and the next signature is asked for anew."""
    agent.add(Ed25519PrivateKey.from_private_bytes(SEED), "maker")
    signer = open_signer("ssh-agent:maker")
    agent.run_add("-q", "-D")
    with pytest.raises(SignerUnavailable, match="refuses to sign"):
        signer.sign(statement_bytes()[0])
    agent.run_add("-q", str(agent.folder / "maker"))
    assert signer.sign(statement_bytes()[0]) == SigningKey(SEED).sign(statement_bytes()[0])
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent.folder / "nothing"))
    with pytest.raises(SignerUnavailable, match="cannot be reached"):
        open_signer("ssh-agent:maker")
    monkeypatch.delenv("SSH_AUTH_SOCK")
    with pytest.raises(SignerUnavailable, match="SSH_AUTH_SOCK is not set"):
        open_signer("ssh-agent:maker")


def test_statements_are_never_ssh() -> None:
    """No statement can pass for a session's authentication (RFC 4252, 7) or for a file's signature (ssh-keygen -Y), nor the other way about."""
    blob = _string(b"ssh-ed25519") + _string(SigningKey(SEED).public.octets)
    session = _string(bytes(32)) + bytes([50]) + _string(b"me") + _string(b"ssh-connection") + _string(b"publickey") + b"\x01"
    authentication = session + _string(b"ssh-ed25519") + _string(blob)
    file = b"SSHSIG" + _string(b"lockstep") + _string(b"") + _string(b"sha512") + _string(bytes(64))
    for octets in statement_bytes():
        assert octets.startswith(DOMAIN_PREFIX)
        # What an authentication begins with is the length of a hash: 20 to 64.
        assert not 20 <= int.from_bytes(octets[:4]) <= 64
        assert not octets.startswith(b"SSHSIG")
    signer = SshAgentSigner("/nowhere", Identity(blob, "maker"))
    for octets in (authentication, file, b""):
        assert not octets.startswith(DOMAIN_PREFIX)
        with pytest.raises(AssertionError):
            signer.sign(octets)


def _string(octets: bytes) -> bytes:
    return len(octets).to_bytes(4) + octets


@contextmanager
def lying(folder: Path, answer: Callable[[bytes], bytes]) -> Iterator[dict[str, str]]:
    """An agent that answers what it is told to: a twin, for what OpenSSH's never does."""
    path = folder / "liar"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    taken, _ = listener.accept()
                except OSError:
                    return
                with taken:
                    length = int.from_bytes(taken.recv(4))
                    taken.sendall(answer(taken.recv(length)))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield {"SSH_AUTH_SOCK": str(path)}
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=30)


HELD = _string(b"ssh-ed25519") + _string(SigningKey(SEED).public.octets)
LISTED = _string(bytes([12]) + (1).to_bytes(4) + _string(HELD) + _string(b"maker"))
OTHERS = _string(b"ssh-ed25519") + _string(SigningKey(sha256(b"other")).sign(statement_bytes()[0]).octets)
LIES = {
    "another key's signature": _string(bytes([14]) + _string(OTHERS)),
    "another algorithm": _string(bytes([14]) + _string(_string(b"ssh-rsa") + _string(bytes(64)))),
    "a short signature": _string(bytes([14]) + _string(_string(b"ssh-ed25519") + _string(bytes(10)))),
    "a length beyond the answer": _string(bytes([14]) + (9_999).to_bytes(4)),
    "a length without an end": (2**31).to_bytes(4),
    "nothing": b"",
    "half an answer": _string(bytes([14]))[:-1],
    "no length": _string(b""),
    "failure": _string(bytes([5])),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_an_agent_says_is_checked(tmp_path: Path, lie: str) -> None:
    """A signature that is not the named key's over these bytes is never handed out."""
    with lying(tmp_path, lambda request: LISTED if request[0] == 11 else LIES[lie]) as environ:
        signer = SshAgentSigner.open("maker", environ)
        with pytest.raises(SignerUnavailable):
            signer.sign(statement_bytes()[0])


@pytest.mark.parametrize(
    "answer", [b"", _string(b""), _string(bytes([5])), _string(bytes([12, 255, 255, 255, 255])), _string(bytes([12]))]
)
def test_what_an_agent_lists_is_checked(tmp_path: Path, answer: bytes) -> None:
    """No list of keys: no key."""
    with lying(tmp_path, lambda _: answer) as environ, pytest.raises(SignerUnavailable):
        SshAgentSigner.open("maker", environ)


# -- Tokens ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hsm(softhsm: SoftHsm) -> SoftHsm:
    """A token with keys of persons."""
    softhsm.add_token("people")
    softhsm.add_edwards_key("people", "maker", b"\x01\xff")
    softhsm.add_edwards_key("people", "loose", extractable=True)
    softhsm.add_edwards_key("people", "twin", b"\x02")
    softhsm.add_edwards_key("people", "twin", b"\x03")
    softhsm.add_key("people", "ethereum")
    return softhsm


def named(hsm: SoftHsm, path: str, *, pin: Path | None = None, module: object = None) -> str:
    source = pin or hsm.pin_file("people")
    return f"pkcs11:{path}?pin-source=file:{source}&module-path={module or hsm.module}"


@pytest.mark.parametrize(
    "path", ["token=people;object=maker", "token=people;id=%01%FF;type=private", "token=people;object=maker;id=%01%ff"]
)
def test_a_key_on_a_token(hsm: SoftHsm, path: str) -> None:
    """Its signature over a statement verifies under the public key that the token shows, again after every session has ended."""
    signer = open_signer(named(hsm, path))
    for octets in statement_bytes():
        signature = signer.sign(octets)
        assert signature.key_id == signer.public.key_id
        assert PublicKey(signer.public.octets).verifies(octets, signature.octets)
        assert not signer.public.verifies(octets + b" ", signature.octets)
    hsm.end_sessions()
    assert signer.public.verifies(b"lockstep/", signer.sign(b"lockstep/").octets)


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("token=people;object=nobody", "there is no such private key"),
        ("token=people;object=twin", "more than one"),
        ("token=people;object=ethereum", "there is no such private key"),
        ("token=people;object=loose", "SENSITIVE"),
        ("token=nowhere;object=maker", "token of the module"),
        ("token=people;manufacturer=nobody;object=maker", "token of the module"),
    ],
)
def test_what_a_token_does_not_have(hsm: SoftHsm, path: str, rule: str) -> None:
    """Refused by the rule that is broken."""
    with pytest.raises(FieldInvalid, match=rule):
        open_signer(named(hsm, path))


def test_a_wrong_pin_is_tried_once(hsm: SoftHsm) -> None:
    """So many wrong ones lock a token; nor is a PIN taken from a file that others may read, or from none."""
    with pytest.raises(FieldInvalid, match="PinIncorrect"):
        open_signer(named(hsm, "token=people;object=maker", pin=hsm.pin_file("people", pin="0000-wrong")))
    with pytest.raises(FieldInvalid, match="mode 0600"):
        open_signer(named(hsm, "token=people;object=maker", pin=hsm.pin_file("people", mode=0o644)))
    with pytest.raises(FieldInvalid, match="pin-source"):
        open_signer(f"pkcs11:token=people;object=maker?module-path={hsm.module}")
    with pytest.raises(FieldInvalid, match="can be loaded"):
        open_signer(named(hsm, "token=people;object=maker", module="/nowhere.so"))
    with pytest.raises(FieldInvalid, match="LOCKSTEP_PKCS11_MODULE"):
        open_signer(f"pkcs11:token=people;object=maker?pin-source={hsm.pin_file('people')}")


# -- The command -------------------------------------------------------------------------------------------------------


def test_keys_show(hsm: SoftHsm, agent: Agent, tmp_path: Path) -> None:
    """`lockstep keys show` prints for the registry the same of any key, wherever it lies; what cannot be opened has an exit code of its own."""
    path = tmp_path / "maker.pem"
    write_signing_key(path, SigningKey(SEED))
    agent.add(Ed25519PrivateKey.from_private_bytes(SEED), "maker")
    shown = []
    for name in (str(path), "ssh-agent:maker", named(hsm, "token=people;object=maker")):
        result = CliRunner().invoke(app, ["keys", "show", name, "--json"])
        assert result.exit_code == 0, result.output
        shown.append(json.loads(result.stdout))
    assert shown[0]["public_key"] == shown[1]["public_key"] == base64.b64encode(SigningKey(SEED).public.octets).decode()
    assert all(each["key_id"] == PublicKey(base64.b64decode(each["public_key"])).key_id for each in shown)
    assert CliRunner().invoke(app, ["keys", "show", "ssh-agent:nobody"]).exit_code == 2
    agent.run_add("-q", "-D")
    gone = CliRunner().invoke(app, ["keys", "show", "ssh-agent:maker"], env={"SSH_AUTH_SOCK": "/nowhere"})
    assert gone.exit_code == 3
    assert "KEY_UNAVAILABLE" in gone.stderr
