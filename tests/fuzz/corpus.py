"""What real requests and answers hold, by field and by type: what the requests are made from, so that they get past the first check.

Everything that is harvested is kept in the order in which it came, and nothing twice.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.message import Message

#: Kept of one kind; a plan's ids come back in everything.
KEPT_MAX: Final = 40


@dataclass
class Corpus:
    """Values and messages that were seen."""

    #: Name of a field -> values seen in any field of that name and kind.
    values: dict[tuple[str, int], list[Any]] = field(default_factory=lambda: defaultdict(list))
    #: Full name of a message -> serialised messages seen.
    messages: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))

    def harvest(self, message: Message) -> None:
        """Take everything that a message holds, and itself."""
        name = message.DESCRIPTOR.full_name
        octets = message.SerializeToString(deterministic=True)
        if octets:
            _keep(self.messages[name], octets)
        for described, value in message.ListFields():
            for each in value if described.is_repeated else (value,):
                if described.message_type is None:
                    _keep(self.values[described.name, described.cpp_type], each)
                elif not described.message_type.GetOptions().map_entry:
                    self.harvest(each)

    def of_field(self, described: Any) -> list[Any]:
        """Values for a field: seen under its name, else under a name that ends alike (another_plan_id)."""
        wanted = bytes if described.type == described.TYPE_BYTES else str if described.type == described.TYPE_STRING else None
        found = self.values.get((described.name, described.cpp_type), [])
        if not found:
            last = described.name.rsplit("_", 1)[-1]
            found = [
                each
                for (name, kind), seen in self.values.items()
                if kind == described.cpp_type and name.endswith(last)
                for each in seen
            ]
        return [each for each in found if wanted is None or isinstance(each, wanted)]


def _keep(kept: list[Any], value: Any) -> None:
    if value not in kept and len(kept) < KEPT_MAX:
        kept.append(value)
