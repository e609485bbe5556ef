"""Prints every statement of the services of one release, as a JSON document: package -> {name: text}. PYTHONPATH says which release.

What a library holds stands under the library's name: several services use it.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator
from typing import Final

SERVICES: Final = ("coordinator", "dlt_gateway", "bank_gateway", "notary", "event_journal")
LIBRARIES: Final = ("lockstep_kit", "lockstep_chain")
#: First words of what can be explained; a constant that begins otherwise is a channel, a setting, a part of a statement.
VERBS: Final = ("select ", "insert ", "update ", "delete ", "with ")


def statements_of(package: str) -> Iterator[tuple[str, str]]:
    """Constants of a package's modules that are statements."""
    root = importlib.import_module(package)
    names = [each.name for each in pkgutil.walk_packages(root.__path__, f"{package}.") if not each.name.endswith("__main__")]
    for name in (package, *names):
        for constant, value in vars(importlib.import_module(name)).items():
            if constant.isupper() and isinstance(value, str) and value.strip().lower().startswith(VERBS):
                yield f"{name}.{constant}", value


if __name__ == "__main__":
    print(json.dumps({package: dict(statements_of(package)) for package in (*SERVICES, *LIBRARIES)}))
