"""The operators' console, as the sandbox starts it: a reader beside the services, with a certificate of its own and a token that browsers show."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from lockstep_sandbox.ports import LOOPBACK, listens
from lockstep_sandbox.processes import Program
from lockstep_sandbox.runtime import write_secret

if TYPE_CHECKING:
    from lockstep_sandbox.stack import Sandbox

CONSOLE: Final = "console"


async def open_console(sandbox: Sandbox) -> str:
    """Start the console of a running sandbox, unless it runs; where its page is opened, with the token."""
    run, port = sandbox.run.path, int(sandbox.address(CONSOLE).rpartition(":")[2])
    token_file = run / "keys" / f"{CONSOLE}.token"
    if not sandbox.supervisor.is_running(CONSOLE):
        write_secret(token_file, secrets.token_urlsafe(32) + "\n")
        await sandbox.supervisor.start(_program(sandbox, port, token_file))
    return f"http://{LOOPBACK}:{port}/#token={token_file.read_text().strip()}"


def _program(sandbox: Sandbox, port: int, token_file: Path) -> Program:
    settings = {
        "coordinator": sandbox.address("coordinator"),
        "journal": sandbox.address("event-journal"),
        "tls": {part: str(path) for part, path in sandbox.tls(f"client/{CONSOLE}")},
        "registry_file": str(sandbox.run.path / "config" / "registry.yaml"),
        "listen": {"host": LOOPBACK, "port": port, "token_file": str(token_file)},
        # A laptop that does other things as well.
        "call_seconds": 60,
    }
    path = write_secret(sandbox.run.path / "config" / f"{CONSOLE}.yaml", yaml.safe_dump(settings, sort_keys=False))
    return Program(CONSOLE, (sys.executable, "-m", "lockstep_console", "--config", str(path)), ready=lambda: listens(port))
