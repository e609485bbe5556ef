"""A covering set of the crash campaign: every service dies on both main paths, at each kind of place. `make test-crash` tries them all."""

from __future__ import annotations

import pytest

from crash.campaign import Campaign, Run, declared
from crash.paths import Path, course, voyage

pytestmark = pytest.mark.integration

#: One place of each kind of work, every service on both paths.
COVERING = (
    ("coordinator.decision.after_commit", Path.COMMIT),
    ("coordinator.commit.after_send", Path.COMMIT),
    ("coordinator.vote.in_tx", Path.ABORT),
    ("coordinator.abort.before_send", Path.ABORT),
    ("dlt-gateway.chain.broadcast.after_send", Path.COMMIT),
    ("dlt-gateway.abort.after_commit", Path.ABORT),
    ("bank-gateway.send.after_send", Path.COMMIT),
    ("bank-gateway.receive.in_tx", Path.ABORT),
    ("notary.chain.confirm.in_tx", Path.COMMIT),
    ("notary.abort.in_tx", Path.ABORT),
    ("notary.batch.close.in_tx", Path.BATCHED),
    ("notary.anchor.judge.after_commit", Path.BATCHED),
    ("notary.escalation.judge.in_tx", Path.REVERSE),
    ("coordinator.escalation.after_send", Path.REVERSE),
    ("notary.witness.cosign.in_tx", Path.COMMIT),
    ("notary.witness.cosign.after_commit", Path.ABORT),
    ("event-journal.commit.after_commit", Path.COMMIT),
    ("event-journal.append.after_commit", Path.ABORT),
    ("event-journal.log.in_tx", Path.COMMIT),
    ("coordinator.takeover.in_tx", Path.TAKEOVER),
    ("coordinator.claim.in_tx", Path.TAKEOVER),
    ("coordinator.vote.in_tx", Path.TOGETHER),
    ("coordinator.decision.after_commit", Path.TOGETHER),
    ("dlt-gateway.chain.carry.in_tx", Path.TOGETHER),
    ("bank-gateway.send.after_send", Path.TOGETHER),
    ("event-journal.append.in_tx", Path.TOGETHER),
)


#: A bound that a machine with other things to do keeps too; how long it really takes, the whole campaign says.
TERMINAL_SECONDS_MAX = 180.0


def assert_survived(run: Run) -> None:
    failures = run.failures(TERMINAL_SECONDS_MAX)
    assert failures == (), "\n".join(failures)


@pytest.mark.parametrize(("point", "path"), COVERING)
async def test_a_crash_half_settles_nothing(campaign: Campaign, point: str, path: Path) -> None:
    """Whoever dies where: the plan comes to its end within the bound, and every invariant holds of what is left."""
    assert point in declared()
    assert_survived(await campaign.strike(point, path))


async def test_plans_that_go_together_share_transactions(campaign: Campaign) -> None:
    """What dies in the middle of a transaction on that path leaves several plans behind: of most transitions several were written by one."""
    campaign.disarm()
    convoy = voyage(campaign.crew, Path.TOGETHER)
    await course(campaign.crew, campaign.miner, Path.TOGETHER, convoy)()
    async with campaign.crew.database("coordinator") as database:
        rows = await database.fetch("select xmin::text as writer from plan_transition where plan_id = any($1)", convoy.plan_ids)
    writers = {row["writer"] for row in rows}
    assert len(writers) * 2 < len(rows), (len(writers), len(rows))


async def test_a_crash_during_recovery_half_settles_nothing(campaign: Campaign) -> None:
    """A coordinator that dies while it goes on from the death of a participant leaves no more than either alone."""
    assert_survived(
        await campaign.strike("bank-gateway.commit.after_commit", Path.COMMIT, again="coordinator.outcome.after_commit")
    )


@pytest.mark.parametrize("path", [Path.COMMIT, Path.ABORT])
async def test_the_databases_die_together(campaign: Campaign, path: Path) -> None:
    """Postgres killed with all its backends in the middle of a plan loses nothing that was said, and everybody goes on when it is back."""
    assert_survived(await campaign.cut_power(path, 0.6))


async def test_everything_together_is_in_order(campaign: Campaign) -> None:
    """After all of it every invariant holds of all plans together, and no participant takes a command with an old epoch."""
    assert await campaign.judged() == ()
