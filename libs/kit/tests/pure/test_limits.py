from __future__ import annotations

from lockstep_kit.rpc.limits import CallerLimits, Excess, Limiter, Over, ServingLimits

NARROW = CallerLimits(
    calls_per_second=10, calls_burst=4, calls_at_once_max=3, streams_per_second=10, streams_burst=4, streams_max=2
)
SERVICE = "spiffe://lockstep.local/coordinator"


def limiter(**settings: object) -> Limiter:
    """A limiter with narrow limits for clients, of a server of 100 calls."""
    told = ServingLimits.model_validate({"clients": NARROW, **settings})
    return Limiter(told, 100, {SERVICE})


def begin(of: Limiter, caller: str, now: float = 0.0, *, stream: bool = False, cost: float = 1.0) -> Excess | str:
    """The name of a call that was begun, or of what there is too much."""
    found = of.begin(caller, now, stream=stream, cost=cost)
    return found.excess if isinstance(found, Over) else found


def test_each_limit_has_its_name() -> None:
    """Calls at once, calls a second, streams, and streams a second are limited each by itself."""
    at = limiter()
    assert [begin(at, "a") for _ in range(4)] == ["a", "a", "a", Excess.CALLS_TOO_MANY]
    for _ in range(3):
        at.end("a", stream=False)
    assert begin(at, "a") == "a"
    assert begin(at, "a") is Excess.CALLS_TOO_FAST
    assert begin(at, "a", 0.11) == "a"
    assert [begin(at, "a", stream=True) for _ in range(3)] == ["a", "a", Excess.WATCHERS_TOO_MANY]
    for _ in range(4):
        assert begin(at, "b", stream=True) == "b"
        at.end("b", stream=True)
    assert begin(at, "b", stream=True) is Excess.WATCHERS_TOO_FAST


def test_callers_do_not_take_from_one_another() -> None:
    """What one caller used up is there for the next; a service has more, and a named caller what it was given."""
    named = {"c": NARROW.model_copy(update={"calls_at_once_max": 1})}
    at = limiter(named=named)
    while begin(at, "a") == "a":
        pass
    assert begin(at, "b") == "b"
    assert [begin(at, "c") for _ in range(2)] == ["c", Excess.CALLS_TOO_MANY]
    assert [begin(at, SERVICE) for _ in range(30)] == [SERVICE] * 30


def test_nobody_has_more_than_a_share() -> None:
    """Calls, streams and refusals that wait count together against one caller's share of the server."""
    at = limiter(share_max=0.3)
    assert [begin(at, SERVICE) for _ in range(30)] == [SERVICE] * 30
    assert begin(at, SERVICE) is Excess.SHARE_TAKEN
    assert at.keep(SERVICE, 0.0) is None
    assert begin(at, "a") == "a"


def test_a_heavy_call_counts_for_several() -> None:
    """What is dear is served less often."""
    at = limiter()
    assert begin(at, "a", cost=4) == "a"
    assert begin(at, "a") is Excess.CALLS_TOO_FAST


def test_refusals_are_paced() -> None:
    """Refusals of one caller come one after another, none later than the limit; another caller's do not wait for them."""
    at = limiter(refusals_per_second=10.0, refusal_seconds_max=0.25)
    for _ in range(3):
        assert begin(at, "a") == "a"
        assert begin(at, "b") == "b"
    holds = []
    for _ in range(4):
        over = at.begin("a", 0.0, stream=False, cost=1)
        assert isinstance(over, Over)
        holds.append(round(over.hold_seconds, 3))
    assert holds == [0.1, 0.2, 0.125, 0.225]
    other = at.begin("b", 0.0, stream=False, cost=1)
    assert isinstance(other, Over)
    assert round(other.hold_seconds, 3) == 0.1


def test_many_refusals_at_once_are_not_answered_at_once() -> None:
    """Answering hundreds in one moment would hold up everybody else's calls for that moment, once a second for as long as the flood lasts."""
    at = limiter(refusals_per_second=100.0, refusal_seconds_max=1.0)
    for _ in range(3):
        assert begin(at, "a") == "a"
    holds: list[float] = []
    for _ in range(200):
        over = at.begin("a", 0.0, stream=False, cost=1)
        assert isinstance(over, Over)
        holds.append(over.hold_seconds)
    assert max(holds) <= 1.0
    for tenth in range(10):
        assert len([each for each in holds if tenth / 10 <= each - 1e-9 < (tenth + 1) / 10]) <= 30


def test_refusals_that_wait_are_counted() -> None:
    """So many refusals wait at a server, and no more; one that was answered makes room."""
    at = limiter(refusals_waiting_max=2)
    assert [at.keep(name, 0.0) for name in ("a", "b", "c")] == ["a", "b", None]
    at.let_go("a")
    assert at.keep("c", 0.0) == "c"


def test_memory_has_a_limit() -> None:
    """Callers that are idle are forgotten; callers beyond the number that is kept share one entry, and the rest keep theirs."""
    at = limiter(callers_max=10)
    for number in range(1_000):
        name = begin(at, f"idle {number}", float(number))
        assert name == f"idle {number}"
        at.end(str(name), stream=False)
    assert len(at) <= 11
    busy = limiter(callers_max=10)
    names = [begin(busy, f"busy {number}", stream=True) for number in range(12)]
    assert names[:10] == [f"busy {number}" for number in range(10)]
    assert names[10:] == ["", ""]
    assert begin(busy, "busy 12", stream=True) is Excess.WATCHERS_TOO_MANY
    assert len(busy) == 11
    for name in names:
        busy.end(str(name), stream=True)
