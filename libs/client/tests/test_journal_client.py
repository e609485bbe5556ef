"""The journal's client, and `lockstep journal verify`, over a real mTLS connection to a journal that answers what a test puts down."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from lockstep.journal.v1 import entry_pb2
from lockstep.journal.v1 import journal_reader_service_pb2 as messages
from lockstep_client.calls import CallSettings
from lockstep_client.convert import entry_from_pb
from lockstep_client.journal_chain import GENESIS, Entry, signed_bytes
from lockstep_client.readers import JournalClient
from lockstep_kit.canonical import canonical
from lockstep_kit.convert import signature_to_pb, time_to_pb
from lockstep_kit.errors import LockstepError, not_found, unavailable
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import PlanId, sha256
from lockstep_kit.signing import SigningKey

PLAN = PlanId("0b0f3c70-6d1e-4c9a-9a30-5a5f4a1f0c11")
KEY = SigningKey(sha256(b"event-journal"))
FAST = CallSettings(deadline_seconds=60.0, attempts_max=2, pause_seconds_max=0.05)


def chain() -> list[entry_pb2.Entry]:
    """Three entries as the journal delivers them."""
    made: list[entry_pb2.Entry] = []
    previous = GENESIS
    for number, type_ in enumerate(("plan.created", "plan.initiated", "plan.closed"), start=1):
        payload = canonical({"plan_digest": "ab" * 32})
        moment = datetime(2026, 6, 1, 12, 0, number, tzinfo=UTC)
        said = (PLAN, number, f"event-{number}", type_, "coordinator", "service", moment, payload, sha256(payload), previous)
        octets = signed_bytes(Entry(*said, GENESIS, b"", KEY.sign(b"")))
        made.append(
            entry_pb2.Entry(
                plan_id=PLAN,
                sequence=number,
                position=number + 100,
                event_id=f"event-{number}",
                type=type_,
                actor="coordinator",
                actor_role="service",
                event_time=time_to_pb(moment),
                payload=payload,
                payload_hash=sha256(payload),
                previous_hash=previous,
                entry_hash=sha256(octets),
                canonical_bytes=octets,
                signature=signature_to_pb(KEY.sign(octets)),
            )
        )
        previous = sha256(octets)
    return made


def says(coordinator: Any, entries: list[entry_pb2.Entry], *, valid: bool = True, head: bytes | None = None) -> None:
    verdict = messages.VerifyPlanResponse(
        valid=valid, entry_count=len(entries), head_hash=head or entries[-1].entry_hash, sealed=True
    )
    coordinator.script.answers["VerifyPlan"] = [verdict]
    pages = [
        messages.ListEntriesResponse(entries=entries[:2], next_page_token="more"),
        messages.ListEntriesResponse(entries=entries[2:]),
    ]
    coordinator.script.answers["ListEntries"] = [lambda request: pages[1] if request.page_token else pages[0]]


async def test_chains_are_read_together(coordinator: Any, tls: Any) -> None:
    """Plans' chains are asked for in one request of many plans."""
    entries = chain()
    coordinator.script.will("ListEntries", messages.ListEntriesResponse(entries=entries))
    async with JournalClient(coordinator.target, tls, FAST) as client:
        assert [each async for each in client.list_chains([PLAN])] == entries
    (request,) = coordinator.script.asked("ListEntries")
    assert (request.plan_id, list(request.plan_ids)) == ("", [PLAN])


async def verify(coordinator: Any, tls: Any, folder: Path) -> tuple[int, dict[str, Any]]:
    public = base64.b64encode(KEY.public.octets).decode()
    keys = [{"public_key": public, "not_before": "2020-01-01T00:00:00Z", "not_after": "2100-01-01T00:00:00Z"}]
    (folder / "registry.yaml").write_text(yaml.safe_dump({"actors": [], "participants": [{"name": "event-journal", "keys": keys}]}))
    files = {name: str(getattr(tls, name)) for name in ("certificate_file", "key_file", "ca_file")}
    venue = {"escrow": "0x", "chain": "eip155:138", "notary_registry": "0x", "assets": {}}
    places = {"coordinator": coordinator.target, "journal": coordinator.target, "notary": coordinator.target}
    (folder / "client.yaml").write_text(yaml.safe_dump({**places, **venue, "tls": files, "registry_file": "registry.yaml"}))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from lockstep_client.cli import main; main()",
        *("journal", "verify", PLAN, "--json", "--config", str(folder / "client.yaml")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 300)
    assert process.returncode is not None
    return process.returncode, json.loads(out)


async def test_verifying_twice(coordinator: Any, tls: Any, tmp_path: Path) -> None:
    """A chain holds when the journal says so and what it delivers says so too, and both are about the same chain."""
    says(coordinator, chain())
    code, found = await verify(coordinator, tls, tmp_path)
    assert (code, found["valid"], found["entries"], found["sealed"]) == (0, True, 3, True)
    assert found["head_hash"] == chain()[-1].entry_hash.hex()


async def test_a_journal_that_lies(coordinator: Any, tls: Any, tmp_path: Path) -> None:
    """The journal's word that its chain holds does not help a chain that does not, nor a verdict about another chain."""
    forged = chain()
    forged[1].actor = "mallory"
    says(coordinator, forged)
    code, found = await verify(coordinator, tls, tmp_path)
    assert (code, found["valid"], found["journal"]["valid"], found["local"]["valid"]) == (1, False, True, False)
    assert found["local"]["findings"][0]["rule"] == "ENTRY_CHANGED"
    says(coordinator, chain(), head=bytes(32))
    code, found = await verify(coordinator, tls, tmp_path)
    assert (code, found["valid"], found["agree"]) == (1, False, False)
    says(coordinator, chain(), valid=False)
    assert (await verify(coordinator, tls, tmp_path))[0] == 1


async def test_entries_are_watched_once_each(coordinator: Any, tls: Any) -> None:
    """A watch of entries goes on with its last token after a lost connection, and shows each entry once."""
    one, two, three = chain()
    coordinator.script.will(
        "WatchEntries",
        lambda _: [messages.WatchEntriesResponse(entries=[one, two], resume_token="a"), unavailable("DRAINING", "draining")],
        lambda _: [messages.WatchEntriesResponse(entries=[two, three], resume_token="b")],
    )
    async with JournalClient(coordinator.target, tls, FAST) as client:
        assert [entry.sequence async for entry in client.watch_entries(plan_id=PLAN)] == [1, 2, 3]
    assert [request.resume_token for request in coordinator.script.asked("WatchEntries")] == ["", "a"]


async def test_no_such_plan(coordinator: Any, tls: Any) -> None:
    """The journal's refusal arrives with its reason."""
    coordinator.script.will("VerifyPlan", not_found("plan", PLAN))
    async with JournalClient(coordinator.target, tls, FAST) as client:
        with pytest.raises(LockstepError) as refused:
            await client.verify_plan(PLAN)
    assert refused.value.reason == "PLAN_NOT_FOUND"


def test_a_malformed_entry() -> None:
    """An entry of another form is refused with its field."""
    entry = chain()[1]
    entry.previous_hash = b"short"
    with pytest.raises(FieldInvalid) as refused:
        entry_from_pb(entry)
    assert refused.value.field == "entries[2].previous_hash"
