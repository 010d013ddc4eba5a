"""Servers that are down, slow, break off, lie or never end: what clients of both eras are told, and what others notice."""

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from penstock.http.client import HttpClient
from tests.end_to_end.faults_kit import (
    ERAS,
    STDIO_SERVER,
    Era,
    Facts,
    Gateway,
    HttpServerProcess,
    McpClient,
    Said,
    facts,
    health,
    http_server,
    open_files,
    server_tables,
    settled,
    stdio_servers,
    until,
)

LIMITS = """
[limits]
response_bytes = "1MiB"
event_bytes = "512KiB"
upstream_idle = "1s"
unawaited = "2s"
"""
TIMEOUT_SECONDS = 1.0
PATIENCE_SECONDS = TIMEOUT_SECONDS + 2.0
"""The deadline, one sweep of the clock hand, and a machine that is busy."""


MORTALS = ("dying", "killed", "mute", "wordy")
"""Stdio servers whose faults end them: one for each, as a server that ends often is started again ever later."""


class Stage(NamedTuple):
    """A gateway before bad servers and good ones."""

    gateway: Gateway
    good: HttpServerProcess
    bad: HttpServerProcess
    before: Facts


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("bad")
    with ExitStack() as stack:
        good = stack.enter_context(http_server(folder / "good"))
        bad = stack.enter_context(http_server(folder / "bad", "bad_http_server"))
        hostile: dict[str, str | list[str]] = {
            "bad": bad.url,
            "down": "http://127.0.0.1:9/mcp",
            "nobody": "http://nobody.invalid/mcp",
            "child": STDIO_SERVER,
            **dict.fromkeys(MORTALS, STDIO_SERVER),
            "missing": ["/does/not/exist"],
        }
        kind: dict[str, str | list[str]] = {"good": good.url, "goodchild": STDIO_SERVER}
        config = server_tables(hostile, timeout="1s") + server_tables(kind) + LIMITS
        gateway = stack.enter_context(Gateway(folder, config))
        until(lambda: len(stdio_servers(gateway.pid)) == 2 + len(MORTALS), 10, "all children ran")
        until(lambda: "'starting'" not in str(health(gateway)), 10, "every server was asked for its lists")
        yield Stage(gateway, good, bad, settled(gateway.pid))


class Fault(NamedTuple):
    """What a client is told of it: the code, which is the modern status too, and words of the message."""

    tool: str
    code: int
    reason: str
    words: str


BROKEN_OFF = (503, "server_unavailable")
BAD = (502, "bad_answer")
LATE = (504, "deadline_exceeded")
DENIED = (502, "needs_authorization")
WITHIN = r"within 1 s.* raise servers\.\w+\.timeout"

HTTP_FAULTS = [
    Fault("bad_never_answers", *LATE, WITHIN),
    Fault("bad_closes_at_once", *BROKEN_OFF, r"clos.*see its log"),
    Fault("bad_resets", *BROKEN_OFF, r"see its log"),
    Fault("bad_closes_in_head", *BROKEN_OFF, r"clos.*see its log"),
    Fault("bad_closes_in_body", *BROKEN_OFF, r"clos.*see its log"),
    Fault("bad_closes_in_stream", *BROKEN_OFF, r"clos.*see its log"),
    Fault("bad_ends_stream_without_answer", *BAD, r"see its log"),
    Fault("bad_wrong_id", *BAD, r"somebody else's.*cannot be trusted"),
    Fault("bad_wrong_id_in_stream", *BAD, r"987654321.*cannot be trusted"),
    Fault("bad_no_json", *BAD, r"no JSON-RPC message.*see its log"),
    Fault("bad_no_message", *BAD, r"no JSON-RPC message.*see its log"),
    Fault("bad_result_is_no_object", *BAD, r"no JSON-RPC message.*see its log"),
    Fault("bad_no_http", *BAD, r"is its URL that of an HTTP server\?"),
    Fault("bad_endless_head", *BAD, r"raise 'limits.response_header_bytes'"),
    Fault("bad_endless_body", *BAD, r"raise 'limits.response_bytes'"),
    Fault("bad_endless_event", *BAD, r"raise 'limits.event_bytes'"),
    Fault("bad_endless_comments", *LATE, WITHIN),
    Fault("bad_endless_foreign_progress", *LATE, WITHIN),
    Fault("bad_drips", *LATE, WITHIN),
    Fault("bad_redirects", *BAD, r"HTTP 307.*use this URL instead if you trust it: https://elsewhere\.example/mcp$"),
    Fault("bad_wants_authorization", *DENIED, r"HTTP 401.*give Penstock a credential"),
    Fault("bad_forbids", *DENIED, r"HTTP 403.*give Penstock a credential"),
    Fault("bad_not_found", *BAD, r"HTTP 404.*check its URL|it forgot a session it had just opened"),
    Fault("bad_too_many", 503, "server_busy", r"HTTP 429.*try again after 7 s"),
    Fault("bad_fails", *BAD, r"HTTP 500 \(oh no\); see its log"),
    Fault("bad_is_overloaded", *BROKEN_OFF, r"HTTP 503.*try again"),
    Fault("bad_says_html", *BAD, r"text/html instead of JSON.*is this its MCP endpoint\?"),
    Fault("bad_only_accepts", *BAD, r"HTTP 202.*did not answer it; see its log"),
    Fault("bad_broken_gzip", *BAD, r"does not match its content-encoding"),
    Fault("bad_gzip_bomb", *BAD, r"raise 'limits.response_bytes'"),
]
ABSENT = [
    Fault("down_any", *BROKEN_OFF, r"check that it runs and that its URL is right"),
    Fault("nobody_any", *BROKEN_OFF, r"check that it runs and that its URL is right"),
    Fault("missing_any", *BROKEN_OFF, r"'/does/not/exist' does not exist; correct the path"),
]
STDIO_FAULTS = [
    Fault("child_never", *LATE, WITHIN),
    Fault("child_wrong_id", *LATE, WITHIN),
    Fault("child_malformed", *LATE, WITHIN),
    Fault("child_endless_lines", *LATE, WITHIN),
    Fault("child_no_object", *BAD, r""),
    Fault("dying_dies", *BROKEN_OFF, r"exited with status 3.*the disk is full"),
    Fault("killed_is_killed", *BROKEN_OFF, r"killed by SIGKILL"),
    Fault("mute_closes_stdout", *BROKEN_OFF, r"closed its input or output"),
    Fault("wordy_endless_line", *BAD, r"line of more than 524288 bytes; its process was ended and is started again"),
]
EVERY_FAULT = [*HTTP_FAULTS, *ABSENT, *STDIO_FAULTS]


def judge(fault: Fault, era: Era, said: Said) -> None:
    """One answer against the table."""
    server = fault.tool.partition("_")[0]
    error = said.error
    assert (error["code"], error["data"]["reason"], error["data"]["server"]) == (fault.code, fault.reason, server), (
        error
    )
    assert said.status == (fault.code if era == "modern" else 200)
    assert error["message"].startswith(f"server '{server}': ")
    assert re.search(fault.words, error["message"]), error["message"]
    assert "secret" not in error["message"]
    assert said.seconds < PATIENCE_SECONDS


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("fault", EVERY_FAULT, ids=lambda fault: fault.tool)
async def test_a_client_is_told_which_server_failed_how_and_what_to_do(fault: Fault, era: Era, stage: Stage) -> None:
    async with HttpClient() as http:
        client = McpClient(http, stage.gateway.url, era)
        judge(fault, era, await client.call(fault.tool))


@pytest.mark.parametrize("era", ERAS)
async def test_a_second_answer_after_the_first_reaches_nobody(era: Era, stage: Stage) -> None:
    async with HttpClient() as http:
        client = McpClient(http, stage.gateway.url, era)
        assert (await client.call("bad_answers_twice")).text == "once"
        for number in range(20):
            assert (await client.call("bad_echo", {"text": str(number)})).text == str(number)


async def test_calls_to_other_servers_notice_nothing(stage: Stage) -> None:
    """All faults at once in both eras, again and again, while good servers are called."""
    async with HttpClient(idle_per_origin=200) as http:
        clients = {era: McpClient(http, stage.gateway.url, era) for era in ERAS}
        for client in clients.values():
            assert (await client.call("good_echo", {"text": "x"})).text == "x"
        stop = asyncio.Event()

        async def break_everything(fault: Fault, era: Era) -> int:
            rounds = 0
            while not stop.is_set():
                server = fault.tool.partition("_")[0]
                error = (await clients[era].call(fault.tool)).error
                assert error["data"]["server"] == server
                rounds += 1
                if server in MORTALS:
                    break
                await asyncio.sleep(0.1)
            return rounds

        breaking = [asyncio.create_task(break_everything(fault, era)) for fault in EVERY_FAULT for era in ERAS]
        slowest = 0.0
        for number in range(200):
            era = ERAS[number % 2]
            server = ("good", "goodchild")[number // 2 % 2]
            said = await clients[era].call(f"{server}_echo", {"text": str(number)})
            assert said.text == str(number)
            slowest = max(slowest, said.seconds)
            await asyncio.sleep(0.01)
        stop.set()
        rounds = sum(await asyncio.gather(*breaking))
    print(f"\n200 calls of good servers, slowest {1000 * slowest:.0f} ms, beside {rounds} calls of bad ones")
    assert slowest < TIMEOUT_SECONDS


def test_nothing_is_left_behind(stage: Stage) -> None:
    """Runs last: after all of the above."""
    gateway, before = stage.gateway, stage.before

    def is_as_before() -> bool:
        now = facts(gateway.pid)
        return now.descriptors <= before.descriptors + 2 and now.children == before.children and not now.zombies

    give_up_at = time.monotonic() + 15
    while not is_as_before() and time.monotonic() < give_up_at:
        time.sleep(0.1)
    now = facts(gateway.pid)
    print(f"\nbefore {before}\nafter  {now}")
    assert is_as_before(), "\n".join(open_files(gateway.pid))
    assert now.memory_mib < before.memory_mib + 60
    assert "Traceback" not in gateway.err, gateway.err
    assert not re.search("never (retrieved|awaited)|exception", gateway.err, re.IGNORECASE), gateway.err
