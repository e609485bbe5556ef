"""Makes the model a package that its tests, and its lanes, import by one name."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
