"""Plans of mixed shapes, several at a time, for as long as the soak lasts."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from lockstep_kit.errors import LockstepError
from lockstep_sandbox import scene
from lockstep_testkit.convoys import Batches
from lockstep_testkit.crew import Crew
from lockstep_testkit.journeys import Journey

#: Plans under way at the same time.
PLANS_AT_ONCE: Final = 8
#: Shape of a plan -> how often it is drawn.
SHAPES: Final = {"settles": 10, "tokens_only": 3, "money_only": 3, "several_legs": 3, "cancelled": 4, "no_money": 2, "lapses": 2}
LAPSE_SECONDS: Final = 15


@dataclass
class Traffic:
    """Starts plans and sees them to their end."""

    #: Who settles.
    crew: Crew
    #: Where the people of every other plan hand in their requests, which go in batches; those of the rest ask by themselves.
    desk: Batches
    #: What decides.
    rng: random.Random
    #: Every plan, with its shape.
    journeys: list[tuple[str, Journey]] = field(default_factory=list)
    #: Plans that nobody could even begin, by reason.
    refused: Counter[str] = field(default_factory=Counter)
    #: What the people themselves failed at: nothing that a fault may do.
    failures: list[str] = field(default_factory=list)
    _going: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, seconds: float) -> None:
        """Start plans for so long; those under way then go on."""
        clock = asyncio.get_running_loop()
        ends = clock.time() + seconds
        while clock.time() < ends:
            if len(self._going) < PLANS_AT_ONCE:
                shape = self.rng.choices(list(SHAPES), list(SHAPES.values()))[0]
                journey = self._journey(shape)
                task = asyncio.create_task(self._travel(journey), name=f"plan:{shape}")
                self._going.add(task)
                task.add_done_callback(self._going.discard)
                self.journeys.append((shape, journey))
            await asyncio.sleep(0.1)

    async def arrive(self, seconds_max: float) -> None:
        """Wait for the plans under way, no longer than that."""
        if self._going:
            await asyncio.wait(self._going, timeout=seconds_max)
        left = list(self._going)
        for each in left:
            each.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _travel(self, journey: Journey) -> None:
        try:
            await journey.travel()
        except LockstepError as error:
            # A deadline that passed while nobody answered leaves nothing to begin.
            self.refused[error.reason] += 1
        except TimeoutError:
            # Judged at the final reading, like every plan that is not at its end.
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            self.failures.append(f"plan {journey.plan_id}: {error!r}")

    def _journey(self, shape: str) -> Journey:
        gates = ("approve",) if shape in ("cancelled", "lapses") else ("approve", "release")
        desk = self.desk if len(self.journeys) % 2 else None
        return Journey(self.crew, self._document(shape), gates=gates, cancels=shape == "cancelled", desk=desk)

    def _document(self, shape: str) -> dict[str, Any]:
        chain = self.crew.sandbox.chain
        document = scene.delivery_versus_payment(
            chain.address("seller"),
            chain.address("buyer"),
            reference=shape.replace("_", " "),
            quantity=f"0.{self.rng.randint(1, 99):02}",
            price="30.00" if shape == "no_money" else f"{self.rng.randint(1, 20)}.{self.rng.randint(0, 99):02}",
            payer=scene.PAUPER if shape == "no_money" else scene.BUYER,
            deadline=f"{LAPSE_SECONDS}s" if shape == "lapses" else "30m",
        )
        tokens, money = document["legs"]
        match shape:
            case "tokens_only":
                document["legs"] = [tokens]
            case "money_only":
                document["legs"] = [money]
            case "several_legs":
                document["legs"] = [tokens, {**tokens, "id": "more-bonds"}, money, {**money, "id": "more-cash"}]
                # Two holds that both lapse: their signers accept that one may be kept and the other not.
                document["policy"] = {"accept_expiry_risk": True}
        return document


def ends(journeys: list[tuple[str, Journey]]) -> Counter[str]:
    """What became of plans, as their clients were told."""
    return Counter(f"{told.state}/{told.outcome}".rstrip("/") for _, each in journeys for told in each.told if told.how == "get")
