"""The vectors as they are kept, and the second verifier."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[5]
VECTORS: Final = ROOT / "libs" / "verify" / "vectors"
NODE: Final = [sys.executable, str(ROOT / "tools" / "node.py"), "node"]

#: Verifies files in one process: a line of JSON with two paths asks, a line answers.
_ALL: Final = f"""
import {{ readFileSync }} from "node:fs";
import {{ createInterface }} from "node:readline";
import {{ verify }} from {json.dumps(str(ROOT / "libs" / "verify-js" / "src" / "verifying.mjs"))};
for await (const line of createInterface({{ input: process.stdin }})) {{
  const [bundle, trust] = JSON.parse(line).map((path) => readFileSync(path));
  console.log(JSON.stringify(verify(bundle, trust)));
}}
"""


def names() -> list[str]:
    """Names of the vectors that are kept."""
    return sorted(path.name for path in VECTORS.iterdir())


def vector(name: str) -> tuple[bytes, bytes, dict[str, Any]]:
    """A vector's bundle, trust file and report."""
    folder = VECTORS / name
    octets = [(folder / f"{each}.json").read_bytes() for each in ("bundle", "trust")]
    return octets[0], octets[1], json.loads((folder / "report.json").read_bytes())


def second_verifier(pairs: list[tuple[Path, Path]]) -> list[dict[str, Any]]:
    """What the verifier in JavaScript reports about files."""
    asked = "".join(json.dumps([str(path) for path in pair]) + "\n" for pair in pairs)
    command = [*NODE, "--input-type=module", "--eval", _ALL]
    run = subprocess.run(command, input=asked, capture_output=True, text=True, check=True, timeout=300)  # noqa: S603 - our own program
    return [json.loads(line) for line in run.stdout.splitlines()]
