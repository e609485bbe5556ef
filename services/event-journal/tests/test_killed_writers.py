"""Many processes of the journal append to the same plans at once, and are killed at random: what was answered stands, once, and in one order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
from journal_world import APPENDED, GAP, JournalWorld, append, event_of

from lockstep.journal.v1 import journal_service_pb2_grpc
from lockstep_testkit.factories import PlanCase, delivery_versus_payment
from lockstep_testkit.participants import ParticipantProcess

PROCESSES, PLANS, LENGTH, KILLS = 8, 5, 40, 10
SEED = 20_261_121
#: What a caller is told whose process is gone, or is just coming up.
UNKNOWN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


class Writer:
    """Sends every plan's events through one process, from wherever its chain stands, whatever becomes of the process."""

    def __init__(self, process: ParticipantProcess, plans: list[PlanCase], rng: random.Random) -> None:
        self._process = process
        self._plans = plans
        self._rng = rng
        #: (plan, sequence) -> hashes that it was answered with.
        self.answered: dict[tuple[str, int], set[bytes]] = {}
        self.unanswered = 0

    async def run(self, over: asyncio.Event) -> None:
        """Until every chain is whole and `over`: whoever is killed has something under way, or sends something into the void."""
        stub = journal_service_pb2_grpc.JournalServiceStub(await self._process.channel())
        at: dict[str, int] = {plan.plan_id: 1 for plan in self._plans}
        while (unfinished := [plan for plan in self._plans if at[plan.plan_id] <= LENGTH]) or not over.is_set():
            if not unfinished:
                # Nothing is left to send: once more what was sent already.
                at = {plan.plan_id: self._rng.randint(1, LENGTH) for plan in self._plans}
                await asyncio.sleep(0.05)
                continue
            chosen = self._rng.sample(unfinished, self._rng.randint(1, len(unfinished)))
            count = self._rng.randint(1, 6)
            events = [
                event_of(plan, sequence)
                for plan in chosen
                for sequence in range(at[plan.plan_id], min(at[plan.plan_id] + count, LENGTH + 1))
            ]
            try:
                answers = await append(stub, *events)
            except grpc.aio.AioRpcError as error:
                if error.code() not in UNKNOWN:
                    raise
                self.unanswered += 1
                await asyncio.sleep(0.05)
                continue
            for event, answer in zip(events, answers, strict=True):
                assert answer.verdict in (APPENDED, GAP), answer
                if answer.verdict == APPENDED:
                    self.answered.setdefault((event.plan_id, event.sequence), set()).add(answer.entry_hash)
                    at[event.plan_id] = max(at[event.plan_id], event.sequence + 1)


async def killed(processes: list[ParticipantProcess], rng: random.Random) -> None:
    """One after the other is killed as by a power cut, and started again."""
    for _ in range(KILLS):
        await asyncio.sleep(rng.uniform(0.05, 0.3))
        chosen = rng.choice(processes)
        await chosen.kill()
        await chosen.restart()


async def test_killed_writers_leave_one_log(
    participant_for: Callable[..., Awaitable[ParticipantProcess]], payload_key_file: Path
) -> None:
    """Eight processes, the same plans, killed again and again: no fork, no gap, no duplicate, and every event that was answered APPENDED stands as answered."""
    rng = random.Random(SEED)
    first = await participant_for("event-journal", poll_seconds=0.5, payload_key_files=[str(payload_key_file)])
    processes = [first, *(await asyncio.gather(*(first.replica(number) for number in range(2, PROCESSES + 1))))]
    plans = [delivery_versus_payment() for _ in range(PLANS)]
    writers = [Writer(process, plans, random.Random(rng.random())) for process in processes]
    over = asyncio.Event()
    writing = asyncio.gather(*(writer.run(over) for writer in writers))
    await killed(processes, rng)
    over.set()
    await asyncio.wait_for(writing, 600)
    assert sum(writer.unanswered for writer in writers) > 0, "nobody was hit: the test shows nothing"

    world = await JournalWorld.around(first)
    rows = await world.rows("select plan_id, sequence, position, entry_hash, previous_hash from journal_entry order by position")
    assert [row["position"] for row in rows] == list(range(1, PLANS * LENGTH + 1))
    for plan in plans:
        chain = [row for row in rows if row["plan_id"] == plan.plan_id]
        assert [row["sequence"] for row in chain] == list(range(1, LENGTH + 1))
        assert [row["previous_hash"] for row in chain[1:]] == [row["entry_hash"] for row in chain[:-1]]
        assert (await world.verify(plan.plan_id)).valid
        head = await world.head(plan.plan_id)
        assert (head["entry_count"], head["head_hash"], head["frozen"]) == (LENGTH, chain[-1]["entry_hash"], "")
    stands = {(row["plan_id"], row["sequence"]): {row["entry_hash"]} for row in rows}
    for writer in writers:
        for place, hashes in writer.answered.items():
            assert hashes == stands[place]
