import pytest

from penstock.clock import FakeClock
from penstock.gateway import replay
from penstock.gateway.parking import Parking
from penstock.gateway.replay import CALL, LISTEN, KeptStream, Replay, is_of_call, worker_of_event
from penstock.http.event_stream import EventStream
from penstock.http.limits import ServerLimits


class Client:
    """The other end of a stream."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.has_ended = False
        self.stream = EventStream(self, ServerLimits(), chunked=False, paused=False)

    def write_stream(self, data: bytes) -> None:
        self.sent.append(data)

    def complete_answer(self) -> None: ...

    def end_stream(self) -> None:
        self.has_ended = True

    def cut(self) -> None: ...

    def coarse_now(self) -> float:
        return 0.0

    def leaves(self) -> None:
        self.stream.close()


class Kept:
    """A store with a clock, whose background work is remembered."""

    def __init__(self, limit: int = 8, worker: int = 0, max_total: int = replay.MAX_TOTAL) -> None:
        self.work: list[object] = []
        self.holding = Parking(FakeClock(), self._keep, limit=limit, seconds=60, worker=worker)
        self.store = Replay(self.holding, max_total=max_total)

    def _keep(self, work: object) -> None:
        self.work.append(work)
        close = getattr(work, "close", None)
        if close is not None:
            close()

    def open(self, session: str = "s", kind: bytes = CALL) -> tuple[KeptStream, Client]:
        client = Client()
        return self.store.open(session, kind, client.stream), client


def ids_of(client: Client) -> list[bytes]:
    return [line[4:] for sent in client.sent for line in sent.split(b"\n") if line.startswith(b"id: ")]


def test_events_have_ids_that_are_unique_in_a_session_and_name_worker_and_stream() -> None:
    kept = Kept(worker=3)
    (first, one), (second, two) = kept.open(), kept.open(kind=LISTEN)
    for stream in (first, second):
        stream.prime()
        stream.send(b"data: x\n\n")
    assert ids_of(one) == [b"3.c1.1", b"3.c1.2"]
    assert ids_of(two) == [b"3.g2.1", b"3.g2.2"]
    assert one.sent[0] == b"id: 3.c1.1\ndata: \n\n"
    assert (worker_of_event(b"3.c1.2"), is_of_call(b"3.c1.2"), is_of_call(b"3.g2.2")) == (3, True, False)
    for foreign in (b"", b"5", b"a.b.c", b"99999.c1.1", b"1.2"):
        assert worker_of_event(foreign) is None
    assert not is_of_call(b"x")


def test_a_stream_whose_client_was_there_to_the_end_is_not_kept() -> None:
    kept = Kept()
    stream, client = kept.open()
    stream.send(b"data: 1\n\n")
    stream.finish(b"data: 2\n\n")
    assert client.has_ended
    assert len(kept.store) == 0
    assert repr(kept.store) == "<Replay [0 streams] 0 B>"
    stream.send(b"data: 3\n\n")
    stream.finish()
    assert len(client.sent) == 2


def test_a_client_that_comes_back_gets_what_it_missed_and_nothing_twice() -> None:
    kept = Kept()
    stream, client = kept.open()
    stream.send(b"data: 1\n\n")
    client.leaves()
    stream.send(b"data: 2\n\n")
    stream.send(b"data: 3\n\n")
    found = kept.store.find("s", b"0.c1.1")
    assert found == (stream, 1)
    back = Client()
    stream.resume(1, back.stream)
    assert ids_of(back) == [b"0.c1.2", b"0.c1.3"]
    stream.finish(b"data: 4\n\n")
    assert ids_of(back)[-1] == b"0.c1.4"
    assert back.has_ended
    assert len(kept.store) == 0


def test_an_answer_waits_for_its_client_and_ends_the_stream_it_is_fetched_on() -> None:
    kept = Kept()
    stream, client = kept.open()
    stream.prime()
    client.leaves()
    stream.finish(b"data: answer\n\n")
    assert len(kept.store) == len(kept.holding) == 1
    assert repr(stream) == "<KeptStream 0.c1 over | 1 events 25 B>"
    back = Client()
    stream.resume(1, back.stream)
    assert back.sent[0].endswith(b"data: answer\n\n")
    assert back.has_ended
    assert len(kept.store) == len(kept.holding) == 0


def test_what_is_kept_is_found_only_for_its_own_session() -> None:
    kept = Kept()
    stream, _ = kept.open("mine")
    stream.send(b"data: 1\n\n")
    assert kept.store.find("yours", b"0.c1.1") is None
    assert kept.store.find("mine", b"0.c1.x") is None
    assert kept.store.find("mine", b"0.c9.1") is None
    assert kept.store.find("mine", b"0.c1.1") is not None


def test_answers_nobody_fetches_are_bounded_in_number_and_time() -> None:
    kept = Kept(limit=1)
    (first, one), (second, two) = kept.open(), kept.open()
    for stream, client in ((first, one), (second, two)):
        client.leaves()
        stream.finish(b"data: 1\n\n")
    assert len(kept.store) == 1
    first.expire()
    assert len(kept.store) == len(kept.holding) == 0


def test_a_stream_without_a_last_word_is_not_kept() -> None:
    kept = Kept()
    stream, client = kept.open()
    client.leaves()
    stream.finish()
    assert len(kept.store) == 0


def test_one_stream_keeps_so_many_events_and_bytes_and_its_answer_in_any_case() -> None:
    kept = Kept()
    stream, client = kept.open()
    client.leaves()
    for number in range(100):
        stream.send(b"data: %d\n\n" % number)
    back = Client()
    stream.resume(0, back.stream)
    assert len(ids_of(back)) == replay.MAX_EVENTS
    back.leaves()
    stream.finish(b"data: %b\n\n" % (b"x" * replay.MAX_BYTES))
    again = Client()
    stream.resume(0, again.stream)
    assert len(ids_of(again)) == 1


def test_all_streams_together_are_bounded_those_without_a_client_go_first() -> None:
    kept = Kept(max_total=100)
    (idle, gone), (busy, _) = kept.open("a"), kept.open("b")
    gone.leaves()
    idle.send(b"data: 1\n\n")
    busy.send(b"data: %b\n\n" % (b"x" * 75))
    assert kept.store.find("a", b"0.c1.1") is None
    assert kept.store.find("b", b"0.c2.1") is not None


@pytest.mark.parametrize("count", [2, 3, 64, 65, 66, 131, 196, 300])
def test_all_streams_together_are_bounded_also_while_all_their_clients_are_there(
    count: int,
) -> None:
    kept = Kept(max_total=100 * count)
    streams = [kept.open(str(number)) for number in range(count)]
    for round_ in range(10):
        for stream, _ in streams:
            stream.send(b"data: %b\n\n" % (b"x" * 60))
            assert kept.store.kept_bytes <= 100 * count
            assert stream.kept_bytes > 0, "what is kept of others goes first"
        assert kept.store.kept_bytes > 39 * count, round_
    assert all(len(ids_of(client)) == 10 for _, client in streams), "nobody who is there misses anything"
    assert sum(stream.kept_bytes for stream, _ in streams) == kept.store.kept_bytes


def test_an_answer_larger_than_all_that_may_be_kept_is_not() -> None:
    kept = Kept(max_total=100)
    (stream, client), (other, _) = kept.open(), kept.open("other")
    other.send(b"data: 1\n\n")
    client.leaves()
    stream.finish(b"data: %b\n\n" % (b"x" * 200))
    assert (kept.store.kept_bytes, len(kept.store), len(kept.holding)) == (0, 1, 0)
    other.send(b"data: %b\n\n" % (b"x" * 200))
    assert (kept.store.kept_bytes, len(kept.store)) == (0, 0)
    other.send(b"data: 1\n\n")
    assert kept.store.kept_bytes == 0, "it goes on, and cannot be taken up again"


@pytest.mark.parametrize("number", [b"1" * 5_000, b"1" * 19, b"", b"-1", b"one", "\u0661".encode()])
def test_an_event_without_a_number_of_ours_is_unknown(number: bytes) -> None:
    kept = Kept()
    stream, _ = kept.open()
    stream.send(b"data: 1\n\n")
    assert kept.store.find("s", b"0.c1.1") is not None
    assert kept.store.find("s", b"0.c1." + number) is None


def test_the_end_of_a_session_forgets_its_streams() -> None:
    kept = Kept()
    for session in "aab":
        kept.open(session)
    kept.store.forget_session("a")
    kept.store.forget_session("unknown")
    assert len(kept.store) == 1


def test_an_interrupted_stream_says_when_to_come_back_and_goes_on_for_who_does() -> None:
    kept = Kept()
    stream, client = kept.open()
    stream.prime()
    stream.interrupt(250)
    assert client.has_ended
    assert client.sent[-1] == b"retry: 250\ndata: \n\n"
    assert not stream.is_open
    stream.finish(b"data: late\n\n")
    back = Client()
    stream.resume(1, back.stream)
    assert back.sent[0].endswith(b"data: late\n\n")


def test_a_stream_that_was_forgotten_goes_on_and_keeps_nothing() -> None:
    kept = Kept()
    stream, client = kept.open()
    stream.send(b"data: 1\n\n")
    kept.store.forget_session("s")
    stream.send(b"data: 2\n\n")
    assert ids_of(client) == [b"0.c1.1", b"0.c1.2"]
    client.leaves()
    stream.send(b"data: 3\n\n")
    stream.finish(b"data: 4\n\n")
    assert (stream.kept_bytes, kept.store.kept_bytes, len(kept.store), len(kept.holding)) == (0, 0, 0, 0)
