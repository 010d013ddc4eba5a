"""The soak for as long as a test may take; `python -m tests.end_to_end.soak --minutes 30` is the real one."""

from pathlib import Path

import pytest

from tests.end_to_end.soak import run, staged
from tests.end_to_end.soak_samples import Sample, growth_per_10_minutes

SECONDS = 30.0


@pytest.mark.alone
async def test_half_a_minute_of_everything_at_once_leaves_nothing_and_mixes_nothing_up(tmp_path: Path) -> None:
    with staged(tmp_path, workers=1) as stage:
        verdict = await run(stage, SECONDS, seed=1, actors=12)
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
