"""Log lines: one per event, no secrets, repeats counted."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from penstock.cli.logging import LineFormatter, RepeatFilter, set_up_logging, without_secrets


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer planted",
        "{'authorization': 'planted'}",
        "cookie=planted; a=planted",
        "Mcp-Session-Id: planted",
        "sent bearer planted_abc",
        "GET https://x/?api_key=planted&b=1",
        "https://me:planted@x/",
    ],
)
def test_secrets_never_reach_the_log(text: str) -> None:
    assert "planted" not in without_secrets(text)
    assert "***" in without_secrets(text)


def test_what_is_wrong_with_a_header_in_the_configuration_is_said() -> None:
    said = "p.toml:10: servers.docs.headers.Authorization: the environment variable TOKEN is not set"
    assert without_secrets(said) == said
    assert "planted" not in without_secrets("servers.docs.headers.Authorization: Bearer planted")
    assert "planted" not in without_secrets("headers.Authorization: planted")


def test_an_event_is_one_line(stream: io.StringIO) -> None:
    set_up_logging("info", as_json=False, stream=stream)
    log = logging.getLogger("penstock.x")
    log.debug("not shown")
    log.info("two\nlines \x1b[31m", extra={"server": "a"})
    assert stream.getvalue().endswith("Z info penstock.x: two\\nlines \\x1b[31m server=a\n")
    assert stream.getvalue().count("\n") == 1


def test_a_stack_is_one_line_too(stream: io.StringIO) -> None:
    set_up_logging("info", as_json=False, stream=stream)
    try:
        raise ValueError("Authorization: planted")
    except ValueError:
        logging.getLogger("x").exception("failed")
    assert "Traceback" in stream.getvalue()
    assert "planted" not in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


def test_json_has_one_object_per_event(stream: io.StringIO) -> None:
    set_up_logging("debug", as_json=True, stream=stream)
    logging.getLogger("x").warning("done %d", 3, extra={"server": "a", "token": "bearer planted", "level": "no"})
    event = json.loads(stream.getvalue())
    assert event.pop("time").endswith("Z")
    assert event == {"level": "warning", "logger": "x", "message": "done 3", "server": "a", "token": "bearer ***"}


def test_repeats_collapse_to_a_count() -> None:
    now = 0.0
    repeats = RepeatFilter(lambda: now)

    def passes(message: str) -> str | None:
        record = logging.makeLogRecord({"name": "x", "levelno": 20, "levelname": "INFO", "msg": message, "created": 0})
        return LineFormatter().format(record).partition(": ")[2] if repeats.filter(record) else None

    assert [passes("same") for _ in range(8)] == ["same"] * 5 + [None] * 3
    assert passes("other") == "other"
    now = 10.0
    assert passes("same") == "same (and 3 more like it)"
    assert passes("other") == "other"
    assert repr(repeats) == "<RepeatFilter 2 lines>"


def test_what_is_remembered_of_repeats_is_bounded() -> None:
    repeats = RepeatFilter(lambda: 0.0)
    for number in range(1500):
        repeats.filter(logging.makeLogRecord({"msg": str(number)}))
    assert repr(repeats) == "<RepeatFilter 1000 lines>"
