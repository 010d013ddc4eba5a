"""One call's waterfall as a header."""

from penstock.telemetry.server_timing import server_timing


def test_a_whole_call_shows_every_part_in_milliseconds() -> None:
    value = server_timing(received_at=1.0, routed_at=1.001, sent_at=1.003, first_byte_at=1.013, answered_at=1.023)
    assert value == (b"auth;dur=0, route;dur=1.000, queue;dur=0, pool;dur=2.000, ttfb;dur=10.000, upstream;dur=20.000")


def test_what_was_never_reached_is_left_out() -> None:
    nothing = server_timing(received_at=1.0, routed_at=1.5, sent_at=0.0, first_byte_at=0.0, answered_at=2.0)
    assert nothing == b"auth;dur=0, route;dur=500.000, queue;dur=0"
    sent = server_timing(received_at=1.0, routed_at=1.5, sent_at=1.5, first_byte_at=0.0, answered_at=2.0)
    assert sent == nothing + b", pool;dur=0.000, upstream;dur=500.000"


def test_no_part_is_negative() -> None:
    value = server_timing(received_at=2.0, routed_at=1.0, sent_at=0.5, first_byte_at=0.2, answered_at=0.1)
    assert b"-" not in value
