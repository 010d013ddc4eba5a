"""Plays the whole corpus on all servers, and holds the outcomes that were written down.

Knows: `outcomes.toml`, which holds our lane's outcome for each message and each peer's where it is another. Does not know:
what the RFCs say of them.
"""

import asyncio
import json
import tomllib
from collections.abc import Iterable
from contextlib import AsyncExitStack
from importlib.metadata import version
from typing import Final, NamedTuple

import uvloop

from tests.http_corpus.corpus import FOLDER, Message
from tests.http_corpus.player import PATIENT_TICKS, TICKS, play_again, play_all
from tests.http_corpus.reference import h11_server, nginx_server, nginx_version
from tests.http_corpus.servers import Server, aiohttp_server, penstock, uvicorn_server

OURS: Final = "penstock"
PEERS: Final = ("uvicorn-h11", "uvicorn-httptools", "aiohttp", "h11", "nginx")
OUTCOMES: Final = FOLDER / "outcomes.toml"
Found = dict[str, dict[str, str]]
"""Server → message → outcome."""


class Record(NamedTuple):
    """What is written down."""

    versions: dict[str, str]
    """Of the peers, when their outcomes were recorded."""
    outcomes: Found

    @classmethod
    def load(cls) -> "Record":
        """As it stands in the file."""
        table = tomllib.loads(OUTCOMES.read_text())
        versions = table.pop("versions")
        outcomes: Found = {name: {} for name in (OURS, *PEERS)}
        for message, entry in table.items():
            for name in outcomes:
                outcomes[name][message] = entry.get(name, entry[OURS])
        return cls(versions, outcomes)

    def write(self, messages: Iterable[Message]) -> None:
        """Put it into the file."""
        lines = [
            "# Written by `python -m tests.http_corpus --write`; a peer stands here where it differs from penstock."
        ]
        lines += ["", "[versions]", *(f'{name} = "{text}"' for name, text in self.versions.items())]
        for message in messages:
            ours = self.outcomes[OURS][message.id]
            lines += ["", f"[{message.id}]", f"{OURS} = {json.dumps(ours)}"]
            for name in PEERS:
                theirs = self.outcomes[name][message.id]
                if theirs != ours:
                    lines.append(f"{name} = {json.dumps(theirs)}")
        OUTCOMES.write_text("\n".join(lines) + "\n")

    def differences(self, message: Message) -> dict[str, str]:
        """Peer → its outcome, where that is not ours."""
        ours = self.outcomes[OURS][message.id]
        return {name: self.outcomes[name][message.id] for name in PEERS if self.outcomes[name][message.id] != ours}


def observe(messages: list[Message], record: Record | None = None) -> Found:
    """Play the messages on all servers. What differs from `record` is played again with patience before it is believed."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_observe(messages, record))


def versions() -> dict[str, str]:
    """Of the peers, as installed."""
    found = {name: version(name) for name in ("uvicorn", "httptools", "aiohttp", "h11")}
    return {**found, "nginx": asyncio.run(nginx_version())}


async def _observe(messages: list[Message], record: Record | None) -> Found:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # peers may fail; that is an outcome
    async with AsyncExitStack() as stack:
        servers: list[Server] = [
            await stack.enter_async_context(opened)
            for opened in (
                penstock(),
                uvicorn_server("h11"),
                uvicorn_server("httptools"),
                aiohttp_server(),
                h11_server(),
                nginx_server(),
            )
        ]
        if record is None:
            return await play_all(servers, messages, PATIENT_TICKS // 2)
        found = await play_all(servers, messages, TICKS)

        def is_expected(server: str, id: str, outcome: str) -> bool:
            return record.outcomes[server].get(id) == outcome

        await play_again(servers, messages, found, is_expected)
        return found
