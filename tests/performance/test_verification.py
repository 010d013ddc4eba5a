"""No answer counts that is not the right one: what the benchmarks' client, generator and sender refuse."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from benchmarks import wrk
from benchmarks.client import Template, verify
from benchmarks.latency import Latency, Round, collect
from benchmarks.messages import FIRST_ID, Era, compact, message_in, result, shape, text_of, varied, why_wrong
from benchmarks.processes import Failed
from benchmarks.rows import choose
from benchmarks.sender import Order, Outcome, Sender, schedule

Reply = Callable[[int], bytes]
"""From a call's id to the response's bytes."""


def right(number: int) -> bytes:
    return b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (number, result("modern", "small"))


def plain(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


@contextmanager
def server(reply: Reply) -> Iterator[int]:
    """Answers calls one by one on each connection, as `reply` says."""
    with server_of_requests(lambda number, _: reply(number)) as port:
        yield port


@contextmanager
def server_of_requests(reply: Callable[[int, bytes], bytes]) -> Iterator[int]:
    """The same for a `reply` that looks at the whole request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(connection: socket.socket) -> None:
            with connection:
                while data := connection.recv(65536):
                    number = int(data.partition(b'"id":')[2][:9])
                    connection.sendall(reply(number, data))

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=serve, args=(connection,)))
                threads[-1].start()

        threads: list[threading.Thread] = []
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join(5)
            for thread in threads:
                thread.join(5)


CALL = shape("modern", "small", path="/mcp")


def test_right_answers_are_taken_and_what_they_have_in_common_is_learnt() -> None:
    with server(lambda number: plain(right(number))) as port:
        template = verify(port, [CALL], "modern", "small", 20, connections=3)
    assert template is not None
    assert template.prefix + b"123456789" + template.suffix == right(123456789)


def test_an_answer_to_another_call_is_refused() -> None:
    with (
        server(lambda number: plain(right(number + 1))) as port,
        pytest.raises(Failed, match=f"answer to call {FIRST_ID} has id {FIRST_ID + 1}"),
    ):
        verify(port, [CALL], "modern", "small", 1)


def test_a_status_that_is_no_success_is_refused() -> None:
    with (
        server(lambda _: b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n") as port,
        pytest.raises(Failed, match="answered 503"),
    ):
        verify(port, [CALL], "modern", "small", 1)


def test_answers_that_differ_in_more_than_their_id_have_no_template() -> None:
    def padded(number: int) -> bytes:
        return plain(right(number) + b" " * (number % 3))

    with server(padded) as port:
        assert verify(port, [CALL], "modern", "small", 6) is None


def test_the_answer_is_found_in_an_event_stream_after_other_events() -> None:
    stream = (
        b'data: {"jsonrpc":"2.0","method":"notifications/message"}\r\n\r\n: quiet\n\nevent: message\ndata: %b\n\n'
        % right(5)
    )
    assert why_wrong(message_in(stream, b"text/event-stream"), "modern", "small", 5) is None
    with pytest.raises(ValueError, match="without an answer"):
        message_in(b": quiet\n\n", b"text/event-stream")


@pytest.mark.parametrize(
    ("era", "change", "complaint"),
    [
        ("modern", {"content": [{"type": "text", "text": "short"}]}, "content"),
        ("modern", {"isError": True}, "isError"),
        ("modern", {"resultType": "input_required"}, "resultType"),
        ("legacy", {"resultType": "complete"}, "resultType"),
    ],
)
def test_a_result_that_was_altered_is_refused(era: Era, change: dict[str, object], complaint: str) -> None:
    message = message_in(b'{"jsonrpc":"2.0","id":7,"result":%b}' % result(era, "small"), b"application/json")
    assert why_wrong(message, era, "small", 7) is None
    message["result"] |= change
    assert complaint in str(why_wrong(message, era, "small", 7))


def test_an_error_is_no_result() -> None:
    error = {"jsonrpc": "2.0", "id": 7, "error": {"code": -32603, "message": "out of order"}}
    assert "out of order" in str(why_wrong(error, "modern", "small", 7))
    assert "not a JSON-RPC message" in str(why_wrong(None, "modern", "small", 7))


def test_a_run_of_the_generator_counts_only_when_every_answer_was_right() -> None:
    line = "summary calls={calls} microseconds=1000000 right={right} wrong={wrong} socket={socket} p50=900 p99=2000\n"
    good = wrk.parse(line.format(calls=100, right=100, wrong=0, socket=0))
    assert good == wrk.Run(100, 1.0, 0.9, 2.0)
    for bad in ({"right": 99, "wrong": 1}, {"socket": 2}, {"calls": 101}, {"calls": 0, "right": 0}):
        with pytest.raises(Failed):
            wrk.parse(line.format(**({"calls": 100, "right": 100, "wrong": 0, "socket": 0} | bad)))
    with pytest.raises(Failed, match="unable to connect"):
        wrk.parse("", "unable to connect")


def test_the_generators_script_holds_any_bytes() -> None:
    assert wrk.quoted(b'a"\\\n\xff') == r'"a\034\092\010\255"'
    written = wrk.script([CALL], Template(b"@SUFFIX@", b'@HEAD@"}'), "text")
    assert r'local prefix, suffix = "@SUFFIX@", "@HEAD@\034}"' in written
    assert wrk.quoted(CALL.tail) in written


def test_calls_of_different_lengths_take_turns() -> None:
    calls = varied("modern", "small", path="/mcp", count=8)
    assert len({len(call.with_id(FIRST_ID)) for call in calls}) == 8
    seen: list[bytes] = []

    def noted(number: int, request: bytes) -> bytes:
        seen.append(request)
        return plain(right(number))

    with server_of_requests(noted) as port:
        assert verify(port, calls, "modern", "small", 16, connections=1)
    assert seen == [calls[number % 8].with_id(FIRST_ID + number) for number in range(16)]


def test_rows_bring_the_nginx_row_they_are_compared_with() -> None:
    assert [row.name for row in choose(["modern-legacy-1k"])] == ["nginx-legacy-1k", "modern-legacy-1k"]
    with pytest.raises(Failed, match="no row is called 'modem"):
        choose(["modem-*"])


def order(port: int, calls: int) -> Order:
    prefix, _, suffix = right(FIRST_ID).partition(b"%d" % FIRST_ID)
    head, tail, before, after = (part.decode("latin-1") for part in (*CALL, prefix, suffix))
    return Order(port, head, tail, before, after, 2000.0, calls, connections=4)


def send(reply: Reply, calls: int = 40) -> Outcome:
    with server(reply) as port:
        sender = Sender(order(port, calls))
        try:
            return sender.run()
        finally:
            sender.close()


def test_the_sender_counts_wrong_answers_and_never_their_latency() -> None:
    outcome = send(lambda number: plain(right(number) if number % 2 else right(number - 1)))
    assert (outcome.calls, outcome.wrong, outcome.unanswered) == (40, 20, 0)


def test_a_call_that_had_to_wait_counts_from_when_it_was_due() -> None:
    gate = threading.Event()

    def slow_once(number: int) -> bytes:
        if number == FIRST_ID:
            gate.wait(0.2)  # the first answer holds its connection up; nothing else may hide that
        return plain(right(number))

    outcome = send(slow_once)
    assert (outcome.wrong, outcome.unanswered) == (0, 0)
    assert outcome.most >= 150


def test_the_schedule_is_fixed_beforehand_and_keeps_the_rate() -> None:
    times = schedule(20_000, 1000.0)
    assert times == schedule(20_000, 1000.0)
    assert times == sorted(times)
    assert times[-1] == pytest.approx(20.0, rel=0.05)


def outcome(p50: float, p99: float, slip: float) -> Outcome:
    return Outcome(1000, 0, 0, p50, p99, p99 * 2, slip, 0)


def test_a_round_in_which_the_sender_slipped_is_void_and_repeated() -> None:
    slips = iter([0.1, 0.9, 0.2])

    def take(_: int) -> Round:
        return Round(outcome(0.1, 0.3, 0.05), outcome(0.2, 0.5, next(slips)))

    latency = collect(take, 2, lambda _: None)
    added = latency.added()
    assert (len(latency.rounds), len(latency.void)) == (2, 1)
    assert added is not None
    assert [round(figure.median, 6) for figure in added] == [0.1, 0.2]


def test_too_many_void_rounds_end_the_measurement_without_a_figure() -> None:
    taken: list[int] = []

    def take(attempt: int) -> Round:
        taken.append(attempt)
        return Round(outcome(0.1, 0.3, 5.0), outcome(0.2, 0.5, 0.1))

    latency = collect(take, 2, lambda _: None)
    assert isinstance(latency, Latency)
    assert taken == [0, 1, 2, 3, 4]
    assert latency.added() is None
    assert latency.as_json()["added_p50_ms"] is None


def test_results_have_the_sizes_their_rows_name() -> None:
    assert [len(text_of(tool)) for tool in ("small", "large")] == [1024, 102_400]
    assert compact({"a": 1}) == b'{"a":1}'
