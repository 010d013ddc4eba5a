from penstock.upstreams.backoff import Backoff


def new_backoff(random: float = 1.0) -> Backoff:
    return Backoff(first_seconds=0.1, longest_seconds=30.0, healthy_seconds=60.0, random=lambda: random)


def test_the_first_restart_comes_at_once_and_further_ones_ever_later() -> None:
    backoff = new_backoff()
    delays = [backoff.delay_after(1.0) for _ in range(12)]
    assert delays == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    assert repr(backoff) == "<Backoff failures 12>"


def test_a_healthy_run_forgives_what_was_before() -> None:
    backoff = new_backoff()
    for _ in range(8):
        backoff.delay_after(59.9)
    assert backoff.delay_after(60.0) == 0.0
    assert backoff.delay_after(0.0) == 0.1


def test_jitter_takes_up_to_half_of_the_delay() -> None:
    backoff = new_backoff(random=0.0)
    assert [backoff.delay_after(0) for _ in range(3)] == [0.0, 0.05, 0.1]


def test_a_very_long_row_of_failures_overflows_nothing() -> None:
    backoff = new_backoff()
    assert {backoff.delay_after(0) for _ in range(5000)} >= {30.0}
