"""Who is told of changes: only who asked, once, and never so many at a time that calls wait."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import msgspec
import pytest

from penstock.clock import FakeClock
from penstock.gateway import listeners as module
from penstock.gateway.listeners import (
    GATHER_SECONDS,
    MAX_UPDATES,
    MAX_UPDATES_SIZE,
    PAUSE_SECONDS,
    SLICE,
    Listener,
    Listeners,
)
from penstock.http.event_stream import EventStream
from penstock.http.limits import ServerLimits
from penstock.protocol.event_stream import EventParser
from penstock.protocol.subscriptions import LIST_CHANGED

SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"


class Wire:
    """The connection of one listener: keeps what was written to it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_ended = False
        self.stream = EventStream(self, ServerLimits(), chunked=False, paused=False)

    def write_stream(self, data: bytes) -> None:
        self.written.append(data)

    def complete_answer(self) -> None:
        pass

    def end_stream(self) -> None:
        self.is_ended = True

    def cut(self) -> None:
        raise AssertionError("nobody is slow here")

    def coarse_now(self) -> float:
        return 0.0

    @property
    def messages(self) -> list[Any]:
        decoder = EventParser(1 << 20)
        return [msgspec.json.decode(event.data) for raw in self.written for event in decoder.feed(raw)]

    @property
    def methods(self) -> list[str]:
        return [message.get("method", "result") for message in self.messages]

    @property
    def uris(self) -> list[str]:
        return [message["params"]["uri"] for message in self.messages]


class Hall:
    """Listeners with a clock of their own."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.tasks: set[asyncio.Task[None]] = set()
        self.listeners = Listeners(self.clock, self.in_background)

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def listener(
        self, *lists: str, view: str = "", identity: bytes | None = b"1", uris: tuple[str, ...] = (), server: str = "s"
    ) -> tuple[Listener, Wire]:
        wire = Wire()
        listener = Listener(view, frozenset(lists), wire.stream, identity)
        self.listeners.add(listener)
        for uri in uris:
            self.listeners.subscribe(listener, server, uri)
        return listener, wire

    async def advance(self, seconds: float) -> None:
        """Let what has begun reach its sleep, then move time on."""
        for _ in range(3):
            await asyncio.sleep(0)
        await self.clock.advance(seconds)

    async def settle(self) -> None:
        """Let everything be told that is to be told now."""
        await self.advance(0)


@pytest.fixture
async def hall(anyio_backend: Any) -> AsyncIterator[Hall]:
    it = Hall()
    yield it
    for task in list(it.tasks):
        task.cancel()
    await asyncio.gather(*it.tasks, return_exceptions=True)


async def test_a_listener_hears_only_the_lists_it_asked_for_and_only_those_of_its_view(hall: Hall) -> None:
    _, tools = hall.listener("tools")
    _, both = hall.listener("prompts", "resources", identity=b'"two"')
    _, elsewhere = hall.listener("tools", "prompts", "resources", view="other")
    _, nothing = hall.listener()
    for capability in LIST_CHANGED:
        hall.listeners.list_changed("", capability)
    await hall.advance(GATHER_SECONDS)
    assert tools.messages == [
        {"jsonrpc": "2.0", "method": LIST_CHANGED["tools"], "params": {"_meta": {SUBSCRIPTION: 1}}}
    ]
    assert [message["params"]["_meta"][SUBSCRIPTION] for message in both.messages] == ["two", "two"]
    assert both.methods == [LIST_CHANGED["prompts"], LIST_CHANGED["resources"]]
    assert elsewhere.written == nothing.written == []


async def test_a_legacy_listener_hears_without_an_id_and_only_while_it_has_a_stream(hall: Hall) -> None:
    listener, wire = hall.listener("tools", identity=None, uris=("a://1",))
    hall.listeners.list_changed("", "tools")
    await hall.advance(GATHER_SECONDS)
    assert wire.messages == [{"jsonrpc": "2.0", "method": LIST_CHANGED["tools"]}]
    listener.stream = None
    hall.listeners.list_changed("", "tools")
    hall.listeners.updated("s", "a://1")
    await hall.advance(2 * PAUSE_SECONDS)
    assert len(wire.written) == 1


async def test_a_storm_is_told_once_and_then_not_without_a_pause(hall: Hall) -> None:
    _, wire = hall.listener("tools")
    for _ in range(1_000):
        hall.listeners.list_changed("", "tools")
    await hall.advance(GATHER_SECONDS)
    assert len(wire.written) == 1
    moments = []
    for _ in range(30):  # three seconds of a storm that does not stop
        hall.listeners.list_changed("", "tools")
        before = len(wire.written)
        await hall.advance(0.1)
        if len(wire.written) > before:
            moments.append(hall.clock.now())
    assert 5 <= len(moments) <= 6
    assert all(later - earlier >= PAUSE_SECONDS - 0.001 for earlier, later in itertools.pairwise(moments))
    await hall.advance(PAUSE_SECONDS)
    assert len(wire.written) in {len(moments) + 1, len(moments) + 2}  # the last change is never lost
    assert not hall.tasks


async def test_a_change_while_others_are_being_told_is_told_as_well(hall: Hall) -> None:
    _, wire = hall.listener("tools")
    for number in range(2 * SLICE):
        hall.listener("tools", identity=b"%d" % number)
    hall.listeners.list_changed("", "tools")
    telling = asyncio.ensure_future(hall.advance(GATHER_SECONDS))
    while not wire.written:  # noqa: ASYNC110 - the loop's own turns are what is waited for
        await asyncio.sleep(0)
    hall.listeners.list_changed("", "tools")
    await telling
    await hall.advance(PAUSE_SECONDS + GATHER_SECONDS)
    assert len(wire.written) == 2


async def test_a_view_without_listeners_costs_nothing(hall: Hall) -> None:
    hall.listeners.list_changed("nobody", "tools")
    hall.listeners.updated("s", "a://nobody")
    assert not hall.tasks


async def most_told_in_one_turn(wires: list[Wire], until_told: int) -> int:
    """The most messages written between two turns of the loop, until so many were."""
    told, most = 0, 0
    while told < until_told:
        await asyncio.sleep(0)
        now = sum(len(wire.written) for wire in wires)
        most, told = max(most, now - told), now
    return most


async def test_many_listeners_of_a_list_are_told_in_slices(hall: Hall) -> None:
    wires = [hall.listener("tools", identity=b"%d" % number)[1] for number in range(10 * SLICE)]
    hall.listeners.list_changed("", "tools")
    telling = asyncio.ensure_future(hall.advance(GATHER_SECONDS))
    assert await most_told_in_one_turn(wires, 10 * SLICE) <= SLICE
    await telling


async def test_many_listeners_of_a_resource_are_told_in_slices(hall: Hall) -> None:
    wires = [hall.listener(identity=b"%d" % number, uris=("a://1",))[1] for number in range(10 * SLICE)]
    hall.listeners.updated("s", "a://1")
    assert all(not wire.written for wire in wires)  # not in the turn of the one who says so
    assert await most_told_in_one_turn(wires, 10 * SLICE) <= SLICE


async def test_many_resources_of_one_listener_are_told_in_slices(hall: Hall) -> None:
    uris = tuple(f"a://{number}" for number in range(5 * SLICE))
    _, wire = hall.listener(uris=uris)
    for uri in uris:
        hall.listeners.updated("s", uri)
    assert await most_told_in_one_turn([wire], 5 * SLICE) <= SLICE
    assert wire.uris == list(uris)


async def test_an_update_is_told_at_once_and_a_storm_of_them_once_a_moment(hall: Hall) -> None:
    _, wire = hall.listener(uris=("a://1",))
    hall.listeners.updated("s", "a://1")
    await hall.settle()
    assert wire.uris == ["a://1"]
    for _ in range(1_000):
        hall.listeners.updated("s", "a://1")
    await hall.settle()
    assert len(wire.written) == 1
    await hall.advance(GATHER_SECONDS)
    assert len(wire.written) == 2  # the last one is not lost
    await hall.advance(GATHER_SECONDS)
    assert not hall.tasks


async def test_updates_of_a_resource_with_very_many_listeners_come_with_a_longer_pause(hall: Hall) -> None:
    wires = [hall.listener(identity=b"%d" % number, uris=("a://1",))[1] for number in range(2 * SLICE)]
    hall.listeners.updated("s", "a://1")
    await hall.settle()
    hall.listeners.updated("s", "a://1")
    await hall.advance(PAUSE_SECONDS - 0.01)
    assert {len(wire.written) for wire in wires} == {1}
    await hall.advance(0.02)
    assert {len(wire.written) for wire in wires} == {2}


@pytest.mark.parametrize(
    ("subscribed", "updated", "hears"),
    [
        ("file:///a/b", "file:///a/b", True),
        ("file:///a", "file:///a/b/c", True),
        ("file:///a/", "file:///a/b", True),
        ("file:///a", "file:///a/", True),
        ("file:///a/b", "file:///a", False),
        ("file:///a", "file:///ab", False),
        ("file:///a/b", "file:///a/c", False),
        ("notes://", "notes://today", False),
        ("notes:", "notes:today", False),
    ],
)
async def test_a_part_of_a_resource_is_told_to_those_of_the_whole(
    hall: Hall, subscribed: str, updated: str, hears: bool
) -> None:
    _, wire = hall.listener(uris=(subscribed,))
    hall.listeners.updated("s", updated)
    await hall.settle()
    assert wire.uris == ([updated] if hears else [])


async def test_parents_are_looked_for_so_many_levels_up_and_no_more(hall: Hall) -> None:
    _, wire = hall.listener(uris=("file:///a",))
    deep, deeper = "/b" * (module.MAX_PARENTS - 1), "/b" * 40_000
    hall.listeners.updated("s", f"file:///a{deep}")
    hall.listeners.updated("s", f"file:///a{deeper}")
    await hall.settle()
    assert wire.uris == [f"file:///a{deep}"]


async def test_who_subscribed_to_part_and_whole_is_told_once(hall: Hall) -> None:
    _, wire = hall.listener(uris=("file:///a", "file:///a/b"))
    hall.listeners.updated("s", "file:///a/b")
    await hall.settle()
    assert wire.uris == ["file:///a/b"]


async def test_who_hears_of_a_resource_apart_is_not_told_what_all_are_told(hall: Hall) -> None:
    listener, wire = hall.listener(uris=("file:///a", "file:///b"))
    for uri in ("file:///a", "file:///c"):
        listener.hear_apart(uri, apart=True)
    for uri in ("file:///a", "file:///a/part", "file:///b"):
        hall.listeners.updated("s", uri)
    await hall.settle()
    assert wire.uris == ["file:///b"]
    assert [listener.tell_apart(f"file:///{uri}") for uri in ("a/part", "a", "b", "c")] == [True, True, False, False]
    assert wire.uris == ["file:///b", "file:///a/part", "file:///a"]
    hall.listeners.unsubscribe(listener, "file:///a")
    assert not listener.tell_apart("file:///a")


async def test_only_updates_of_the_server_that_has_the_resource_are_told(hall: Hall) -> None:
    _, wire = hall.listener(uris=("a://1",), server="mine")
    hall.listeners.updated("theirs", "a://1")
    await hall.settle()
    assert wire.written == []


async def test_what_waits_to_be_told_is_bounded_and_nothing_of_it_is_lost(hall: Hall) -> None:
    _, wire = hall.listener(uris=("file:///a",))
    for number in range(MAX_UPDATES + 500):
        hall.listeners.updated("s", f"file:///a/{number}")
    assert len(hall.listeners._updates) == MAX_UPDATES + 1
    while len(wire.written) < MAX_UPDATES + 1:  # noqa: ASYNC110 - the loop's own turns are what is waited for
        await asyncio.sleep(0)
    assert wire.uris[-1] == "file:///a"


async def test_what_waits_to_be_told_is_bounded_in_size_too(hall: Hall) -> None:
    _, wire = hall.listener(uris=("file:///a",))
    long = MAX_UPDATES_SIZE // 10
    for number in range(100):
        hall.listeners.updated("s", f"file:///a/{number}{'x' * long}")
    assert sum(len(uri) for _, uri in hall.listeners._updates) < MAX_UPDATES_SIZE
    await hall.settle()
    assert wire.uris[-1] == "file:///a"
    hall.listeners.updated("s", f"file:///a/last{'x' * long}")
    await hall.advance(PAUSE_SECONDS)
    assert wire.uris[-1].startswith("file:///a/last")


async def test_who_leaves_while_others_are_told_hears_nothing_more(hall: Hall) -> None:
    first, first_wire = hall.listener(uris=("a://1",))
    others = [hall.listener(identity=b"%d" % number, uris=("a://1",)) for number in range(2 * SLICE)]
    hall.listeners.updated("s", "a://1")
    while not first_wire.written:  # noqa: ASYNC110 - the loop's own turns are what is waited for
        await asyncio.sleep(0)
    last, last_wire = others[-1]
    hall.listeners.unsubscribe(last, "a://1")
    hall.listeners.unsubscribe(first, "a://1")
    await hall.advance(PAUSE_SECONDS)
    assert last_wire.written == []
    assert len(first_wire.written) == 1


async def test_the_last_one_to_leave_a_resource_is_known(hall: Hall) -> None:
    one, _ = hall.listener(uris=("a://1",))
    two, _ = hall.listener(uris=("a://1",))
    assert hall.listeners.is_wanted("s", "a://1")
    assert hall.listeners.unsubscribe(one, "a://1") is None
    assert hall.listeners.unsubscribe(one, "a://1") is None  # twice does no harm
    assert hall.listeners.unsubscribe(two, "a://1") == "s"
    assert not hall.listeners.is_wanted("s", "a://1")
    assert hall.listeners.resources == 0


async def test_who_left_is_forgotten(hall: Hall) -> None:
    listener, wire = hall.listener("tools", view="v")
    assert len(hall.listeners) == 1
    hall.listeners.discard(listener)
    hall.listeners.discard(listener)
    assert (len(hall.listeners), hall.listeners._by_view) == (0, {})
    hall.listeners.list_changed("v", "tools")
    assert not hall.tasks
    assert wire.written == []


async def test_streams_of_one_view_end_in_good_order_each_in_its_era(hall: Hall) -> None:
    modern, modern_wire = hall.listener("tools", view="v", identity=b'"m"')
    legacy, legacy_wire = hall.listener("tools", view="v", identity=None)
    _, other = hall.listener("tools", view="w")
    assert hall.listeners.end_all("v") == [modern, legacy]
    assert modern_wire.messages == [
        {"jsonrpc": "2.0", "id": "m", "result": {"resultType": "complete", "_meta": {SUBSCRIPTION: "m"}}}
    ]
    assert legacy_wire.written == [b""]
    assert (modern_wire.is_ended, legacy_wire.is_ended, other.is_ended) == (True, True, False)
    assert hall.listeners.end_all("v") == []
    modern.end()
    assert len(modern_wire.messages) == 1  # once


async def test_who_comes_when_the_gateway_stops_is_ended_at_once(hall: Hall) -> None:
    _, early = hall.listener("tools")
    hall.listeners.end_all()
    _, late = hall.listener("tools", identity=b"2")
    assert (early.is_ended, late.is_ended) == (True, True)
    assert late.methods == ["result"]
    assert len(hall.listeners) == 0


async def test_who_subscribed_where_is_found(hall: Hall) -> None:
    mine, _ = hall.listener(view="v", uris=("a://1",), server="a")
    hall.listeners.subscribe(mine, "b", "b://1")
    hall.listener(view="w", uris=("a://1",), server="a")
    assert hall.listeners.subscribed("v", {"a"}) == [(mine, "a://1")]
    assert hall.listeners.subscribed("v", None) == [(mine, "a://1"), (mine, "b://1")]


async def test_what_it_shows(hall: Hall) -> None:
    modern, _ = hall.listener("tools", "prompts", uris=("a://1",))
    legacy, _ = hall.listener(view="v", identity=None)
    assert repr(modern) == "<Listener modern all prompts tools | 1 resources>"
    assert repr(legacy) == "<Listener legacy v  | 0 resources>"
    assert repr(hall.listeners) == "<Listeners [2] 1 resources>"
