"""How often the interpreter looks for garbage in cycles.

By default it looks whenever 700 more objects were made than freed: with batches of hundreds of rows, messages and entries in flight that is many times for
each of them, though hardly any of these lie in cycles (reference counts free them at once). What the process holds from its start on is never looked at again.
"""

from __future__ import annotations

import gc
from typing import Final

#: Objects made and not freed before the youngest are looked through, and how often an older generation is looked through in relation to the one before it.
THRESHOLDS: Final = (50_000, 20, 20)


def collect_seldom() -> None:
    """To be called once, when a process has been put together and begins to serve."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
