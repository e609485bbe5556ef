"""Bugs that are put into the code on purpose: the simulation must notice each of them, or it would not notice such a bug if it were real.

A mutation replaces a piece of one function's text, or the twin of one statement, while it is entered. Text that is not there any more is an error, so that
a mutation cannot outlive the code that it is about.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from lockstep_testkit.simulation import schemas
from lockstep_testkit.simulation.memory import Handler


@dataclass(frozen=True, slots=True)
class Mutation:
    """One bug."""

    #: What is wrong with it.
    name: str
    #: Where: module, and the function or Class.function in it.
    module: str
    function: str
    #: The text that is replaced, and what takes its place.
    right: str
    wrong: str
    #: Seeds within which it is noticed.
    seeds: int


MUTATIONS: Final = (
    Mutation(
        "a stream whose channel is closed ends its reader as if that had been cancelled",
        "lockstep_kit.rpc.streams",
        "answers",
        "if task is None or task.cancelling():",
        "if True:",
        25,
    ),
    Mutation(
        "a leg that is prepared counts as one that nothing is held for",
        "coordinator.orders",
        "_held",
        "facts.barred(each) or",
        "facts.barred(each) or each.phase is Phase.PREPARED or",
        100,
    ),
    Mutation(
        "the journal waits for one entry too many",
        "event_journal.operations",
        "judge_closing",
        "head.entry_count + 1 < work.closing.journal_sequence",
        "head.entry_count < work.closing.journal_sequence",
        100,
    ),
    Mutation(
        "the tree is said to be smaller than it grew",
        "event_journal.log.sequencer",
        "Sequencer._grow",
        "size += len(leaves)",
        "size += len(leaves) - 1",
        5,
    ),
    Mutation(
        "a leaf is over other bytes than were signed",
        "event_journal.log.sequencer",
        "Sequencer._grow",
        'leaf_hash(row["canonical_bytes"])',
        'leaf_hash(row["canonical_bytes"][1:])',
        5,
    ),
    Mutation(
        "half of a transaction stays",
        "lockstep_testkit.simulation.memory",
        "Server.lose",
        "self._end(tx)",
        "self.commit(tx)",
        100,
    ),
    Mutation(
        "several promises that lapse are commanded as one decision",
        "coordinator.facts",
        "soft_legs",
        "each.promise.soft)",
        "False)",
        400,
    ),
    Mutation(
        "a command counts as answered when it is sent",
        "lockstep_testkit.simulation.writing_statements",
        "_give",
        '"answered": False}',
        '"answered": fresh["attempts"] > 0}',
        100,
    ),
    Mutation(
        "a lease is taken under the epoch of its last holder",
        "lockstep_testkit.simulation.leases_statements",
        "acquire",
        'known["counter"] + 1',
        'known["counter"]',
        200,
    ),
    Mutation(
        "a lease that another holds is taken",
        "lockstep_testkit.simulation.leases_statements",
        "acquire",
        'not (known["owner"] == owner or free(known, s.now))',
        "False",
        200,
    ),
    Mutation(
        "events that did not reach the journal are not looked for",
        "coordinator.wakes",
        "Records.takes_look",
        "looks, self._looks = self._looks, False",
        "looks, self._looks = False, False",
        100,
    ),
    Mutation(
        "a NO is said while the tokens are held",
        "lockstep_chain.judging",
        "judge",
        "return Releases(unpayable)",
        "told = Finding.VOTED_NO",
        400,
    ),
    Mutation(
        "what the chain did is believed before it is final",
        "lockstep_chain.legs",
        "LegJudge.round",
        """\
    after: LegKey | None = None
    while True:
        async with self._db.connection() as connection:
            # A leg whose transaction is under way cannot have an answer yet; asking the node about it would be work for nothing.
            keys = await leg_store.unanswered(connection, after, JUDGED_MAX)
            due = await self._engine.load(connection, keys, phases=WORKING)
""",
        """\
    after: LegKey | None = None
    self._machine.final_head = self._machine._chain.head
    while True:
        async with self._db.connection() as connection:
            due = await self._engine.working(connection, WORKING, after=after, limit=JUDGED_MAX)
            keys = [(each.plan_id, each.leg_id) for each in due]
""",
        25,
    ),
    Mutation(
        "a receipt counts before its block is final",
        "lockstep_chain.machine",
        "judge",
        "receipt.block_number <= seen.final_number",
        "receipt.block_number <= seen.head.number",
        100,
    ),
    Mutation(
        "bytes are sent before they are stored",
        "lockstep_chain.dispatcher",
        "Dispatcher._sign",
        "await self._account.store_signed(",
        "await self._evm.broadcast([each.raw for each in signed]); await self._account.store_signed(",
        400,
    ),
    Mutation(
        "a transaction that the node has forgotten counts as lost",
        "lockstep_chain.machine",
        "_deliver",
        "_replace(tx, kind, seen, policy)\n    return Resend()",
        "_replace(tx, kind, seen, policy)\n    return Reconcile()",
        25,
    ),
    Mutation(
        "a nonce counts as used by somebody else before that is final",
        "lockstep_chain.machine",
        "judge",
        "Reconcile() if seen.final_nonce > tx.nonce else Wait()",
        "Reconcile()",
        400,
    ),
    Mutation(
        "another attempt is signed under another nonce",
        "lockstep_chain.dispatcher",
        "Dispatcher.replace",
        "self._unsigned(intent, row.outbound.nonce, told.fees)",
        "self._unsigned(intent, row.outbound.nonce + 1, told.fees)",
        25,
    ),
    Mutation(
        "a leg whose transaction's nonce was used by another is sent anew",
        "lockstep_chain.judging",
        "judge",
        "if order.skip_code == MANUAL:",
        "if False:",
        400,
    ),
    Mutation(
        "a key whose answer got lost counts as refused",
        "bank_gateway.courier",
        "Courier.send_due",
        "if isinstance(handover, TurnedDown):",
        """if isinstance(handover, NoAnswer) and each.action == "RELEASE":
                async with self._db.transaction() as tx:
                    refusal = Refusal("BANK_EXECUTE_FAILED", "", "no answer")
                    await outbox_store.mark_failed(tx, each.id, "no answer")
                    await self._engine.complete(tx, [Completion(each.plan_id, each.leg_id, Finding.REFUSED, refusal=refusal)])
            if isinstance(handover, TurnedDown):""",
        100,
    ),
    Mutation(
        "half a settlement counts as the whole",
        "bank_gateway.operations",
        "_settles",
        "not known.settled",
        "not known.moved",
        25,
    ),
    Mutation(
        "a payment that comes too late to be cancelled counts as cancelled",
        "bank_gateway.operations",
        "answer_of",
        "Answer.SETTLED_ALREADY",
        "Answer.NEVER_THERE",
        400,
    ),
    Mutation(
        "a cancellation is believed of a payment that the bank has settled",
        "bank_gateway.operations",
        "_resolution",
        "if meaning is Meaning.RELEASED and known.moved:",
        "if False:",
        100,
    ),
    Mutation(
        "a rejection as a repeat counts as a refusal",
        "bank_gateway.operations",
        "word_of",
        "said.reason in REPEATS",
        "False",
        100,
    ),
    Mutation(
        "another amount is as good",
        "bank_gateway.operations",
        "_booking",
        "said.amount != payment.amount or ",
        "",
        100,
    ),
    Mutation(
        "a hold that is told late calls a person",
        "bank_gateway.operations",
        "_overtaken",
        "return not known.held and",
        "return False and",
        200,
    ),
    Mutation(
        "what a leg that is given up had drawn stays drawn",
        "bank_gateway.ledger.rules",
        "given_up",
        "if now.place in OUTSTANDING else None",
        "if now.place is AccountKind.INSTRUCTED else None",
        25,
    ),
    Mutation(
        "what is settled stays held on the books",
        "bank_gateway.ledger.rules",
        "heard",
        "if known.settled:",
        "if False:",
        25,
    ),
    Mutation(
        "a report that says one thing more than is known counts as old",
        "coordinator.reports",
        "admit",
        "report.revision <= known.revision",
        "report.revision <= known.revision + 1",
        25,
    ),
    Mutation(
        "the deadline still counts after the decision",
        "coordinator.facts",
        "cause",
        "return _executing(plan)",
        "return Cause.CONTRADICTION if now > plan.deadline else _executing(plan)",
        200,
    ),
)


#: Beginnings of the names of modules that may have imported what is replaced.
_PACKAGES: Final = ("coordinator", "lockstep_", "event_journal", "bank_gateway", "dlt_gateway", "notary")


@contextmanager
def mutated(mutation: Mutation) -> Iterator[None]:
    """The bug is in the code inside.

    Raises:
        ValueError: the code is not what the mutation thinks.
    """
    module = importlib.import_module(mutation.module)
    owner, _, name = mutation.function.rpartition(".")
    holder: Any = getattr(module, owner) if owner else module
    before = getattr(holder, name)
    after = _changed(module, before, mutation)
    undo = _everywhere(before, after)
    setattr(holder, name, after)
    try:
        yield
    finally:
        setattr(holder, name, before)
        undo()


def _changed(module: Any, function: Callable[..., Any], mutation: Mutation) -> Callable[..., Any]:
    source = textwrap.dedent(inspect.getsource(function))
    # Without what registers it: that stays as it was.
    source = source[re.search(r"^(async )?def ", source, re.MULTILINE).start() :]  # type: ignore[union-attr]
    right, wrong = mutation.right, mutation.wrong
    if right not in source:
        raise ValueError(f"{mutation.name}: {mutation.module}.{mutation.function} holds no {right!r}")
    changed = source.replace(right, wrong, 1)
    names: dict[str, Any] = {}
    exec(compile(changed, f"<{mutation.name}>", "exec"), module.__dict__, names)  # noqa: S102 - our own code, with a bug in it
    found: Callable[..., Any] = names[function.__name__]
    return found


def _everywhere(before: Callable[..., Any], after: Callable[..., Any]) -> Callable[[], None]:
    """Other modules that imported the function, and the schemas that hold it as a twin, get the other one too."""
    places: list[tuple[Any, str]] = [
        (module, name)
        for module in list(sys.modules.values())
        if getattr(module, "__name__", "").startswith(_PACKAGES)
        for name, value in list(vars(module).items())
        if value is before
    ]
    for module, name in places:
        setattr(module, name, after)
    twins: list[tuple[dict[str, Handler], str]] = [
        (statements, text) for statements in schemas.all_statements() for text, handler in statements.items() if handler is before
    ]
    for statements, text in twins:
        statements[text] = after

    def undo() -> None:
        for module, name in places:
            setattr(module, name, before)
        for statements, text in twins:
            statements[text] = before

    return undo
