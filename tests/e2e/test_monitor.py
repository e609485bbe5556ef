"""The monitor of the journal in a whole installation: it follows every plan, raises nothing about honest services, and finds what was put into the journal."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from lockstep_sandbox.monitoring import MONITOR, alarms
from lockstep_sandbox.stack import Sandbox
from lockstep_testkit.crew import Crew

FOLLOWED_SECONDS_MAX = 180.0


async def once(sandbox: Sandbox, folder: Path, **changes: Any) -> tuple[int, list[dict[str, Any]]]:
    """`python -m lockstep_monitor --once` from the first entry on: its exit code and what it raised."""
    settings = yaml.safe_load((sandbox.run.path / "config" / f"{MONITOR}.yaml").read_text())
    path = folder / "monitor.yaml"
    path.write_text(yaml.safe_dump(settings | {"state_file": str(folder / "state.json")} | changes))
    command = (sys.executable, "-m", "lockstep_monitor", "--once", "--config", str(path))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, errors = await process.communicate()
    assert process.returncode in (0, 1), errors.decode()
    return process.returncode or 0, [json.loads(line) for line in out.splitlines()]


def read_up_to(sandbox: Sandbox) -> int:
    """How many entries the sandbox's monitor has read."""
    state = sandbox.run.path / "state" / "monitor.json"
    return int(json.loads(state.read_text())["size"]) if state.is_file() else 0


async def test_honest_services_raise_nothing(crew: Crew, sandbox: Sandbox, tmp_path: Path) -> None:
    """A plan that settles and one that a person stops are followed to their seals, and nothing is raised, by the one that runs or by one that reads anew."""
    settled = await crew.settled(crew.payments())
    stopped = await crew.started(crew.payments())
    await crew.awaiting(stopped.header.plan_id, "release")
    await crew.client.cancel_plan(stopped.header.plan_id, crew.signature(stopped, "cancel", person="maker"))
    await crew.driven(stopped.header.plan_id)
    async with crew.database("event-journal") as database:
        count = await database.fetchval("select count(*) from journal_entry")
    async with asyncio.timeout(FOLLOWED_SECONDS_MAX):
        while read_up_to(sandbox) < count:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.2)
    ours = {settled.header.plan_id, stopped.header.plan_id, ""}
    assert [each for each in alarms(sandbox.supervisor.log_path(MONITOR)) if each["plan_id"] in ours] == []
    _, raised = await once(sandbox, tmp_path)
    assert [each for each in raised if each["plan_id"] in ours] == []
    assert json.loads((tmp_path / "state.json").read_text())["size"] >= count


async def test_it_trusts_its_own_registry_alone(crew: Crew, sandbox: Sandbox, tmp_path: Path) -> None:
    """A person whom the services know and the monitor does not opens no gate for it: what a changed registry would hide is raised."""
    plan = await crew.settled(crew.payments())
    registry = yaml.safe_load((sandbox.run.path / "config" / "monitor-registry.yaml").read_text())
    registry["actors"] = [each for each in registry["actors"] if "releaser" not in each["roles"]]
    own = tmp_path / "registry.yaml"
    own.write_text(yaml.safe_dump(registry))
    code, raised = await once(sandbox, tmp_path, registry_file=str(own))
    assert code == 1
    of_plan = {each["rule"] for each in raised if each["plan_id"] == plan.header.plan_id}
    assert of_plan == {"GATE_NOT_AUTHORISED"}
    # What was raised once is not raised again.
    assert await once(sandbox, tmp_path, registry_file=str(own)) == (0, [])
