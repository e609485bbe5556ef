"""The fixtures of `console_world`, for every test of the console."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from console_world import served, world

__all__ = ["served", "world"]
