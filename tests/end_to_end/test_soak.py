"""The soak, short; `python -m tests.end_to_end.soak --minutes 30` is the real one."""

import asyncio
from pathlib import Path

import pytest

from tests.end_to_end import soak
from tests.end_to_end.soak import run, staged
from tests.end_to_end.soak_samples import Sample, growth_per_10_minutes

SECONDS = 120.0
REST_SECONDS = 0.8
"""Other tests run beside it, and want the processors too."""


@pytest.mark.timeout(300)
async def test_two_minutes_of_everything_at_once_leave_nothing_and_mix_nothing_up(tmp_path: Path) -> None:
    with staged(tmp_path, workers=1) as stage:
        verdict = await run(stage, SECONDS, seed=1, actors=12, rest_seconds=REST_SECONDS)
    assert not verdict.problems, verdict.problems
    assert not verdict.left, verdict.left
    assert verdict.growth_mib <= verdict.allowed_mib


async def test_a_run_that_ends_in_the_middle_of_a_restart_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the same server would be started a second time, on the port the first one has taken meanwhile."""
    monkeypatch.setattr(soak, "RESTART_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(soak, "STDIO_SHARE", 0.0)
    with staged(tmp_path, workers=1) as stage:
        blows = soak.Blows(stage, seed=1)
        blows.start()
        async with asyncio.timeout(10):
            while all(web.is_running() for web in stage.webs.values()):  # noqa: ASYNC110 - a process's end tells nobody
                await asyncio.sleep(0.01)
        await blows.stop()
        assert blows._restarting is not None
        assert blows._restarting.done()
        assert all(web.is_running() for web in stage.webs.values())


def test_growth_is_judged_by_all_samples_and_not_by_a_moments_load() -> None:
    def samples(*memory: float) -> list[Sample]:
        return [Sample(3.0 * number, (one,), 0, 0, 0, {}) for number, one in enumerate(memory)]

    assert growth_per_10_minutes(samples(*[50.0] * 20)) == 0.0
    assert growth_per_10_minutes(samples(*[50.0] * 8, 90.0, 90.0, *[50.0] * 8)) == 0.0
    steady = growth_per_10_minutes(samples(*(50.0 + number * 0.005 for number in range(60))))
    assert abs(steady - 1.0) < 0.01
    assert growth_per_10_minutes(samples(50.0)) == 0.0
