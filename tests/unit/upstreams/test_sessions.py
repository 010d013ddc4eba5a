from typing import Any

import msgspec

from penstock.protocol.versions import Era
from penstock.upstreams.calls import Call, Caller
from penstock.upstreams.interface import Description
from penstock.upstreams.sessions import STATELESS, Key, LegacySession, SessionBook

NOTHING: Any = msgspec.Raw(b"{}")
DESCRIPTION = Description(eras=(Era.LEGACY,), versions=("2025-11-25",), server_info=NOTHING, capabilities=NOTHING)


CALL = Call("tools/call", {}, Caller(Era.MODERN, "2026-07-28", None))


def session(key: Key, session_id: bytes | None = b"id") -> LegacySession:
    return LegacySession(key, session_id, "2025-11-25", DESCRIPTION, b"")


def book(max_own: int = 2, *, shares_all: bool = False) -> SessionBook[LegacySession]:
    return SessionBook(shares_all=shares_all, max_own=max_own, idle_seconds=60)


def legacy(name: str | None) -> Caller:
    return Caller(Era.LEGACY, "2025-11-25", name)


def test_only_legacy_client_sessions_have_one_of_their_own() -> None:
    sessions = book()
    shared = ("shared", "\n{}")
    assert sessions.key_for(legacy("a")) == ("own", "a")
    assert sessions.key_for(legacy(None)) == shared
    assert sessions.key_for(Caller(Era.MODERN, "2026-07-28", "a")) == shared
    assert book(shares_all=True).key_for(legacy("a")) == shared
    sessions.add(session(("shared", "{}"), None), 0)
    assert sessions.key_for(legacy("a")) == STATELESS


def test_only_callers_of_one_principal_who_can_be_asked_the_same_share_a_session() -> None:
    def key(capabilities: bytes, principal: str = "") -> Key:
        return book().key_for(Caller(Era.MODERN, "2026-07-28", None, capabilities, principal=principal))

    assert key(b'{"elicitation":{}}') == key(b'{"elicitation": {"form": {}}, "extensions": {}}')
    keys = [key(b"{}"), key(b'{"roots":{}}'), key(b'{"elicitation":{"url":{}}}'), key(b"{}", "ann"), key(b"{}", "bob")]
    assert len(set(keys)) == 5


def test_the_longest_unused_makes_room_but_not_one_with_a_call_in_flight() -> None:
    sessions = book()
    first, second, third, fourth = (session(("own", name)) for name in "abcd")
    assert sessions.add(first, 0) == []
    assert sessions.add(second, 1) == []
    first.calls[b"1"] = CALL
    assert sessions.add(third, 2) == [second]
    assert sessions.find(("own", "b"), 3) is None
    third.calls[b"1"] = CALL
    assert sessions.add(fourth, 3) == [first]
    assert len(sessions) == 2
    assert repr(sessions) == "<SessionBook [2 own 0 shared]>"


def test_use_keeps_a_session_and_idleness_ends_it() -> None:
    sessions = book(max_own=5)
    first, second, third = (session(("own", name)) for name in "abc")
    for one in (first, second, third):
        sessions.add(one, 0)
    sessions.find(first.key, 30)
    third.calls[b"1"] = CALL
    assert sessions.take_idle(59) == []
    assert sessions.take_idle(60) == [second]
    third.calls.clear()
    assert sessions.take_idle(90) == [third, first]


def test_a_session_replaced_meanwhile_is_not_removed_twice() -> None:
    sessions = book()
    old, new = session(("own", "a")), session(("own", "a"))
    sessions.add(old, 0)
    sessions.add(new, 1)
    assert not sessions.remove(old)
    assert sessions.find(("own", "a"), 2) is new
    assert sessions.remove(new)
    assert not sessions.remove(new)


def test_taking_all_leaves_nothing() -> None:
    sessions = book()
    own, shared = session(("own", "a")), session(("shared", "{}"))
    sessions.add(own, 0)
    sessions.add(shared, 0)
    assert sessions.take_own("x") is None
    assert sessions.take_all() == [own, shared]
    assert len(sessions) == 0
    assert repr(own) == "<LegacySession own 2025-11-25 session | in flight 0>"
