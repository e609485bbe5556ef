"""What may happen next in a state, and the states that it leads to.

Everything that matters to the search is here: when a command becomes a message that may be lost, doubled or overtaken; what a crash leaves; what the
outside world may do. The rules of what each move leads to are production's (`production.Stack`); each is asked once and remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from typing import NamedTuple, TypeAlias, TypeVar

from coordinator.model import (
    AuditWritten,
    CheckFailed,
    ChecksBegun,
    ChecksPassed,
    CommitsWithheld,
    Event,
    ExecuteAsked,
    Order,
    PersonNeeded,
    Plan,
    Restored,
    State,
    Tick,
)
from coordinator.routing import ATTEMPTS_MAX, Route, routed
from lockstep_kit.fence import FINDINGS, TABLE, Action, Command, Finding, Phase, Rejected
from lockstep_kit.ids import LegId, sha256
from lockstep_kit.statements import Gate, Promise, Verdict
from model.invariants import Judge
from model.production import BROKEN, Stack, Stepped
from model.world import CLOCKS, GENERATION, LONG, Asked, Config, Fault, Local, Outside, Pool, Signing, Site

#: A state, bare: plan, clock, clock of the participants, epoch, faults, backup, then one number per leg.
Bare: TypeAlias = tuple[int, ...]
Known = TypeVar("Known")

_LEGS = 6
#: A leg in which the journal has closed the plan: it holds everything, and nothing is lost with the database.
_SEALED = (Phase.COMMITTED, Phase.RELEASED)
#: Names an abort audit log.
AUDIT = sha256(b"audit log")


class Step(NamedTuple):
    """One move."""

    #: What happened, in words.
    label: str
    #: Where it leads.
    state: Bare
    #: Whether it happens when nothing fails any more and nobody does anything.
    fair: bool


class LegMove(NamedTuple):
    """A move that touches one leg's site alone."""

    #: What happened.
    label: str
    #: The leg after it.
    local: int
    #: What it uses up, or None.
    fault: Fault | None
    #: Whether it happens by itself.
    fair: bool
    #: Why the command in force was rejected, or "".
    rejected: str = ""


def phases_from(phase: Phase | None) -> frozenset[Phase]:
    """Phases that a leg can still come to, by production's tables."""
    seen: set[Phase | None] = {phase}
    todo = [phase]
    while todo:
        here = todo.pop()
        led = [to for (at, _), to in TABLE.items() if at == here and isinstance(to, Phase)]
        led += [to for (at, _), to in FINDINGS.items() if at == here]
        if here is None:
            led.append(Phase.COMMITTING)
        for each in led:
            if each not in seen:
                seen.add(each)
                todo.append(each)
    return frozenset(each for each in seen if each is not None)


class Moves:
    """The moves of one configuration."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.stack = Stack(config)
        self.judge = Judge(self.stack, hostile=Fault.HOSTILE in config.faults)
        self.locals: Pool[Local] = Pool()
        self.faults: Pool[tuple[int, ...]] = Pool()
        self._kinds = tuple(config.faults)
        self._thrifty = config.thrifty and Fault.LOSE not in config.faults
        self._count = len(config.legs)
        self._evidence_from = min(place for place, each in enumerate(config.legs) if not each.kind.settling)
        self._memo: dict[tuple[object, ...], object] = {}
        self._leg_memo: dict[tuple[int, int, int], tuple[LegMove, ...]] = {}
        self._hear_memo: dict[tuple[int, int, int], tuple[tuple[str, Stepped, bool], ...]] = {}
        self._outboxes: dict[tuple[object, ...], int] = {}
        self._reach: dict[Phase | None, frozenset[Phase]] = {}

    def _once(self, key: tuple[object, ...], work: Callable[[], Known]) -> Known:
        found = self._memo.get(key)
        if found is None:
            found = self._memo[key] = work()
        return found  # type: ignore[return-value]  # one kind of key, one kind of value

    # -- Beginning ---------------------------------------------------------------------------------------------------

    def first(self) -> Bare:
        """The state in which the search begins."""
        empty = self.locals.number(Local(0, 0, self.stack.sites.number(Site()), 0))
        faults = self.faults.number(tuple(self.config.faults.values()))
        state: Bare = (self.stack.created(), 0, 0, 0, faults, 0, *([empty] * self._count))
        if self.config.start is State.DRAFT:
            return state
        for event in (ExecuteAsked(), ChecksBegun(), ChecksPassed()):
            state = self._apply(state, self._stepped(state[0], event, 0))[0]
        if self.config.start is State.READY_FOR_PREPARE:
            return state
        while (step := self._undisturbed(state)) is not None:
            state = step
        approval = self.stack.gate(state[0], (Gate.APPROVE, Verdict.APPROVE), CLOCKS[0])
        if approval is None:
            raise AssertionError("nobody can approve what everybody promised")
        return self._apply(state, self._stepped(state[0], approval, 0))[0]

    def _undisturbed(self, state: Bare) -> Bare | None:
        """The next state on the way on which every participant promises and nothing happens by chance; None where the plan waits for people."""
        ways = (each for each in self.after(state) if each.fair and not each.label.startswith(("the deadline", "much time")))
        return next((each.state for each in ways if not each.label.endswith("votes NO")), None)

    def plan(self, state: Bare) -> Plan:
        """The plan of a state."""
        return self.stack.plans[state[0]]

    def sites(self, state: Bare) -> tuple[Site, ...]:
        """The sites of a state."""
        return tuple(self.stack.sites[self.locals[each].site] for each in state[_LEGS:])

    # -- Everything that may happen ----------------------------------------------------------------------------------

    def after(self, state: Bare) -> Iterator[Step]:
        """Every move from a state."""
        plan, clock, clock_there, _, faults, backup = state[:_LEGS]
        for place in range(self._count):
            local = state[_LEGS + place]
            moves = self._leg_memo.get((place, local, clock_there))
            if moves is None:
                moves = self._leg_memo[place, local, clock_there] = tuple(self._leg_moves(place, local, clock_there))
            for move in moves:
                left = faults if move.fault is None else self._spent(faults, move.fault)
                if left is None:
                    continue
                if move.rejected:
                    yield from self._rejected(state, place, move.rejected)
                    continue
                at = _LEGS + place
                yield Step(move.label, (*state[:4], left, backup, *state[_LEGS:at], move.local, *state[at + 1 :]), move.fair)
            site = self.locals[local].site
            heard = self._hear_memo.get((plan, clock, site))
            if heard is None:
                heard = self._hear_memo[plan, clock, site] = self._heard(plan, clock, site)
            for label, stepped, fair in heard:
                for led in self._apply(state, stepped):
                    yield Step(label, led, fair)
        yield from self._own(state)
        yield from self._time(state)
        yield from self._crash(state)
        yield from self._restored(state)
        yield from self._operators(state)

    def _spent(self, faults: int, fault: Fault) -> int | None:
        def spend() -> int:
            if fault not in self._kinds:
                return -1
            left = list(self.faults[faults])
            place = self._kinds.index(fault)
            left[place] -= 1
            return -1 if left[place] < 0 else self.faults.number(tuple(left))

        found = self._once(("spend", faults, fault), spend)
        return None if found < 0 else found

    # -- The coordinator ---------------------------------------------------------------------------------------------

    def _stepped(self, plan: int, event: Event, clock: int, *, late: bool = False) -> Stepped:
        base = CLOCKS[clock]
        stepped = self.stack.step(plan, event, base + LONG if late else base, base)
        self.judge.edge()
        return stepped

    def _apply(self, state: Bare, stepped: Stepped) -> list[Bare]:
        """States after a step: its commands are in force; Commits that were never sent may be stopped."""
        after = self._written(state, stepped)
        if not stepped.withholds:
            return [after]
        unsent = [place for place in range(self._evidence_from) if self._unsent(place, after[_LEGS + place])]
        found = [after]
        for size in range(1, len(unsent) + 1):
            for places in combinations(unsent, size):
                legs = tuple(LegId(self.config.legs[place].leg_id) for place in places)
                key = ("withheld", after[0], after[1], legs)
                again = self._once(key, lambda ids=legs: self._stepped(after[0], CommitsWithheld(ids), after[1]))  # type: ignore[misc]
                found.append(self._written(after, again, forget=places))
        return found

    def _unsent(self, place: int, local: int) -> bool:
        """Whether nothing shows that the Commit in force was ever sent."""
        row, _, site, flight = self.locals[local]
        command, record = self.stack.rows[row], self.stack.sites[site].record
        if command is None or command.order is not Order.COMMIT:
            return False
        told = record is not None and record.fence.decision is not None
        return not told and not self._commits_fly(place, flight)

    def _commits_fly(self, place: int, flight: int) -> bool:
        flying = (self.stack.messages[place][bit] for bit in range(flight.bit_length()) if flight >> bit & 1)
        return any(each is not None and each.order is Order.COMMIT for each in flying)

    def _written(self, state: Bare, stepped: Stepped, forget: tuple[int, ...] = ()) -> Bare:
        legs = list(state)
        legs[0] = stepped.plan
        for place in range(self._count):
            at = _LEGS + place
            given, keep = stepped.given[place], stepped.keeps[place]
            row = self.locals[legs[at]].row
            if given or keep is not None or row:
                key = (place, state[at], given, keep, stepped.plan, state[3], place in forget)
                known = self._outboxes.get(key)
                if known is None:
                    known = self._outboxes[key] = self._outbox(*key)
                legs[at] = known
        return tuple(legs)

    def _outbox(self, place: int, local: int, given: int, keep: Order | None, plan: int, epoch: int, forget: bool) -> int:
        row, message, site, flight = self.locals[local]
        known = self.stack.rows[row]
        if given:
            row = given
        elif keep is not None and (known is None or known.order is not keep):
            row = 0
        fresh = self.stack.message(plan, place, row, epoch)
        if message and message != fresh and not forget:
            flight |= 1 << message
        return self._local(place, row, fresh, site, flight)

    def _local(self, place: int, row: int, message: int, site: int, flight: int) -> int:
        """A leg, without copies in flight that can do nothing any more."""
        kept = flight
        for bit in range(flight.bit_length()):
            if flight >> bit & 1 and self._once(("inert", place, site, bit), lambda b=bit: self._inert(place, site, b)):  # type: ignore[misc]
                kept &= ~(1 << bit)
        return self.locals.number(Local(row, message, site, kept))

    def _inert(self, place: int, site_no: int, bit: int) -> bool:
        """Whether production's tables say that a copy changes nothing, whatever still happens to the leg. True or False, never None."""
        message, record = self.stack.messages[place][bit], self.stack.sites[site_no].record
        if message is None or record is None or not self._thrifty:
            return message is None
        taken = self.stack.take(place, site_no, bit, 0)
        if taken.reason == Rejected.EPOCH_STALE:
            return True
        phase = record.fence.phase
        reach = self._reach.setdefault(phase, phases_from(phase))
        command = Command(message.order.value)
        if phase is None:
            return False
        if command is Command.REVERSE and message.item.order.digest in record.fence.reversals:  # type: ignore[union-attr]
            return True
        return not any(isinstance(TABLE[each, command], Phase) for each in reach)

    def _heard(self, plan: int, clock: int, site_no: int) -> tuple[tuple[str, Stepped, bool], ...]:
        """What every report of a site would be to the plan, whichever of them arrives."""
        reported = self.stack.sites[site_no].reports
        found = []
        for number in reported:
            _, report = self.stack.reports[number]
            if report.phase.working and not self.config.working_heard and number != reported[-1]:
                continue
            events = self.stack.hear(plan, number)
            if not events:
                continue
            # No participant of these contradicts itself: its report is one piece of news.
            (event,) = events
            stepped = self._stepped(plan, event, clock)
            if stepped.plan == plan and not any(stepped.given):
                continue
            words = f"the coordinator hears {report.leg_id} {report.phase} (revision {report.revision})"
            # What is reported last arrives in the end; a report that is no news of a fact is no progress.
            found.append((words, stepped, number == reported[-1]))
        return tuple(found)

    def _own(self, state: Bare) -> Iterator[Step]:
        """What persons sign, and what the coordinator does by itself."""
        plan, clock = state[0], state[1]
        for label, stepped, fair in self._once(("own", plan, clock), lambda: tuple(self._own_steps(plan, clock))):
            for led in self._apply(state, stepped):
                yield Step(label, led, fair)
        late = self._spent(state[4], Fault.LATE)
        if late is None:
            return
        stepped = self._once(("late", plan, clock), lambda: self._stepped(plan, Tick(), clock, late=True))
        if stepped.plan != plan:
            for led in self._apply(state, stepped):
                spent = list(led)
                spent[4] = late
                yield Step("much time passes", tuple(spent), fair=True)

    def escalates(self, state: Bare) -> bool:
        """Whether a person is called about the plan as it stands, once it has stood so for too long."""
        plan, clock = state[0], state[1]
        stepped = self._once(("late", plan, clock), lambda: self._stepped(plan, Tick(), clock, late=True))
        return bool(self.stack.plans[stepped.plan].tickets)

    def _own_steps(self, plan: int, clock: int) -> Iterator[tuple[str, Stepped, bool]]:
        known = self.stack.plans[plan]
        prefix: list[tuple[str, Event, bool]] = []
        match known.state:
            case State.DRAFT:
                prefix = [("execution is asked for", ExecuteAsked(), False)]
            case State.INITIATED:
                prefix = [("checks begin", ChecksBegun(), True)]
            case State.PRECONDITIONS_PENDING:
                failed = CheckFailed("COMPLIANCE_FAILED", "", "a party is not allowed")
                prefix = [("checks pass", ChecksPassed(), True), ("a check fails", failed, True)]
            case _:
                pass
        if known.auditing_since is not None:
            prefix = [("the audit log is durable", AuditWritten(AUDIT), True)]
        for label, event, fair in (*prefix, ("a tick", Tick(), True)):
            stepped = self._stepped(plan, event, clock)
            if stepped.plan != plan:
                yield label, stepped, fair
        for signing in sorted(self.config.gates):
            yield from self._signed(plan, clock, signing)

    def _signed(self, plan: int, clock: int, signing: Signing) -> Iterator[tuple[str, Stepped, bool]]:
        event = self.stack.gate(plan, signing, CLOCKS[clock])
        if event is not None:
            yield f"a person signs {signing[0]} {signing[1]}", self._stepped(plan, event, clock), False

    def _rejected(self, state: Bare, place: int, reason: str) -> Iterator[Step]:
        """What the relay makes of a command that was rejected again and again."""
        plan, clock = state[0], state[1]
        leg_id = self.config.legs[place].leg_id
        match routed(reason, self.stack.plans[plan].decision, ATTEMPTS_MAX):
            case Route.RETRY:
                return
            case Route.ABORT:
                event: Event = CheckFailed(reason, leg_id, "")
            case Route.PARK:
                event = PersonNeeded("COMMAND_REJECTED", leg_id, "")
            case Route.DEAD_LETTER:
                event = PersonNeeded("COMMAND_DEAD", leg_id, "")
        stepped = self._once(("rejected", plan, clock, place, reason), lambda: self._stepped(plan, event, clock))
        if stepped.plan != plan:
            for led in self._apply(state, stepped):
                yield Step(f"the command to {leg_id} is rejected again and again: {reason}", led, fair=True)

    def _time(self, state: Bare) -> Iterator[Step]:
        plan, clock, clock_there, *rest = state
        if not clock:
            there = 1 if not self.config.skew else clock_there
            yield Step("the deadline passes", (plan, 1, there, *rest), fair=True)
        if not clock_there and self.config.skew:
            yield Step("the deadline passes at the participants", (plan, clock, 1, *rest), fair=True)

    def _crash(self, state: Bare) -> Iterator[Step]:
        """Another replica takes the plan over: what was sent may still arrive, what was not sent is sent by the new owner."""
        left = self._spent(state[4], Fault.CRASH)
        if left is None:
            return
        for sent in (True, False):
            taken = [*state[:3], state[3] + 1, left, state[5]]
            for place in range(self._count):
                local = state[_LEGS + place]
                key = ("crash", place, local, state[0], state[3] + 1, sent)
                taken.append(self._once(key, lambda k=key: self._taken_over(*k[1:])))  # type: ignore[misc]
            yield Step(f"take-over ({'' if sent else 'un'}sent commands)", tuple(taken), fair=False)

    def _taken_over(self, place: int, local: int, plan: int, epoch: int, sent: bool) -> int:
        row, message, site, flight = self.locals[local]
        fresh = self.stack.message(plan, place, row, epoch)
        return self._local(place, row, fresh, site, flight | (1 << message if message and sent else 0))

    def _restored(self, state: Bare) -> Iterator[Step]:
        """The coordinator's database is set back, to a plan as it once was; what the journal had not taken yet is lost with it."""
        if Fault.RESTORE not in self.config.faults:
            return
        left, plan = self._spent(state[4], Fault.RESTORE), self.stack.plans[state[0]]
        sealed = any(place >= self._evidence_from and site.record is not None and site.record.fence.phase in _SEALED
                     for place, site in enumerate(self.sites(state)))  # fmt: skip
        if left is None or plan.sealing or sealed or plan.state is State.CLOSED:
            return
        if not state[5]:
            yield Step("a backup is taken", (*state[:5], state[0] + 1, *state[_LEGS:]), fair=False)
            return
        epoch = state[3] + GENERATION
        sites = tuple(self.stack.raised_to(place, self.locals[each].site, epoch) for place, each in enumerate(state[_LEGS:]))
        key = ("restored", state[5], sites, state[1])

        def adopted() -> Stepped:
            return self._stepped(self.stack.adopted(state[5] - 1, sites), Restored(), state[1])

        stepped = self._once(key, adopted)
        legs = []
        for place, number in enumerate(state[_LEGS:]):
            _, message, _, flight = self.locals[number]
            legs.append(self._local(place, 0, 0, sites[place], flight | (1 << message if message else 0)))
        back: Bare = (stepped.plan, state[1], state[2], epoch, left, 0, *legs)
        for led in self._apply(back, stepped):
            yield Step("the coordinator's database is set back", led, fair=False)

    def _operators(self, state: Bare) -> Iterator[Step]:
        plan, clock = state[0], state[1]
        if Fault.VERB not in self.config.faults or not self.stack.plans[plan].tickets:
            return
        left = self._spent(state[4], Fault.VERB)
        if left is None:
            return
        truths = tuple(each.outside for each in self.sites(state))
        nth = self.faults[state[4]][self._kinds.index(Fault.VERB)]

        def decided() -> tuple[tuple[str, Stepped], ...]:
            options = self.stack.resolutions(plan, truths, nth, CLOCKS[clock])
            return tuple((label, self._stepped(plan, event, clock)) for label, event in options)

        for label, stepped in self._once(("operators", plan, clock, truths, nth), decided):
            if stepped.plan != plan or any(stepped.given):
                for led in self._apply(state, stepped):
                    spent = list(led)
                    spent[4] = left
                    yield Step(label, tuple(spent), fair=False)

    # -- A leg -------------------------------------------------------------------------------------------------------

    def _leg_moves(self, place: int, local: int, clock: int) -> Iterator[LegMove]:
        row, message, site, flight = self.locals[local]
        name = self.config.legs[place].leg_id

        def to(number: int, flying: int = flight) -> int:
            return self._local(place, row, message, number, flying)

        if message:
            yield from self._deliver(place, local, message, clock, current=True)
            if Fault.CRASH in self.config.faults:
                raised = self.stack.raised(place, site, message)
                if raised != site:
                    yield LegMove(f"{name} is asked, and its fence raised", to(raised), None, fair=False)
        if Fault.HOSTILE in self.config.faults and self.config.legs[place].kind.settling:
            for forged in self.stack.forged(place):
                taken = self._deliver(place, local, forged, clock, current=False)
                yield from (move._replace(label=f"forged: {move.label}", fault=Fault.HOSTILE) for move in taken)
        for bit in range(flight.bit_length()):
            if flight >> bit & 1:
                yield from self._deliver(place, local, bit, clock, current=False)
        for label, after, fault, fair in self._site_moves(place, self.stack.sites[site]):
            number = self.stack.sites.number(after)
            if number != site:
                self.judge.finding(place, self.stack.sites[site], after)
                yield LegMove(f"{name} {label}", to(number), fault, fair)

    def _deliver(self, place: int, local: int, message_no: int, clock: int, *, current: bool) -> Iterator[LegMove]:
        row, message, site, flight = self.locals[local]
        taken = self.stack.take(place, site, message_no, clock)
        told = self.stack.messages[place][message_no]
        if told is None:
            raise AssertionError("no message")
        self.judge.taken(place, self.stack.sites[site], told, taken, self.stack.sites[taken.site], clock)
        words = f"{self.config.legs[place].leg_id} takes {told.order} of epoch {told.item.epoch.counter}"
        words += f": {taken.action or 'REJECT'} {taken.reason}".rstrip()
        if taken.action in (None, Action.REJECT) and current:
            yield LegMove(words, local, None, fair=True, rejected=taken.reason)
        if taken.site == site:
            return
        shape = self.config.legs[place]
        done = [self.stack.sites[taken.site]]
        if taken.action is Action.BEGIN and shape.prompt:
            done = [after for _, after, fault, _ in self._site_moves(place, done[0], prompt=True) if fault is None] or done
        for each in done:
            number = self.stack.sites.number(each)
            yield LegMove(words, self._local(place, row, message, number, flight), None, fair=current)

    def _site_moves(self, place: int, site: Site, *, prompt: bool = False) -> Iterator[tuple[str, Site, Fault | None, bool]]:
        """What may happen to a leg at its participant and outside, without any message."""
        found, record, shape = self.stack.found, site.record, self.config.legs[place]
        if record is None or record.fence.phase is None:
            return
        can_execute = Asked.EXECUTE in site.asked and site.outside is Outside.HELD
        if can_execute and not prompt:
            yield "is executed outside", replace(site, outside=Outside.EXECUTED), None, True
            yield "breaks its promise", replace(site, outside=Outside.GONE), Fault.BREAK, False
        match record.fence.phase:
            case Phase.REVERSING if site.outside is Outside.EXECUTED:
                yield "is reversed", found(place, site, Finding.REVERSED, Outside.REVERSED), None, True
                yield (
                    "cannot be reversed",
                    found(place, site, Finding.REVERSAL_REFUSED, Outside.EXECUTED, BROKEN),
                    Fault.STUCK,
                    False,
                )
            case Phase.REVERSING:
                yield "finds nothing to reverse", found(place, site, Finding.REVERSED, Outside.REVERSED), None, True
            case Phase.PREPARING:
                for answer in shape.answers:
                    yes = isinstance(answer, Promise)
                    finding, outside = (Finding.VOTED_YES, Outside.HELD) if yes else (Finding.VOTED_NO, Outside.NOTHING)
                    yield f"votes {'YES' if yes else 'NO'}", found(place, site, finding, outside, answer), None, True
            case Phase.PREPARED if site.outside is Outside.GONE:
                yield "finds its promise lapsed", found(place, site, Finding.LAPSED, Outside.GONE), None, True
            case Phase.PREPARED:
                yield "loses its hold", replace(site, outside=Outside.GONE), Fault.LAPSE, False
            case Phase.COMMITTING:
                if prompt and can_execute:
                    site = replace(site, outside=Outside.EXECUTED)
                if site.outside is Outside.EXECUTED:
                    yield "finds itself executed", found(place, site, Finding.EXECUTED, Outside.EXECUTED), None, True
                if site.outside is Outside.GONE:
                    yield "finds itself refused", found(place, site, Finding.REFUSED, Outside.GONE), None, True
            case Phase.ABORTING if site.outside in (Outside.EXECUTED, Outside.REVERSED):
                yield "is found executed", found(place, site, Finding.EXECUTED, site.outside), None, True
            case Phase.ABORTING:
                gone = Outside.GONE if site.outside is Outside.GONE else Outside.RELEASED
                yield "is released", found(place, site, Finding.RELEASED, gone), None, True
            case Phase.REFUSED | Phase.RELEASED if site.outside is Outside.EXECUTED:
                yield "is found executed", found(place, site, Finding.EXECUTED, Outside.EXECUTED), None, True
            case Phase.REFUSED | Phase.RELEASED if shape.kind.settling:
                yield "is executed though it was given up", replace(site, outside=Outside.EXECUTED), Fault.ROGUE, False
            case Phase.COMMITTED if site.outside is Outside.GONE and not record.trouble:
                yield "finds itself taken back", found(place, site, Finding.REFUSED, Outside.GONE), None, True
            case Phase.COMMITTED if site.outside is Outside.EXECUTED and shape.kind.settling:
                yield "is taken back outside", replace(site, outside=Outside.GONE), Fault.RETURN, False
            case _:
                pass
        if record.fence.phase is Phase.PREPARED and shape.kind.settling:
            yield "is forgotten (its database is set back)", replace(site, record=None), Fault.LOSE, False


__all__ = ["Bare", "LegMove", "Moves", "Step", "phases_from"]
