"""The soak, short; `python -m tests.end_to_end.soak --minutes 30` is the real one."""

from pathlib import Path

import pytest

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


def test_growth_is_judged_by_all_samples_and_not_by_a_moments_load() -> None:
    def samples(*memory: float) -> list[Sample]:
        return [Sample(3.0 * number, (one,), 0, 0, 0, {}) for number, one in enumerate(memory)]

    assert growth_per_10_minutes(samples(*[50.0] * 20)) == 0.0
    assert growth_per_10_minutes(samples(*[50.0] * 8, 90.0, 90.0, *[50.0] * 8)) == 0.0
    steady = growth_per_10_minutes(samples(*(50.0 + number * 0.005 for number in range(60))))
    assert abs(steady - 1.0) < 0.01
    assert growth_per_10_minutes(samples(50.0)) == 0.0
