"""Where plans stand that go on chain in batches: by the notary's leaves, as far as the registry holds the roots that these come to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from lockstep_contracts.notary import AnchorKind, PlanStatus
from lockstep_kit import merkle
from lockstep_kit.ids import Digest

_PREFIX: Final = b"lockstep/anchor/v1\n"
_OUTCOMES: Final = {"Committed": PlanStatus.COMMITTED, "Aborted": PlanStatus.ABORTED, "Mixed": PlanStatus.MIXED}


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch, as the notary's database has it."""

    #: What it says of its plans.
    kind: AnchorKind
    #: Data of its leaves, in order.
    leaves: tuple[bytes, ...]

    @property
    def root(self) -> Digest:
        """The root that its leaves come to, whatever the notary says."""
        return merkle.root([merkle.leaf_hash(each) for each in self.leaves])


def standings(batches: Iterable[Batch], anchors: Mapping[bytes, tuple[AnchorKind, int]]) -> dict[Digest, PlanStatus]:
    """Where plans stand, by their digests; `anchors` is what the registry says of roots."""
    found: dict[Digest, PlanStatus] = {}
    for batch in batches:
        if anchors.get(batch.root) != (batch.kind, len(batch.leaves)):
            continue
        for leaf in batch.leaves:
            said = json.loads(leaf.removeprefix(_PREFIX))
            digest = Digest(bytes.fromhex(said["plan_digest"]))
            status = PlanStatus.REGISTERED if batch.kind is AnchorKind.REGISTRATIONS else _OUTCOMES[said["outcome"]]
            found[digest] = max(found.get(digest, PlanStatus.NONE), status)
    return found
