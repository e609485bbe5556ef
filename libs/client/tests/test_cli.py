"""The command: what needs no server with typer's runner, what needs one against the scripted coordinator as a process of its own."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from eth_account import Account
from typer.testing import CliRunner

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep_client.cli import app
from lockstep_client.convert import plan_from_pb
from lockstep_client.signing import escrow_terms
from lockstep_client.waterfall import bars, drawn, duration_text
from lockstep_contracts.escrow import leg_signing_hash
from lockstep_kit.convert import gate_from_pb, header_from_pb
from lockstep_kit.errors import precondition, unavailable
from lockstep_kit.ids import sha256
from lockstep_kit.key_files import read_signing_key, write_signing_key
from lockstep_kit.signing import SigningKey
from lockstep_kit.statements import Gate, votes_digest

EXAMPLE = Path(__file__).parents[1] / "examples" / "dvp.yaml"
PLAN = "0b0f3c70-6d1e-4c9a-9a30-5a5f4a1f0c11"
runner = CliRunner()


def configured(folder: Path, coordinator: str = "127.0.0.1:1", tls: Any = None, **more: Any) -> Path:
    """A configuration file with keys for everybody."""
    registry: dict[str, Any] = {"actors": [], "participants": []}
    for name in ("maker", "approver", "releaser", "validator"):
        key = SigningKey(sha256(name.encode()))
        if not (folder / f"{name}.pem").exists():
            write_signing_key(folder / f"{name}.pem", key)
        registry["actors"].append({"actor_id": name, "roles": [name], "keys": [_key(key)], "limits": {name: "unlimited"}})
    for name in ("dlt-gateway", "bank-gateway", "notary", "event-journal"):
        registry["participants"].append({"name": name, "keys": [_key(SigningKey(sha256(name.encode())))]})
    (folder / "registry.yaml").write_text(yaml.safe_dump(registry))
    files = {name: str(getattr(tls, name)) if tls else "missing.pem" for name in ("certificate_file", "key_file", "ca_file")}
    document = {
        "coordinator": coordinator,
        "journal": "127.0.0.1:1",
        "notary": "127.0.0.1:1",
        "tls": files,
        "registry_file": "registry.yaml",
        "assets": {
            "BOND": {"asset": "eip155:138/erc20:0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB", "scale": 2},
            "EUR": {"asset": "EUR", "scale": 2},
        },
        "escrow": "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
        "chain": "eip155:138",
        "notary_registry": "0x52908400098527886E0F7030069857D2E4169EE7",
        "maker_key": "maker.pem",
    } | more
    path = folder / "client.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def _key(key: SigningKey) -> dict[str, str]:
    public = base64.b64encode(key.public.octets).decode()
    return {"public_key": public, "not_before": "2020-01-01T00:00:00Z", "not_after": "2100-01-01T00:00:00Z"}


async def lockstep(*arguments: str | Path) -> tuple[int, list[dict[str, Any]], str]:
    """Run the command beside the test's own loop: exit code, JSON lines, error text."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from lockstep_client.cli import main; main()", *map(str, arguments),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 300)
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.splitlines() if line.startswith(b"{")], err.decode()


def test_help_is_there_at_once() -> None:
    """Help needs no slow library."""
    done = subprocess.run(
        [sys.executable, "-m", "timeit", "-n1", "-r1", "import lockstep_client.cli"], capture_output=True, check=True
    )
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, lockstep_client.cli; print(*sys.modules)"], capture_output=True, check=True, text=True
    ).stdout.split()
    assert not {"grpc", "eth_account", "aiohttp", "pydantic", "yaml"} & set(loaded)
    assert done.returncode == 0
    listed = runner.invoke(app, ["--help"])
    assert listed.exit_code == 0
    assert all(name in listed.output for name in ("settle", "plan", "sign", "watch", "journal", "trace", "keys", "agent"))


def test_new_keys(tmp_path: Path) -> None:
    """A new key is written for its owner alone, its public half is printed, and no key is ever overwritten."""
    out = tmp_path / "key.pem"
    made = runner.invoke(app, ["keys", "new", "--out", str(out), "--json"])
    assert made.exit_code == 0
    document = json.loads(made.stdout)
    key = read_signing_key(out)
    assert base64.b64decode(document["public_key"]) == key.public.octets
    assert document["key_id"] == key.public.key_id
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    before = out.read_bytes()
    again = runner.invoke(app, ["keys", "new", "--out", str(out)])
    assert again.exit_code == 2
    assert again.stderr == f"--out must name a new file: {out} is there, and a key is never overwritten\n"
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ('amount: "100.00"', 'amount: "100.005"', "legs[0].token_transfer.amount must have at most 2 decimals"),
        ("asset: BOND", "asset: GOLD", "legs[0].token_transfer.asset must be an ISO 4217 currency"),
        ("DE89370400440532013000", "DE89370400440532013001", "legs[1].credit_transfer.debtor.iban must be an IBAN"),
        ("policy:", "polizy:", "polizy must not be there"),
    ],
)
def test_bad_plans_are_refused_before_anything_is_sent(tmp_path: Path, old: str, new: str, line: str) -> None:
    """A bad plan file ends with exit code 2 and one line that names field and rule; no server was needed for it."""
    file = tmp_path / "plan.yaml"
    file.write_text(EXAMPLE.read_text().replace(old, new))
    config = configured(tmp_path)
    for command in (["settle"], ["plan", "create"]):
        refused = runner.invoke(app, [*command, str(file), "--config", str(config)])
        assert refused.exit_code == 2
        assert refused.stderr.startswith(line)
        assert refused.stderr.count("\n") == 1
    as_json = runner.invoke(app, ["settle", str(file), "--config", str(config), "--json"])
    error = json.loads(as_json.stderr)["error"]
    assert (error["reason"], error["exit_code"]) == ("FIELD_INVALID", 2)
    assert line.startswith(error["details"]["field"])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["plan", "show", "not-an-id"], "PLAN must be a lower-case UUID"),
        (["sign", PLAN, "--gate", "approve", "--key", "none.pem"], "FILE_UNREADABLE: none.pem: No such file or directory"),
        (["plan", "list", "--state", "SLEEPING"], "--state must be one of DRAFT"),
        (["trace", PLAN], "SPANS_NOT_CONFIGURED: no span store is configured"),
    ],
)
def test_bad_usage(tmp_path: Path, arguments: list[str], line: str) -> None:
    """What is wrong with the command itself is said in one line."""
    refused = runner.invoke(app, [*arguments, "--config", str(configured(tmp_path))])
    assert refused.exit_code in (1, 2)
    assert refused.stderr.startswith(line)


def test_configuration_is_found_upwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --config and environment the running sandbox's configuration is found in a folder above; a wrong one is named with its field."""
    monkeypatch.delenv("LOCKSTEP_CONFIG", raising=False)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    none = runner.invoke(app, ["plan", "list"])
    assert (none.exit_code, none.stderr.startswith("--config must name a configuration file")) == (2, True)
    current = tmp_path / ".sandbox" / "current"
    current.mkdir(parents=True)
    configured(current, colour="blue")
    wrong = runner.invoke(app, ["plan", "list"])
    assert wrong.exit_code == 2
    assert wrong.stderr.startswith(f"{current / 'client.yaml'}.colour must not be there")


async def test_nobody_answers(tmp_path: Path, tls: Any) -> None:
    """A coordinator that cannot be reached is exit code 3, and nothing is claimed of the request."""
    code, _, error = await lockstep("plan", "show", PLAN, "--config", configured(tmp_path, tls=tls))
    assert code == 3
    assert "nothing is known of the request" in error


async def test_signing_a_release(coordinator: Any, tls: Any, world: Any, tmp_path: Path) -> None:
    """The releaser signs over the votes as they were recomputed here; a digest that the coordinator made up is not signed."""
    config = configured(tmp_path, coordinator.target, tls)
    plan = world.message(state=settlement.PLAN_STATE_PREPARED)
    coordinator.script.will("GetPlan", messages.GetPlanResponse(plan=plan))
    coordinator.script.will("SignGate", messages.SignGateResponse(plan=plan))
    arguments = ("sign", plan.header.plan_id, "--gate", "release", "--key", tmp_path / "releaser.pem", "--config", config, "--json")
    code, shown, error = await lockstep(*arguments)
    assert (code, error) == (0, "")
    assert shown[0]["signed"]["gate"] == "RELEASE"
    statement = gate_from_pb(coordinator.script.asked("SignGate")[0].signature).statement
    assert statement.votes_digest == votes_digest(world.votes[leg.leg_id] for leg in world.draft.legs)
    assert statement.expires_at > world.draft.header.deadline
    lie = world.message(state=settlement.PLAN_STATE_PREPARED, votes_digest=bytes(32))
    coordinator.script.answers["GetPlan"] = [messages.GetPlanResponse(plan=lie)]
    code, _, error = await lockstep(*arguments)
    assert (code, json.loads(error)["error"]["reason"]) == (1, "VOTES_DIGEST_DIFFERS")
    world.vote("payment", signer="notary")
    coordinator.script.answers["GetPlan"] = [messages.GetPlanResponse(plan=world.message())]
    code, _, error = await lockstep(*arguments)
    assert (code, json.loads(error)["error"]["reason"]) == (1, "VOTE_SIGNATURE")
    assert len(coordinator.script.asked("SignGate")) == 1


async def test_validating_without_eyes(coordinator: Any, tls: Any, world: Any, tmp_path: Path) -> None:
    """A validator who cannot look at chain, bank and journal signs nothing; a refusal may be signed all the same."""
    config = configured(tmp_path, coordinator.target, tls)
    plan = world.message()
    coordinator.script.will("GetPlan", messages.GetPlanResponse(plan=plan))
    coordinator.script.will("SignGate", messages.SignGateResponse(plan=plan))
    arguments = [
        "sign",
        plan.header.plan_id,
        "--gate",
        "validate",
        "--key",
        tmp_path / "validator.pem",
        "--config",
        config,
        "--json",
    ]
    code, _, error = await lockstep(*arguments)
    rules = {each["rule"] for each in json.loads(error)["error"]["details"]["findings"]}
    assert code == 1
    assert {"CHAIN_READER_MISSING", "BANK_READER_MISSING", "JOURNAL_UNREACHABLE"} <= rules
    assert coordinator.script.asked("SignGate") == []
    code, _, _ = await lockstep(*arguments, "--reject")
    assert code == 0
    assert gate_from_pb(coordinator.script.asked("SignGate")[0].signature).statement.verdict == "REJECT"


async def test_showing_listing_cancelling(coordinator: Any, tls: Any, world: Any, tmp_path: Path) -> None:
    """A plan is shown with its transitions, listed, and cancelled with a person's signature; a refusal says what to do next."""
    config = configured(tmp_path, coordinator.target, tls)
    plan = world.message(state=settlement.PLAN_STATE_PREPARED)
    transition = settlement.Transition(transition_no=1, to_state=settlement.PLAN_STATE_DRAFT, cause="CREATED")
    coordinator.script.will("GetPlan", messages.GetPlanResponse(plan=plan))
    coordinator.script.will("ListTransitions", messages.ListTransitionsResponse(transitions=[transition]))
    coordinator.script.will("ListPlans", messages.ListPlansResponse(plans=[plan] * 3))
    coordinator.script.will("CancelPlan", messages.CancelPlanResponse(plan=plan), precondition("PLAN_STATE", "the plan is decided"))
    code, shown, _ = await lockstep("plan", "show", plan.header.plan_id, "--config", config, "--json")
    assert (code, shown[0]["state"], shown[0]["transitions"][0]["to_state"]) == (0, "PREPARED", "DRAFT")
    assert shown[0]["legs"][1]["vote"]["evidence"]["status"] == "ACFW"
    code, listed, _ = await lockstep("plan", "list", "--limit", "2", "--state", "prepared", "--config", config, "--json")
    assert (code, len(listed)) == (0, 2)
    cancel = ("plan", "cancel", plan.header.plan_id, "--key", tmp_path / "maker.pem", "--etag", "7", "--config", config)
    assert (await lockstep(*cancel, "--json"))[0] == 0
    request = coordinator.script.asked("CancelPlan")[0]
    assert (gate_from_pb(request.cancel).statement.gate, request.etag) == (Gate.CANCEL, "7")
    code, _, error = await lockstep(*cancel)
    assert (code, error) == (1, "PLAN_STATE: the plan is decided\nnext: see `lockstep plan show`\n")


async def test_settling_a_file(coordinator: Any, tls: Any, tmp_path: Path, watched: Any) -> None:
    """`settle` signs as the maker, consents as the payer over the locks it was answered with, and follows the plan to its end."""
    payer = Account.from_key(sha256(b"payer"))
    (tmp_path / "payer.json").write_text(json.dumps(payer.encrypt("secret", kdf="scrypt", iterations=2)))
    (tmp_path / "payer.password").write_text("secret\n")
    keystore = {"keystore_file": "payer.json", "password_file": "payer.password"}
    config = configured(tmp_path, coordinator.target, tls, payers={payer.address: keystore})
    file = tmp_path / "plan.yaml"
    file.write_text(EXAMPLE.read_text().replace("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", payer.address))

    def plan_of(request: Any, state: Any = settlement.PLAN_STATE_DRAFT, outcome: Any = 0) -> settlement.Plan:
        plan = settlement.Plan(header=request.header, state=state, outcome=outcome)
        plan.plan_digest = header_from_pb(request.header).digest
        for leg in request.legs:
            plan.legs.add(leg=leg, lock=sha256(leg.leg_id.encode()), participant="x")
        return plan

    def made() -> Any:
        return coordinator.script.asked("CreatePlan")[0]

    closed = settlement.PLAN_STATE_CLOSED
    coordinator.script.will("CreatePlan", lambda request: messages.CreatePlanResponse(plan=plan_of(request)))
    coordinator.script.will("ExecutePlan", lambda _: messages.ExecutePlanResponse(plan=plan_of(made())))
    coordinator.script.will("GetPlan", lambda _: messages.GetPlanResponse(plan=plan_of(made(), closed, 1)))
    coordinator.script.will(
        "WatchPlan", lambda _: [watched(snapshot=plan_of(made()), token="a"), watched(sequence=1, state=closed, token="b")]
    )
    code, lines, error = await lockstep("settle", file, "--config", config, "--json")
    assert (code, error) == (0, "")
    assert (lines[-1]["plan"]["state"], lines[-1]["plan"]["outcome"]) == ("CLOSED", "COMMITTED")
    view = plan_from_pb(plan_of(made()))
    make = gate_from_pb(made().make)
    assert (make.statement.gate, make.statement.plan_digest) == (Gate.MAKE, view.header.digest)
    assert read_signing_key(tmp_path / "maker.pem").public.verifies(make.statement.signed_bytes(), make.signature.octets)
    (request,) = coordinator.script.asked("ExecutePlan")
    (consent,) = request.payer_signatures
    digest = leg_signing_hash(138, view.legs[0].leg.terms.escrow, escrow_terms(view.header, view.legs[0].leg, sha256(b"delivery")))  # type: ignore[union-attr]
    assert consent.leg_id == "delivery"
    assert Account._recover_hash(digest, signature=consent.signature) == payer.address


async def test_a_payer_without_a_key(coordinator: Any, tls: Any, world: Any, tmp_path: Path) -> None:
    """Without the payer's keystore, or with one that its password does not open, nothing is executed."""
    config = configured(tmp_path, coordinator.target, tls)
    coordinator.script.will("GetPlan", messages.GetPlanResponse(plan=world.message()))
    code, _, error = await lockstep("plan", "execute", world.draft.header.plan_id, "--config", config)
    assert code == 2
    assert error.startswith("payers must name a keystore for 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed")
    (tmp_path / "payer.json").write_text(json.dumps(Account.create().encrypt("secret", kdf="scrypt", iterations=2)))
    (tmp_path / "payer.password").write_text("wrong\n")
    keystore = {"keystore_file": "payer.json", "password_file": "payer.password"}
    config = configured(tmp_path, coordinator.target, tls, payers={"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed": keystore})
    code, _, error = await lockstep("plan", "execute", world.draft.header.plan_id, "--config", config)
    assert code == 2
    assert "must be a keystore of this address that its password opens" in error
    assert coordinator.script.asked("ExecutePlan") == []


async def test_watching_to_the_end(coordinator: Any, tls: Any, world: Any, tmp_path: Path, watched: Any) -> None:
    """A watch prints one object per line through a lost connection, and its exit code says whether the plan settled."""
    config = configured(tmp_path, coordinator.target, tls)
    first, last = world.message(), world.message(state=settlement.PLAN_STATE_CLOSED, outcome=1)
    coordinator.script.will("GetPlan", messages.GetPlanResponse(plan=last))
    coordinator.script.will(
        "WatchPlan",
        lambda _: [
            watched(snapshot=first, token="a"),
            watched(sequence=1, state=settlement.PLAN_STATE_COMMITTED, token="b"),
            unavailable("X", "x"),
        ],
        lambda _: [watched(sequence=1, token="b"), watched(sequence=2, state=settlement.PLAN_STATE_CLOSED, token="c")],
    )
    code, lines, error = await lockstep("watch", first.header.plan_id, "--config", config, "--json")
    assert (code, error) == (0, "")
    assert [next(iter(line)) for line in lines] == ["snapshot", "event", "event", "plan"]
    aborted = world.message(state=settlement.PLAN_STATE_CLOSED, outcome=2, reason="LIQUIDITY_DENIED")
    coordinator.script.answers["GetPlan"] = [messages.GetPlanResponse(plan=aborted)]
    code, _, error = await lockstep("watch", first.header.plan_id, "--config", config)
    assert (code, error) == (1, "PLAN_ABORTED: the plan did not settle: LIQUIDITY_DENIED\n")


def test_a_waterfall() -> None:
    """Spans stand below their parents in the order in which they began; a span whose parent is not there stands at the top."""

    def span(name: str, parent: str, start: int, end: int, status: str = "ok") -> dict[str, Any]:
        nanos = {"start_unix_nano": start * 1000, "end_unix_nano": end * 1000}
        return {"span_id": name, "parent_span_id": parent, "service": f"service-{name}", "name": name, "status": status, **nanos}

    lines = bars([span("c", "a", 50, 60, "error"), span("b", "a", 10, 40), span("a", "", 0, 100), span("d", "lost", 70, 80)])
    assert [(line.name, line.depth, line.offset_us, line.failed) for line in lines] == [
        ("a", 0, 0, False), ("b", 1, 10, False), ("c", 1, 50, True), ("d", 0, 70, False),
    ]  # fmt: skip
    assert all(len(drawn(line, 100, 40)) == 40 for line in lines)
    assert drawn(lines[1], 100, 10) == " ███      "
    assert bars([span("x", "y", 0, 1), span("y", "x", 0, 1)]) == []
    assert [duration_text(each) for each in (999, 1_500, 61_020_000)] == ["999 µs", "1.5 ms", "61.02 s"]
