"""The command in people's shells: completion with the shells really running, colours, and the sign that it works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep_client.configuration import ENVIRONMENT

PROGRAM = Path(sys.executable).parent / "lockstep"
SECONDS_MAX = 120
#: What each shell is told, to have it complete the words that are its arguments and print what they can become.
SCRIPTS = {
    "bash": """
source <(lockstep completion bash)
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_lockstep_completion lockstep
printf '%s\\n' "${COMPREPLY[@]}"
""",
    "fish": 'lockstep completion fish | source; complete --do-complete="$argv"',
}


def environ(**more: str) -> dict[str, str]:
    known = {name: value for name, value in os.environ.items() if name not in (ENVIRONMENT, "NO_COLOR", "FORCE_COLOR")}
    return known | {"PATH": f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"} | more


def completed(shell: str, *words: str, **more: str) -> list[str]:
    """What a shell makes of a line whose last word is not finished."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not there")
    arguments = [shell, "-c", SCRIPTS[shell]] + (["-"] if shell == "bash" else [])
    done = subprocess.run(
        [*arguments, *words], env=environ(**more), capture_output=True, text=True, timeout=SECONDS_MAX, check=False
    )
    assert done.returncode == 0, done.stderr
    return [line.split("\t")[0] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_commands_and_options(shell: str) -> None:
    """A shell completes commands, subcommands and options."""
    assert {"watch", "witness"} <= set(completed(shell, "lockstep", "w"))
    assert {"list", "show"} <= set(completed(shell, "lockstep", "escalations", ""))
    assert "--older-than" in completed(shell, "lockstep", "in-doubt", "--old")


def test_zsh_reads_its_script() -> None:
    """The script for zsh is one that zsh can read, where there is a zsh."""
    script = subprocess.run(
        [PROGRAM, "completion", "zsh"], env=environ(), capture_output=True, text=True, timeout=SECONDS_MAX, check=True
    )
    assert script.stdout.startswith("#compdef lockstep")
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not there")
    subprocess.run(["zsh", "-n"], input=script.stdout, text=True, timeout=SECONDS_MAX, check=True)


def test_an_unknown_shell() -> None:
    """A shell that is none is named as bad usage, with those that there are."""
    done = subprocess.run(
        [PROGRAM, "completion", "csh"], env=environ(), capture_output=True, text=True, timeout=SECONDS_MAX, check=False
    )
    assert done.returncode == 2
    assert "bash" in done.stderr


async def test_ids_of_open_plans(coordinator: Any, tls: Any, world: Any, tmp_path: Path) -> None:
    """Bash completes the ids of open plans that begin so; without a coordinator it completes nothing, and shows no error."""
    import asyncio

    plan = world.message()
    coordinator.script.will("ListPlans", messages.ListPlansResponse(plans=[plan]))
    document = {
        "coordinator": coordinator.target, "journal": "x:1", "notary": "x:1", "assets": {}, "escrow": "x", "chain": "eip155:138",
        "notary_registry": "x", "registry_file": "x", "tls": {name: str(path) for name, path in tls},
    }  # fmt: skip
    path = tmp_path / "client.yaml"
    path.write_text(yaml.safe_dump(document))
    plan_id = plan.header.plan_id
    # A shell is not kept waiting for long: on a machine that is busy it may get nothing, and is asked again.
    found: list[str] = []
    give_up = time.monotonic() + SECONDS_MAX
    while not found and time.monotonic() < give_up:
        found = await asyncio.to_thread(completed, "bash", "lockstep", "watch", plan_id[:4], **{ENVIRONMENT: str(path)})
    assert found == [plan_id]
    states = set(coordinator.script.asked("ListPlans")[0].states)
    assert settlement.PLAN_STATE_CLOSED not in states
    assert settlement.PLAN_STATE_PREPARED in states
    assert await asyncio.to_thread(completed, "bash", "lockstep", "watch", "zz", **{ENVIRONMENT: str(path)}) == []
    path.write_text("coordinator: 1")
    assert await asyncio.to_thread(completed, "bash", "lockstep", "watch", "", **{ENVIRONMENT: str(path)}) == []


@pytest.mark.parametrize(
    ("option", "variable", "coloured"),
    [("auto", "", False), ("always", "", True), ("always", "1", True), ("never", "", False)],
)
def test_colours(option: str, variable: str, coloured: bool) -> None:
    """Off a terminal there are no colours unless they are asked for."""
    code = (
        "from lockstep_client.commands.context import Colour, choose_colour, console\n"
        f"choose_colour(Colour({option!r}))\n"
        "console().print('x', style='red')"
    )
    more = {"NO_COLOR": variable} if variable else {}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ(**more), capture_output=True, text=True, timeout=SECONDS_MAX, check=True
    )
    assert ("\x1b[31m" in done.stdout) is coloured
    assert "x" in done.stdout
