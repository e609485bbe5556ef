"""The monitor of the journal, as the sandbox starts it: a reader beside the services, with a certificate and a registry of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml

from lockstep_kit.rpc import TlsSettings
from lockstep_sandbox.processes import Program
from lockstep_sandbox.runtime import write_secret

MONITOR: Final = "monitor"


def program(run: Path, address: Callable[[str], str], tls: TlsSettings, registry: Path) -> Program:
    """What is started. It waits for journal and notary by itself, so that it is ready at once; `registry` is nobody else's file."""
    settings = {
        "journal": address("event-journal"),
        "notary": address("notary"),
        "tls": {part: str(path) for part, path in tls},
        "registry_file": str(registry),
        "state_file": str(run / "state" / "monitor.json"),
    }
    path = write_secret(run / "config" / f"{MONITOR}.yaml", yaml.safe_dump(settings, sort_keys=False))
    return Program(MONITOR, (sys.executable, "-m", "lockstep_monitor", "--config", str(path)))


def alarms(log: Path) -> list[dict[str, Any]]:
    """What a monitor has raised, by what it printed."""
    lines = log.read_text().splitlines() if log.is_file() else []
    return [json.loads(line) for line in lines if line.startswith('{"event": "alarm"')]
