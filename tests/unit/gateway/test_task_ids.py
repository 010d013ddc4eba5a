"""Sealed ids of tasks: each opens to what was sealed, and only for a while."""

import pytest

from penstock.clock import FakeClock
from penstock.gateway.task_ids import LIFETIME_SECONDS, MAX_TASK_ID, TaskId, TaskIds
from penstock.identity.seal import Sealer, SealingKey

KEY = SealingKey(b"test", b"k" * 32)


@pytest.mark.parametrize(
    "task", ["", "job-1", "\u00e9\U0001f600" * 40, "x" * MAX_TASK_ID], ids=["empty", "short", "not ascii", "longest"]
)
async def test_an_id_opens_for_as_long_as_it_is_good(task: str) -> None:
    clock = FakeClock()
    ids = TaskIds(Sealer([KEY]), clock)
    made = TaskId("jobs", task, "ann")
    token = ids.seal(made)
    assert token.isascii()
    assert (ids.open(token), ids.seal(made) == token) == (made, False)
    await clock.advance(LIFETIME_SECONDS - 1)
    assert ids.open(token) == made
    await clock.advance(2)
    assert ids.open(token) is None
    assert repr(ids) == "<TaskIds <Sealer 1 keys, newest 74657374>>"


def test_what_was_sealed_for_something_else_is_no_id() -> None:
    sealer = Sealer([KEY])
    assert TaskIds(sealer, FakeClock()).open(sealer.seal(b"session", b"x")) is None
    assert TaskIds(sealer, FakeClock()).open(sealer.seal(b"task", b"x")) is None
