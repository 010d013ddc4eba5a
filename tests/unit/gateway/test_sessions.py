"""Sealed session ids: what opens one, and what does not."""

import asyncio
from typing import Any

import msgspec
import pytest

from penstock.clock import FakeClock
from penstock.gateway.listeners import Listener
from penstock.gateway.sessions import LIFETIME_SECONDS, MAX_CAPABILITIES, ClientSession, Sessions
from penstock.identity.seal import Sealer, SealingKey
from tests.unit.gateway.test_listeners import Wire

KEY = SealingKey(b"abcd", b"k" * 32)
INFO = b'{"name":"test"}'


def sessions(key: SealingKey = KEY, *, clock: FakeClock | None = None, limit: int = 10) -> Sessions:
    return Sessions(Sealer([key]), clock or FakeClock(), limit)


def test_a_session_is_found_by_its_id_and_remembers_who_opened_it() -> None:
    ours = sessions()
    token = ours.open("v", "2025-06-18", b'{"roots":{}}', INFO).encode()
    found = ours.find("v", token)
    assert found is not None
    assert (found.caller.revision, found.caller.capabilities, found.caller.client_info) == (
        "2025-06-18",
        b'{"roots":{}}',
        INFO,
    )
    assert found is ours.find("v", token)
    assert found.key not in token.decode()
    assert repr(found) == f"<ClientSession {found.key[:8]} 2025-06-18 [0 in flight]>"
    assert repr(ours) == "<Sessions 1 known, 0 ended, at most 10>"


def test_a_restart_with_the_same_key_keeps_a_session() -> None:
    token = sessions().open("v", "2025-06-18", b'{"roots":{}}', INFO).encode()
    again = sessions().find("v", token)
    assert again is not None
    assert (again.caller.revision, again.caller.capabilities) == ("2025-06-18", b'{"roots":{}}')
    assert sessions(SealingKey(b"abcd", b"x" * 32)).find("v", token) is None


def test_another_view_does_not_know_the_session() -> None:
    ours = sessions()
    token = ours.open("v", "2025-06-18", b"{}", INFO).encode()
    assert ours.find("w", token) is None
    assert sessions().find("", token) is None
    assert ours.find("v", token) is not None


@pytest.mark.parametrize("place", [0, 5, 20, -1])
def test_a_tampered_id_opens_nothing(place: int) -> None:
    token = bytearray(sessions().open("v", "2025-06-18", b"{}", INFO).encode())
    token[place] = ord("A") if token[place] != ord("A") else ord("Q")
    assert sessions().find("v", bytes(token)) is None


@pytest.mark.parametrize("token", [b"", b"x", b"made-up", b"A" * 9000, b"\xff\xfe", b"=" * 20])
def test_what_was_never_an_id_opens_nothing(token: bytes) -> None:
    assert sessions().find("v", token) is None


def test_what_we_sealed_for_something_else_opens_nothing() -> None:
    sealer = Sealer([KEY])
    assert sessions().find("v", sealer.seal(b"cursor", b"x").encode()) is None
    assert sessions().find("v", sealer.seal(b"session", b"no session").encode()) is None


async def test_a_session_ends_by_age() -> None:
    clock = FakeClock()
    ours = sessions(clock=clock)
    token = ours.open("v", "2025-06-18", b"{}", INFO).encode()
    await clock.advance(LIFETIME_SECONDS - 1)
    assert ours.find("v", token) is not None
    await clock.advance(2)
    assert ours.find("v", token) is None


async def test_an_ended_session_is_unknown_and_what_it_ran_is_cancelled() -> None:
    ours = sessions()
    token = ours.open("v", "2025-06-18", b"{}", INFO).encode()
    found = ours.find("v", token)
    assert found is not None
    task: Any = asyncio.create_task(asyncio.Event().wait())
    found.in_flight[task] = b"1"
    ours.end(found)
    assert ours.find("v", token) is None
    with pytest.raises(asyncio.CancelledError):
        await task


def test_known_and_ended_sessions_are_bounded_and_a_forgotten_one_opens_again() -> None:
    ours = sessions(limit=3)
    tokens = [ours.open("v", "2025-06-18", b"{}", INFO).encode() for _ in range(5)]
    assert len(ours) == 3
    for token in tokens:
        found = ours.find("v", token)
        assert found is not None
        ours.end(found)
    assert len(ours) <= 3
    assert repr(ours).startswith("<Sessions 0 known, 3 ended")


def found(ours: Sessions) -> ClientSession:
    """A new session, as its next request finds it."""
    session = ours.find("v", ours.open("v", "2025-06-18", b"{}", INFO).encode())
    assert session is not None
    return session


def test_a_session_that_runs_something_is_forgotten_last() -> None:
    ours = sessions(limit=2)
    busy, idle = found(ours), found(ours)
    running: Any = object()
    busy.in_flight[running] = b"1"
    newest = found(ours)
    assert [one.is_over for one in (busy, idle, newest)] == [False, True, False]
    assert ours.find("v", busy.token) is busy
    assert len(ours) == 2


def test_when_all_sessions_run_something_the_oldest_is_forgotten_and_opens_again() -> None:
    ours = sessions(limit=2)
    running: Any = object()
    oldest, older = found(ours), found(ours)
    oldest.in_flight[running] = older.in_flight[running] = b"1"
    newest = found(ours)
    assert [one.is_over for one in (oldest, older, newest)] == [True, False, False]
    newest.in_flight[running] = b"1"
    again = ours.find("v", oldest.token)
    assert again is not None
    assert (again is oldest, again.is_over, older.is_over, len(ours)) == (False, False, True, 2)


def test_of_many_that_run_something_only_a_few_are_looked_at() -> None:
    ours = sessions(limit=200)
    running: Any = object()
    many = [found(ours) for _ in range(200)]
    for one in many:
        one.in_flight[running] = b"1"
    newest = found(ours)
    assert (len(ours), newest.is_over, sum(one.is_over for one in many)) == (200, False, 1)


async def test_an_id_that_has_expired_makes_nobody_leave() -> None:
    clock = FakeClock()
    ours = Sessions(Sealer([KEY]), clock, 1)
    expired = ours.open("v", "2025-06-18", b"{}", INFO).encode()
    await clock.advance(LIFETIME_SECONDS + 1)
    live = found(ours)
    assert ours.find("v", expired) is None
    assert not live.is_over


def test_a_session_that_listens_is_forgotten_after_those_that_do_not_and_its_end_is_told() -> None:
    ended: list[ClientSession] = []
    ours = Sessions(Sealer([KEY]), FakeClock(), 2, on_end=ended.append)
    listening, idle = (ours.find("v", ours.open("v", "2025-06-18", b"{}", INFO).encode()) for _ in range(2))
    assert listening is not None
    assert idle is not None
    listening.listener = Listener("v", frozenset(), Wire().stream)
    ours.open("v", "2025-06-18", b"{}", INFO)
    assert (ended, idle.is_over, listening.is_over) == ([idle], True, False)


async def test_a_session_nobody_used_for_long_is_over() -> None:
    ended: list[ClientSession] = []
    clock = FakeClock()
    ours = Sessions(Sealer([KEY]), clock, 2, idle_seconds=60.0, on_end=ended.append)
    session = ours.find("v", ours.open("v", "2025-06-18", b"{}", INFO).encode())
    assert session is not None
    await clock.advance(61)
    ours.sweep()
    assert (session.is_over, ended) == (True, [session])


def test_a_session_that_was_ended_is_over() -> None:
    ended: list[ClientSession] = []
    ours = Sessions(Sealer([KEY]), FakeClock(), 2, on_end=ended.append)
    session = ours.find("v", ours.open("v", "2025-06-18", b"{}", INFO).encode())
    assert session is not None
    ours.end(session)
    assert (session.is_over, ended) == (True, [session])


def test_large_capabilities_are_cut_to_the_core_and_a_large_client_info_is_left_out() -> None:
    ours = sessions()
    large = {
        "x" * 10: "y" * MAX_CAPABILITIES,
        "roots": {"listChanged": True},
        "sampling": {"z": "y" * MAX_CAPABILITIES},
    }
    token = ours.open("v", "2025-06-18", msgspec.json.encode(large), b'"' + b"n" * 600 + b'"').encode()
    found = sessions().find("v", token)
    assert found is not None
    assert msgspec.json.decode(found.caller.capabilities) == {"roots": {"listChanged": True}}
    assert found.caller.client_info == b""
    assert len(token) < 8000


def test_a_streams_name_is_found_by_its_token_in_its_own_view_alone() -> None:
    key, token = sessions().name_stream("v", 3)
    assert sessions().find_stream("v", token.encode()) == (key, 3)
    assert sessions().find_stream("w", token.encode()) is None
    assert sessions(SealingKey(b"abcd", b"x" * 32)).find_stream("v", token.encode()) is None
    assert sessions().find_stream("v", sessions().open("v", "2025-06-18", b"{}", INFO).encode()) is None
    assert sessions().find("v", token.encode()) is None


def test_a_session_without_an_id_belongs_to_whoever_opened_it() -> None:
    ours = sessions()
    session = ours.open_unnamed("v", "2024-11-05", b'{"roots":{}}', b'"' + b"n" * 600 + b'"', principal="p")
    assert (session.view, session.caller.revision, session.caller.session) == ("v", "2024-11-05", session.key)
    assert (session.caller.client_info, session.caller.principal) == (b"", "p")
    assert len(ours) == 0
    ours.end(session)
    assert repr(ours) == "<Sessions 0 known, 1 ended, at most 10>"


def test_a_session_that_was_ended_takes_no_place_and_is_not_remembered_again() -> None:
    told: list[str] = []
    ours = Sessions(
        Sealer([KEY]), FakeClock(), 10, on_known=lambda _: told.append("known"), on_end=lambda _: told.append("end")
    )
    token = ours.open("v", "2025-06-18", b"{}", INFO, principal="ann").encode()
    found = ours.find("v", token, "ann")
    assert found is not None
    ours.end(found)
    assert (len(ours), ours.find("v", token, "ann"), len(ours)) == (0, None, 0)
    assert told == ["known", "end"]


def test_nothing_is_remembered_for_whoever_has_no_right_to_a_session() -> None:
    token = sessions().open("v", "2025-06-18", b"{}", INFO, principal="ann").encode()
    ours = sessions()
    assert (ours.find("v", token, "bob"), ours.find("w", token, "ann"), len(ours)) == (None, None, 0)
    assert ours.find("v", token, "ann") is not None
