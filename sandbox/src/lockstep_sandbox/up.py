"""`make up`: starts everything and stays until Ctrl-C, SIGTERM or `make down`, or until one of its processes ends by itself, which fails."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from pathlib import Path
from typing import Final

from lockstep_sandbox import scene
from lockstep_sandbox.consoles import open_console
from lockstep_sandbox.processes import cancel_on_signals
from lockstep_sandbox.runtime import RuntimeDirectory
from lockstep_sandbox.stack import Sandbox

BASE: Final = Path(".sandbox")


async def stay(base: Path) -> int:
    """Start, say where everything is, stay; the exit code: 1 when a process ended that nobody had stopped."""
    began = time.monotonic()
    with cancel_on_signals(), contextlib.suppress(asyncio.CancelledError):
        async with Sandbox(RuntimeDirectory.create(base)) as sandbox:
            plan = sandbox.plan_file(
                "dvp",
                scene.delivery_versus_payment(
                    sandbox.chain.address("seller"), sandbox.chain.address("buyer"), reference="First settlement", quantity="100.00",
                    price="98750.00",
                ),
            )  # fmt: skip
            console = await open_console(sandbox)
            keys = {name: file.private_file for name, file in sandbox.keys.items()}
            print(
                f"Everything is up after {time.monotonic() - began:.1f} s; Ctrl-C or `make down` stops it. Try, in another terminal:\n"
            )
            print("  export PATH=$PWD/.venv/bin:$PATH")
            print(f"  lockstep settle {plan}")
            print(f"  lockstep sign PLAN --gate approve --key {keys['approver']}")
            print(f"  lockstep sign PLAN --gate release --key {keys['releaser']}")
            print(f"  lockstep agent validate --key {keys['validator']}")
            print("  lockstep journal verify PLAN\n  lockstep trace PLAN")
            print(f"  curl {sandbox.metrics_url('coordinator')}")
            print(f"\nThe operators' console, in a browser on this machine:\n\n  {console}", flush=True)
            while not (ended := sandbox.supervisor.ended()):  # noqa: ASYNC110 - processes end without an event
                await asyncio.sleep(0.5)
            for name, code in ended.items():
                print(f"{name} ended by itself with {code}; the end of {sandbox.supervisor.log_path(name)}:", file=sys.stderr)
                print(sandbox.supervisor.log_tail(name), file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(stay(BASE)))
