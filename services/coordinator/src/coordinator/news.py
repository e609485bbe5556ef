"""What participants report, taken into the plans: on answers to commands, on their outcome streams, and when asked."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from typing import Final

import structlog

from coordinator import reports
from coordinator.convert.participant import report_from_pb
from coordinator.engine import Engine, Work
from coordinator.reports import LegReport
from coordinator.sharing import Share
from coordinator.store import kept_news, reading, restores
from coordinator.store.kept_news import KeptNews
from coordinator.unshown import Unshown
from lockstep.participant.v1 import leg_pb2
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import LegId, PlanId

_log = structlog.get_logger()

#: Revisions that are remembered, so that what was heard on one way is not taken again on another.
_HEARD_MAX: Final = 100_000
#: Phases of legs whose participants carry out a command: what comes of it is told next.
UNDER_WAY: Final = frozenset(
    {leg_pb2.LEG_PHASE_PREPARING, leg_pb2.LEG_PHASE_COMMITTING, leg_pb2.LEG_PHASE_ABORTING, leg_pb2.LEG_PHASE_REVERSING}
)


class News:
    """Takes reports, whoever brings them; each at most once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._heard: OrderedDict[tuple[PlanId, LegId], int] = OrderedDict()
        #: By participant.
        self.unshown: defaultdict[str, Unshown] = defaultdict(Unshown)

    def read(self, sender: str, messages: Sequence[leg_pb2.LegReport]) -> list[tuple[LegReport, bytes]]:
        """Reports that may be new, with their bytes. One that cannot be read is logged, and believed in nothing."""
        found: dict[tuple[PlanId, LegId], tuple[LegReport, bytes]] = {}
        for message in messages:
            try:
                report = report_from_pb(message)
            except FieldInvalid as finding:
                _log.error("report_malformed", participant=sender, plan_id=message.plan_id[:64], field=finding.field)
                continue
            key = (report.plan_id, report.leg_id)
            if report.revision > self._heard.get(key, 0) and (key not in found or report.revision > found[key][0].revision):
                found[key] = (report, message.SerializeToString())
        return list(found.values())

    def moves(self, message: leg_pb2.LegReport) -> bool:
        """Whether a report may bring its plan on: it is news, and more than that a command is being carried out."""
        heard = self._heard.get((PlanId(message.plan_id), LegId(message.leg_id)), 0)
        return message.revision > heard and (bool(message.trouble) or message.phase not in UNDER_WAY)

    async def take(self, sender: str, messages: Sequence[leg_pb2.LegReport]) -> None:
        """Take reports into their plans in one transaction. News of plans that another replica holds is kept for it."""
        await self._take(sender, self.read(sender, messages))

    async def take_answers(self, sender: str, messages: Sequence[leg_pb2.LegReport]) -> None:
        """Take what commands were answered with; the sender's outcome stream is to show it too."""
        found = self.read(sender, messages)
        for report, _ in found:
            self.unshown[sender].answered(report.plan_id, report.leg_id, report.revision)
        await self._take(sender, found)

    async def take_shown(self, sender: str, messages: Sequence[leg_pb2.LegReport], cursor: tuple[str, int]) -> None:
        """Take what the sender's outcome stream shows, and note in the same transaction where it was read to: incarnation and sequence."""
        await self._take(sender, self.read(sender, messages), cursor)
        for each in messages:
            self.unshown[sender].shown(PlanId(each.plan_id), LegId(each.leg_id), each.revision)

    async def _take(self, sender: str, found: Sequence[tuple[LegReport, bytes]], cursor: tuple[str, int] | None = None) -> None:
        if not found and cursor is None:
            return
        try:
            await self._step_all(sender, found, cursor)
        except AssertionError:
            # One report drives its plan into an impossibility: the others must not wait behind it for ever.
            _log.exception("reports_taken_apart", participant=sender)
            for report, octets in found:
                try:
                    await self._step_all(sender, [(report, octets)], None)
                except AssertionError:
                    _log.exception("report_impossible", participant=sender, plan_id=report.plan_id, leg_id=report.leg_id)
            if cursor is not None:
                await self._step_all(sender, [], cursor)

    async def _step_all(self, sender: str, found: Sequence[tuple[LegReport, bytes]], cursor: tuple[str, int] | None) -> None:
        def step(work: Work) -> None:
            for report, _ in found:
                if report.plan_id in work.epochs:
                    self._step(work, sender, report)

        async def write(work: Work) -> None:
            unheld = {report.plan_id for report, _ in found} - work.epochs.keys()
            if unheld:
                await self._keep(work, sender, [each for each in found if each[0].plan_id in unheld])
            if cursor is not None:
                work.heard(sender, *cursor)

        kind = "outcome" if any(report.outcome is not None for report, _ in found) else "vote"
        await self._engine.share(Share(kind, frozenset(report.plan_id for report, _ in found), step, write, sender))
        for report, _ in found:
            self._remember(report)

    async def take_kept(self, limit: int = 256) -> int:
        """Take reports that other replicas kept for this one; how many there were."""
        async with self._engine.db.connection() as connection:
            kept = await kept_news.read(connection, self._engine.owner.name, limit)
        if not kept:
            return 0
        ids = sorted({each.plan_id for each in kept})
        async with self._engine.traces.span("coordinator.outcome", ids), self._engine.work("outcome") as work:
            held = await work.load(ids)
            taken = [each for each in kept if each.plan_id in held]
            for each in taken:
                self._step(work, each.participant, report_from_pb(leg_pb2.LegReport.FromString(each.report)))
            await kept_news.drop(work.tx, taken)
        return len(kept)

    def _step(self, work: Work, sender: str, report: LegReport) -> None:
        dossier = work.dossier(report.plan_id)
        for event in reports.admit(report, sender, dossier, self._engine.registry):
            work.step(report.plan_id, event)

    async def _keep(self, work: Work, sender: str, found: Sequence[tuple[LegReport, bytes]]) -> None:
        """What is about plans that this replica does not hold is kept, for the replica that does."""
        known = await reading.known(work.tx, {report.plan_id for report, _ in found})
        elsewhere = [
            KeptNews(report.plan_id, report.leg_id, sender, report.revision, octets)
            for report, octets in found
            if report.plan_id in known
        ]
        await kept_news.keep(work.tx, elsewhere)
        await self._keep_orphans(work, sender, [report for report, _ in found if report.plan_id not in known])

    async def _keep_orphans(self, work: Work, sender: str, found: Sequence[LegReport]) -> None:
        """Legs of plans that nobody knows are kept, for what may be held for them."""
        await restores.keep_orphans(work.tx, sender, [(each.plan_id, each.leg_id, each.phase) for each in found])
        for each in found:
            _log.error("report_of_unknown_plan", participant=sender, plan_id=each.plan_id, leg_id=each.leg_id)

    def _remember(self, report: LegReport) -> None:
        self._heard[report.plan_id, report.leg_id] = report.revision
        self._heard.move_to_end((report.plan_id, report.leg_id))
        while len(self._heard) > _HEARD_MAX:
            self._heard.popitem(last=False)
