"""What NotaryRegistry does (contracts/src), as a pure state machine, by the rules of `chain_contracts`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from eth_abi.abi import encode

from lockstep_contracts import notary
from lockstep_contracts.calldata import SELECTOR_BYTES
from lockstep_contracts.notary import AnchorKind, PlanStatus
from lockstep_testkit.simulation.chain_contracts import KEPT, NOTHING, Circumstances, Run, State, arguments

#: What is known of a root that nobody anchored.
NO_ANCHOR: Final = (AnchorKind.NONE, 0)


class NotaryRegistry:
    """NotaryRegistry."""

    def __init__(self, address: str, operators: Collection[str]) -> None:
        self.address: Final = address
        self.operators: Final = frozenset(operators)

    def run(self, state: State, data: bytes, now: Circumstances) -> Run:
        """Run a transaction of the operator on a state."""
        # Its items cost so little that gas runs out for all of them or for none.
        run = Run(state, self.address, notary.REGISTRY, replace(now, items_max=None))
        selector = data[:SELECTOR_BYTES]
        if selector == notary.REGISTER_MANY.selector:
            run.each(arguments(notary.REGISTER_MANY, data)[0], bytes, lambda digest: self._register(run, digest))
        elif selector == notary.FINALISE_MANY.selector:
            run.each(arguments(notary.FINALISE_MANY, data)[0], lambda item: bytes(item[0]), lambda item: self._finalise(run, *item))
        elif selector == notary.ANCHOR_MANY.selector:
            run.each(arguments(notary.ANCHOR_MANY, data)[0], lambda item: bytes(item[1]), lambda item: self._anchor(run, *item))
        else:
            raise AssertionError(f"the registry's {selector.hex()} has no twin")
        return run

    def read(self, state: State, data: bytes) -> bytes:
        """Result of statusOfMany, or of anchorOfMany."""
        if data[:SELECTOR_BYTES] == notary.ANCHOR_OF_MANY.selector:
            (roots,) = arguments(notary.ANCHOR_OF_MANY, data)
            return encode(notary.ANCHOR_OF_MANY.outputs, [[state.anchors.get(root, NO_ANCHOR) for root in roots]])
        (digests,) = arguments(notary.STATUS_OF_MANY, data)
        return encode(notary.STATUS_OF_MANY.outputs, [[state.plan(digest) for digest in digests]])

    def _register(self, run: Run, digest: bytes) -> None:
        status = run.state.plan(digest)
        if status is PlanStatus.ABORTED:
            raise run.fail("BadState", digest, status)
        if status is PlanStatus.NONE:
            run.state.plans[digest] = PlanStatus.REGISTERED, NOTHING
            run.emit("Registered", digest)

    def _finalise(self, run: Run, digest: bytes, outcome: int, evidence: bytes) -> None:
        if outcome < PlanStatus.COMMITTED:
            raise run.fail("OutcomeInvalid", digest)
        status, after = run.state.plan(digest), (PlanStatus(outcome), evidence[:KEPT])
        if run.state.plans.get(digest) == after:
            return
        if status >= PlanStatus.COMMITTED:
            raise run.fail("OutcomeConflict", digest, status)
        if status is PlanStatus.NONE and outcome != PlanStatus.ABORTED:
            raise run.fail("BadState", digest, status)
        run.state.plans[digest] = after
        run.emit("Finalised", digest, outcome, evidence)

    def _anchor(self, run: Run, kind: int, root: bytes, size: int) -> None:
        if kind == AnchorKind.NONE or size == 0:
            raise run.fail("AnchorInvalid", root)
        before = run.state.anchors.get(root, NO_ANCHOR)
        if before == (kind, size):
            return
        if before != NO_ANCHOR:
            raise run.fail("AnchorConflict", root, *before)
        run.state.anchors[root] = AnchorKind(kind), size
        run.write("Anchored", root, (kind, root, size))
