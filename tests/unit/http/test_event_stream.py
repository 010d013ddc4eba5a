from hypothesis import given
from hypothesis import strategies as st

from penstock.http.event_stream import COMMENT, EventStream
from penstock.http.limits import ServerLimits


class ScriptedLink:
    """A connection that records what a stream asks of it."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.calls: list[str] = []
        self.now = 100.0
        self.stream: EventStream | None = None
        self.pause_after = 0

    def write_stream(self, data: bytes) -> None:
        self.sent.append(data)
        if self.stream is not None and len(self.sent) == self.pause_after:
            self.stream.pause()

    def complete_answer(self) -> None:
        self.calls.append("complete")

    def end_stream(self) -> None:
        self.calls.append("end")

    def cut(self) -> None:
        self.calls.append("cut")
        if self.stream is not None:
            self.stream.close()

    def coarse_now(self) -> float:
        return self.now


def opened(
    *, events: int = 3, size: int = 100, chunked: bool = False, paused: bool = False
) -> tuple[ScriptedLink, EventStream]:
    link = ScriptedLink()
    limits = ServerLimits(stream_queue_events=events, stream_queue_bytes=size)
    link.stream = EventStream(link, limits, chunked=chunked, paused=paused)
    return link, link.stream


def test_events_go_out_at_once_in_chunks() -> None:
    link, stream = opened(chunked=True)
    stream.send(b"data: 1\n\n")
    stream.send(b"")
    stream.finish(b"data: 2\n\n")
    assert link.sent == [b"9\r\ndata: 1\n\n\r\n", b"9\r\ndata: 2\n\n\r\n0\r\n\r\n"]
    assert link.calls == ["complete", "end"]
    assert repr(stream) == "<EventStream finished [0 waiting 0 B | dropped 0]>"


def test_without_a_last_event_the_stream_just_ends() -> None:
    link, stream = opened(chunked=True)
    stream.finish()
    stream.finish(b"data: never\n\n")
    stream.send(b"data: never\n\n")
    assert link.sent == [b"0\r\n\r\n"]


def test_a_slow_reader_loses_the_oldest_droppable_events_and_nothing_else() -> None:
    link, stream = opened(events=3)
    stream.pause()
    stream.send(b"keep 1")
    for number in range(4):
        stream.send(b"drop %d" % number, droppable=True)
    stream.send(b"keep 2")
    stream.finish(b"result")
    assert stream.dropped == 3
    assert link.sent == []
    assert link.calls == ["complete"]
    stream.resume()
    assert link.sent == [b"keep 1", b"drop 3", b"keep 2", b"result", b""]
    assert link.calls == ["complete", "end"]


def test_the_bound_in_bytes_holds_too() -> None:
    _, stream = opened(events=100, size=10)
    stream.pause()
    stream.send(b"12345", droppable=True)
    stream.send(b"67890", droppable=True)
    stream.send(b"abcdef")
    assert stream.dropped == 2
    assert repr(stream) == "<EventStream open paused [1 waiting 6 B | dropped 2]>"


def test_a_single_event_larger_than_the_bound_waits() -> None:
    link, stream = opened(size=10)
    stream.pause()
    stream.send(b"x" * 11)
    assert link.calls == []
    stream.finish(b"y" * 1000)
    stream.resume()
    assert link.sent == [b"x" * 11, b"y" * 1000, b""]


def test_a_reader_that_is_behind_with_what_cannot_be_dropped_is_cut() -> None:
    link, stream = opened(events=2)
    stream.pause()
    for number in range(3):
        stream.send(b"keep %d" % number)
    assert link.calls == ["cut"]
    stream.send(b"late")
    stream.finish(b"late")
    stream.resume()
    stream.send_comment()
    assert link.sent == []
    assert "closed" in repr(stream)


def test_handing_over_stops_when_the_reader_stops_again() -> None:
    link, stream = opened()
    stream.pause()
    for number in range(3):
        stream.send(b"%d" % number)
    link.pause_after = 2
    stream.resume()
    assert link.sent == [b"0", b"1"]
    stream.resume()
    assert link.sent == [b"0", b"1", b"2"]


def test_a_comment_is_sent_only_to_a_reader_that_reads() -> None:
    link, stream = opened()
    link.now = 107.0
    stream.send_comment()
    assert link.sent == [COMMENT]
    assert stream.quiet_since == 107.0
    stream.pause()
    stream.send_comment()
    assert link.sent == [COMMENT]


def test_a_stream_to_a_client_that_is_gone_swallows_everything() -> None:
    stream = EventStream.closed()
    stream.send(b"x")
    stream.finish(b"y")
    assert not stream.is_finished


@given(st.lists(st.tuples(st.sampled_from(["send", "drop", "pause", "resume"]), st.integers(1, 30)), max_size=60))
def test_order_is_kept_bounds_hold_and_only_droppable_events_are_missing(steps: list[tuple[str, int]]) -> None:
    link, stream = opened(events=5, size=80)
    given_events: list[tuple[bytes, bool]] = []
    for number, (step, size) in enumerate(steps):
        if step == "pause":
            stream.pause()
        elif step == "resume":
            stream.resume()
        else:
            event = b"%d:" % number + b"x" * size
            given_events.append((event, step == "drop"))
            stream.send(event, droppable=step == "drop")
        assert len(stream._queue) <= 5
        assert stream._bytes == sum(len(event) for event, _ in stream._queue)
        assert stream._bytes <= 80 or len(stream._queue) == 1
        if link.calls:
            return
    stream.finish(b"result")
    stream.resume()
    sent = [event for event in link.sent if event]
    assert sent[-1] == b"result"
    missing = [droppable for event, droppable in given_events if event not in sent]
    assert all(missing)
    assert len(missing) == stream.dropped
    assert sent[:-1] == [event for event, _ in given_events if event in sent]
