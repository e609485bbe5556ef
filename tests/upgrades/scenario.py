"""An installation of the release before is upgraded to this tree's, as docs/operations.md says, while plans settle and people watch.

    PYTHONPATH=<telling>:<the release before> python scenario.py RUN PREVIOUS TREE

Everything is the release before's: this process with its people, the settings, the contracts, the bank; and each service, until it is replaced by this tree's.
So what is used here of the sandbox and the test kit is what both releases have. The last line of output is a JSON document of what came to pass.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import aiohttp
import grpc
import yaml

import lockstep_sandbox
from lockstep.coordinator.v1.settlement_service_pb2 import GetPlanRequest, GetPlanResponse
from lockstep.participant.v1 import leg_pb2
from lockstep_client.client import LockstepClient
from lockstep_client.convert import plan_from_pb, state_name
from lockstep_client.making import consent, create
from lockstep_client.watching import Change, Snapshot
from lockstep_kit.errors import LockstepError
from lockstep_kit.rpc.arrows import SETTLEMENT
from lockstep_sandbox.monitoring import MONITOR, alarms
from lockstep_sandbox.ports import LOOPBACK
from lockstep_sandbox.processes import cancel_on_signals
from lockstep_sandbox.runtime import RuntimeDirectory
from lockstep_sandbox.stack import CLIENT, SERVICES, Sandbox, package_of
from lockstep_testkit.checker import collect, judge
from lockstep_testkit.crew import PATIENT, SIGNERS, Crew, awaited, draw_address

TELLING: Final = Path(__file__).parent / "telling"
#: This tree's packages are installed: they are found where nothing comes before them.
THIS: Final = {"PYTHONPATH": str(TELLING)}
REPLICAS: Final = 2
#: Each program runs more files of its release than these.
FILES_MIN: Final = 10
#: Who is replaced in which order. Both coordinators' releases meet both releases of each participant on the way.
FIRST: Final = ("coordinator", "dlt-gateway", "bank-gateway", "notary", "event-journal")
SECOND: Final = tuple(f"{each}-2" for each in ("dlt-gateway", "bank-gateway", "notary", "event-journal", "coordinator"))
COORDINATORS: Final = ("coordinator", "coordinator-2")
#: What a person signs at a replica that does not hold the plan waits for as long.
LEASE_SECONDS: Final = "3"
SECONDS_MAX: Final = 400.0
#: No service lets a call take longer than minutes.
CALL_SECONDS_MAX: Final = 120.0
LOOK_SECONDS: Final = 0.05
#: Field 2047 of a message, with three octets.
LATER_FIELD: Final = b"\xfa\x7f\x03new"
#: What processes count of their work for plans.
DONE: Final = re.compile(
    r'(?:lockstep_plan_transitions_total\{|lockstep_rpc_server_requests_total\{code="OK",'
    r'method="lockstep\.(?:participant\.v1\.ParticipantService/(?:Prepare|Commit)|journal\.v1\.JournalService/Append))[^}]*\} (\S+)'
)
STOPPED_BY_ITSELF: Final = 0


class Upgrade:
    """One installation on its way from the one release to the other."""

    def __init__(self, sandbox: Sandbox, crew: Crew, previous: Path, tree: Path, loaded: Path) -> None:
        self.sandbox = sandbox
        self.crew = crew
        self.previous = previous
        self.tree = tree
        self.loaded = loaded
        #: Plan -> who is paid its tokens.
        self.payees: dict[str, str] = {}
        #: Plan -> what its watcher saw, in order: None for a snapshot.
        self.seen: dict[str, list[int | None]] = {}
        self.watching: list[asyncio.Task[None]] = []
        self.driving: list[asyncio.Task[Any]] = []
        self.clients: dict[str, LockstepClient] = {}
        #: Programs that run this tree's code.
        self.replaced: set[str] = set()
        #: Replica -> what it had done for plans when it was replaced.
        self.done: dict[str, int] = {}

    # -- plans ---------------------------------------------------------------------------------------------------------

    async def begin(self, coordinator: str) -> str:
        """A plan, brought to one of the coordinator's replicas, and watched through the door before both."""
        payee, client = draw_address(), self.clients[coordinator]
        view = plan_from_pb(await create(client, self.crew.draft(self.crew.payments(payee=payee)), self.crew.key("maker")))
        plan_id = view.header.plan_id
        await client.execute_plan(
            plan_id, consent(view, {str(each.address): each for each in self.sandbox.chain.accounts.values()})
        )
        self.payees[plan_id] = payee
        began = asyncio.Event()
        self.watching.append(watching := asyncio.create_task(self._watch(plan_id, began)))
        # A watch that fails sets it too, and is found when it is waited for.
        watching.add_done_callback(lambda _: began.set())
        async with asyncio.timeout(SECONDS_MAX):
            await began.wait()
        return plan_id

    async def _watch(self, plan_id: str, began: asyncio.Event) -> None:
        seen = self.seen.setdefault(plan_id, [])
        async for news in self.crew.client.watch_plan(plan_id):
            match news:
                case Snapshot():
                    seen.append(None)
                    began.set()
                case Change():
                    seen.append(news.event.sequence)

    async def under_way(self, *coordinators: str) -> list[asyncio.Task[None]]:
        """A plan at each of some replicas of the coordinator, settling while other things happen."""
        tasks = [asyncio.create_task(self._drive(await self.begin(each), each)) for each in coordinators]
        self.driving += tasks
        return tasks

    async def _drive(self, plan_id: str, coordinator: str) -> None:
        """People who stay with one replica of the coordinator sign what is awaited, until the plan is closed."""
        client, state = self.clients[coordinator], ""
        async with asyncio.timeout(SECONDS_MAX):
            while state != "CLOSED":
                # One replica may hold the plan while the people's is replaced, and it may go on between a look and a signature.
                with suppress(LockstepError):
                    plan = await client.get_plan(plan_id)
                    state = state_name(plan.state)
                    for gate in awaited(plan) & SIGNERS.keys():
                        await client.sign_gate(plan_id, self.crew.signature(plan, gate))
                await asyncio.sleep(LOOK_SECONDS)

    async def settle_at_each(self) -> None:
        """A plan at each of the coordinator's replicas, settled before anything else happens; each replica drives plans on."""
        before = {each: await self.counted(each) for each in COORDINATORS}
        await asyncio.gather(*await self.under_way(*COORDINATORS))
        for each, count in before.items():
            assert await self.counted(each) > count, f"{each} has made no transition of a plan"

    async def held(self, *gates: str) -> list[str]:
        """Plans that wait for people, each at its gate."""
        plans = [await self.begin(each) for each, _ in zip(itertools.cycle(COORDINATORS), gates)]
        await asyncio.gather(*(self.crew.awaiting(*each) for each in zip(plans, gates, strict=True)))
        return plans

    async def look_on(self) -> None:
        """One call after another, none of which may fail.

        Raises:
            LockstepError: one did.
        """
        while True:
            async for _ in self.crew.client.list_plans(page_size=1):
                break
            await asyncio.sleep(LOOK_SECONDS)

    # -- processes -----------------------------------------------------------------------------------------------------

    async def migrate(self, step: str) -> None:
        """This tree's migrations of a step, of each service, as an operator would run them.

        Raises:
            AssertionError: one failed; says what it printed.
        """
        for name in SERVICES:
            login = self.sandbox.databases.logins[package_of(name)]
            owner = ("--owner-url", login.owner_url, "--owner-password-file", str(login.owner_password_file))
            code, out, errors = await this_tree("-m", f"{package_of(name)}.migrate", *owner, "--role", login.role, "--step", step)
            assert code == 0, f"{name} --step {step}:\n{out}{errors}"

    async def replace(self, program: str) -> None:
        """A program of the release before is told to stop, ends by itself, and one of this tree takes its place, with the same settings."""
        supervisor = self.sandbox.supervisor
        if program in self.sandbox.replicas:
            self.done[program] = await self.counted(program)
        os.kill(supervisor.pid(program), signal.SIGTERM)
        ended = await supervisor.wait_until_ended(program, SECONDS_MAX)
        assert ended == STOPPED_BY_ITSELF, supervisor.log_tail(program)
        before = supervisor.program(program)
        await supervisor.stop(program)
        await supervisor.start(replace(before, environ={**before.environ, **THIS}))
        self.replaced.add(program)

    async def assert_loaded(self) -> None:
        """Each program runs the code of the release that it is of, and none of the other's; by its own word."""
        for program in (*self.sandbox.replicas, MONITOR):
            own, other = (self.tree, self.previous) if program in self.replaced else (self.previous, self.tree)
            pid, enough = self.sandbox.supervisor.pid(program), False
            async with asyncio.timeout(SECONDS_MAX):
                # One that nobody waits for may still be loading.
                while not enough:
                    wrong = await self._files(pid, other)
                    assert not wrong, f"{program} runs files of another release than {own}: {wrong[:5]}"
                    enough = len(await self._files(pid, own)) >= FILES_MIN

    async def _files(self, pid: int, release: Path) -> list[Path]:
        """The files of a release that a process runs, by its own word."""
        told = self.loaded / f"{pid}.json"
        told.unlink(missing_ok=True)
        while not catches(pid, signal.SIGUSR2):  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(LOOK_SECONDS)
        os.kill(pid, signal.SIGUSR2)
        async with asyncio.timeout(SECONDS_MAX):
            while not told.exists():  # noqa: ASYNC110 - another process makes it
                await asyncio.sleep(LOOK_SECONDS)
        files = (Path(each) for each in json.loads(told.read_text()))
        # The environment, and what these tests lay beside a program, are no release's.
        shared = (self.tree / ".venv", TELLING)
        return [each for each in files if each.is_relative_to(release) and not any(each.is_relative_to(one) for one in shared)]

    async def doctor(self) -> dict[str, Any]:
        """This tree's doctor finds everything well, within some time.

        Raises:
            AssertionError: it does not.
        """
        give_up = time.monotonic() + SECONDS_MAX
        command = ("-c", "from lockstep_client.cli import main; main()", "doctor", "--json", "--config")
        while True:
            code, out, errors = await this_tree(*command, str(self.sandbox.client_configuration))
            assert out, errors
            document: dict[str, Any] = json.loads(out)
            unwell = [each for each in document["checks"] if each["verdict"] != "ok"]
            if code == 0 and not unwell:
                return document
            assert time.monotonic() < give_up, unwell
            await asyncio.sleep(1)

    # -- what came of it -----------------------------------------------------------------------------------------------

    async def assert_settled(self) -> None:
        """Every plan that was ever begun is closed as settled, once, by the chain, the bank's book and the journal, and nobody was called."""
        for plan_id, payee in self.payees.items():
            plan = await self.crew.client.get_plan(plan_id)
            assert (state_name(plan.state), plan.outcome) == ("CLOSED", leg_pb2.PLAN_OUTCOME_COMMITTED), plan
            assert list(plan.escalations) == [], plan
            await self.crew.assert_settled_once(plan_id, payee)
            verdict = await self.crew.journal.verify_plan(plan_id)
            assert (verdict.valid, verdict.sealed) == (True, True)
        judgement = judge(await collect(self.sandbox))
        assert not judgement.violations, judgement.text()

    async def assert_nothing_missed(self) -> None:
        """Each watcher saw one snapshot, then each event to the end, once and in order."""
        async with asyncio.timeout(SECONDS_MAX):
            await asyncio.gather(*self.watching)
        async with self.crew.database("coordinator") as database:
            for plan_id, seen in self.seen.items():
                count = await database.fetchval("select count(*) from plan_event where plan_id = $1", plan_id)
                changes = seen[1:]
                assert seen[0] is None
                assert changes, "a plan that ends has events after its start"
                assert changes == list(range(1, count + 1))[-len(changes) :]

    async def assert_passed_over(self) -> None:
        """A field that a coordinator does not know is no hindrance, and a method that it does not know is answered as one."""
        plan_id = next(iter(self.payees))
        bare, _ = self.crew.stub()
        async with bare:
            asked = GetPlanRequest(plan_id=plan_id).SerializeToString() + LATER_FIELD
            answer = GetPlanResponse.FromString(await bare.unary_unary(f"/{SETTLEMENT}/GetPlan")(asked, timeout=CALL_SECONDS_MAX))
            assert answer.plan.header.plan_id == plan_id
            code = await bare.unary_unary(f"/{SETTLEMENT}/OfALaterRelease")(asked, timeout=CALL_SECONDS_MAX).code()
            assert code is grpc.StatusCode.UNIMPLEMENTED

    async def counted(self, replica: str) -> int:
        """What a process has done for plans by its own count: transitions of a coordinator, commands and entries that a participant has taken."""
        asking = aiohttp.ClientTimeout(total=SECONDS_MAX)
        async with aiohttp.ClientSession(timeout=asking) as session, session.get(self.sandbox.metrics_url(replica)) as answer:
            lines = (await answer.text()).splitlines()
        return int(sum(float(found[1]) for each in lines if (found := DONE.match(each))))

    async def shares(self) -> dict[str, dict[str, int]]:
        """What each release's processes of each service have done for plans."""
        found: dict[str, dict[str, int]] = {name: {"before": 0, "this": 0} for name in SERVICES}
        for replica, service in self.sandbox.replicas.items():
            found[service]["before"] += self.done[replica]
            found[service]["this"] += await self.counted(replica)
        return found


@asynccontextmanager
async def installed(run: Path, previous: Path, tree: Path) -> AsyncIterator[Upgrade]:
    """Everything of the release before, running, with a client at each of the coordinator's replicas."""
    loaded = run / "loaded"
    loaded.mkdir(parents=True)
    os.environ["LOADED_FOLDER"] = str(loaded)
    files = RuntimeDirectory.create(run)
    environ = {"coordinator": {"LOCKSTEP_LEASE_SECONDS": LEASE_SECONDS}}
    async with (
        Sandbox(files, environ=environ, sampled_ratio=0.0, replicas=dict.fromkeys(SERVICES, REPLICAS)) as sandbox,
        Crew(sandbox) as crew,
    ):
        upgrade = Upgrade(sandbox, crew, previous, tree, loaded)
        looking = asyncio.create_task(upgrade.look_on())
        try:
            for name in COORDINATORS:
                port = yaml.safe_load((sandbox.run.path / "config" / f"{name}.yaml").read_text())["listen"]["port"]
                upgrade.clients[name] = LockstepClient(f"{LOOPBACK}:{port}", sandbox.tls(CLIENT), PATIENT)
            yield upgrade
            assert not looking.done(), looking
        except BaseException:
            for name in (*sandbox.replicas, MONITOR):
                print(f"---- {name}\n{sandbox.supervisor.log_tail(name)}", file=sys.stderr)
            raise
        finally:
            tasks = (looking, *upgrade.driving, *upgrade.watching)
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for client in upgrade.clients.values():
                await client.close()


async def run(folder: Path, previous: Path, tree: Path) -> dict[str, Any]:
    """The whole way; returns what came to pass."""
    assert Path(lockstep_sandbox.__file__).is_relative_to(previous), lockstep_sandbox.__file__
    began = time.monotonic()
    async with installed(folder, previous, tree) as upgrade:
        told: dict[str, Any] = {}

        def reached(stage: str) -> None:
            told[stage] = {"seconds": round(time.monotonic() - began, 1), "plans": len(upgrade.payees)}
            print(f"{stage}: {told[stage]}", file=sys.stderr, flush=True)

        # The release before, as it was: one plan settles, three are held in the middle, each for another moment.
        await upgrade.assert_loaded()
        for_the_schema, for_the_replicas, for_the_end = await upgrade.held("approve", "approve", "release")
        await upgrade.settle_at_each()
        await upgrade.assert_passed_over()
        reached("before")

        # This release's schema, under the code of before: what is under way goes on, what was held, what is new; and a replica that starts on it.
        under_way = await upgrade.under_way(*COORDINATORS)
        await upgrade.migrate("pre")
        await asyncio.gather(*under_way, upgrade.crew.driven(for_the_schema))
        await upgrade.sandbox.supervisor.restart("coordinator-2")
        await upgrade.settle_at_each()
        reached("pre")

        # One replica after another. Where one release's coordinators meet another's participants alone, plans settle from end to end.
        for program, coordinator in zip(FIRST, itertools.cycle(COORDINATORS)):
            await upgrade.under_way(coordinator)
            await upgrade.replace(program)
            if program == "coordinator":
                await upgrade.settle_at_each()
        await upgrade.assert_loaded()
        upgrade.driving.append(upgrade.crew.driving(for_the_replicas))
        reached("first replicas")
        for program, coordinator in zip(SECOND, itertools.cycle(COORDINATORS[::-1])):
            if program == "coordinator-2":
                await upgrade.settle_at_each()
            await upgrade.under_way(coordinator)
            await upgrade.replace(program)
        await upgrade.replace(MONITOR)
        await upgrade.assert_loaded()
        await asyncio.gather(*upgrade.driving)
        reached("second replicas")

        # What the code of before still needed.
        under_way = await upgrade.under_way(*COORDINATORS)
        await upgrade.migrate("post")
        await asyncio.gather(*under_way, upgrade.crew.driven(for_the_end))
        await upgrade.settle_at_each()
        reached("post")

        await upgrade.assert_nothing_missed()
        await upgrade.assert_settled()
        await upgrade.assert_passed_over()
        told["doctor"] = len((await upgrade.doctor())["checks"])
        raised = alarms(upgrade.sandbox.supervisor.log_path(MONITOR))
        assert not raised, raised
        told["done"] = await upgrade.shares()
        told["settled"], told["events"] = len(upgrade.payees), sum(len(each) - 1 for each in upgrade.seen.values())
        told["replaced"] = sorted(upgrade.replaced)
        reached("end")
        return told


async def this_tree(*arguments: str) -> tuple[int, str, str]:
    """A program of this tree, run to its end: its exit code, what it printed, and what it told on standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=os.environ | THIS,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(SECONDS_MAX):
            out, errors = await process.communicate()
    except BaseException:
        process.kill()
        raise
    return process.returncode or 0, out.decode(), errors.decode()


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process does something of its own at a signal, and does not end by it."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigCgt"], 16) >> (number - 1) & 1)


async def main(folder: Path, previous: Path, tree: Path) -> None:
    """Run in a folder of its own below the first one; print what came to pass."""
    with cancel_on_signals(), tempfile.TemporaryDirectory(dir=folder) as own:
        print(json.dumps(await run(Path(own) / "run", previous, tree)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*(Path(each).resolve() for each in sys.argv[1:4])))
