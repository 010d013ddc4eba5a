"""A mixed load, seeded: clients of both eras that call, ask and are asked, listen, cancel, vanish and come back.

Knows: what clients may do, and what belongs to whom. Does not know: what is broken meanwhile, what is measured.
Invariants: never more than `actors` activities run at a time; every text a client gets holds its own secret, else the run fails.
"""

import asyncio
import contextlib
import json
import random
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from penstock.http.client import HttpClient
from tests.end_to_end.asked_clients import AskedClient, Message, Pending, Stray, reply_for, text_of
from tests.end_to_end.faults_kit import ERAS, Era

KINDS: Final = ("form", "sampling", "roots")
SIZES: Final = (10, 1_000, 20_000, 200_000)
LEVELS: Final = ("debug", "info", "warning", "error")
KNOWN_REASONS: Final = frozenset({"server_unavailable", "server_busy", "deadline_exceeded"})
"""What calls may be refused with while servers are restarted, or asked more than they take."""
LISTEN_SECONDS: Final = 2.0
MUST_HAPPEN: Final = (
    *(f"{what} {era}" for what in ("told progress", "told logs", "heard") for era in ERAS),
    *(f"asked {era} {how}" for era in ERAS for how in ("answers", "refuses", "abandons", "vanishes")),
    "resumed legacy",
)
"""Counts without which a run has not shown what it is there to show."""
MAX_PROBLEMS: Final = 20


class Refused(Exception):
    """The gateway said no, and named the server and a reason."""


class Mix:
    """Runs activities until it is stopped."""

    def __init__(self, url: str, servers: Sequence[str], *, seed: int, actors: int, rest_seconds: float) -> None:
        """`rest_seconds`: the longest a client waits between two visits."""
        self.url, self.servers = url, tuple(servers)
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self._seed, self._actors, self._rest_seconds = seed, actors, rest_seconds
        self._tasks: list[asyncio.Task[None]] = []
        self._is_stopping = False

    def __repr__(self) -> str:
        return f"<Mix seed {self._seed} [{len(self._tasks)} actors] {sum(self.counts.values())} done>"

    def start(self) -> None:
        """Begin."""
        self._tasks = [asyncio.ensure_future(self._act(number)) for number in range(self._actors)]

    async def stop(self) -> None:
        """Let activities end, and wait for them."""
        self._is_stopping = True
        await asyncio.gather(*self._tasks)

    async def once_each(self) -> None:
        """Each era calls each server, so that what is opened once and kept is there before anything is measured.

        Each server asks once, too, before several calls are at work on it: whose its very first question is could not be told
        then (docs/decisions/015).
        """
        async with HttpClient() as http:
            for era in ERAS:
                for server in self.servers:
                    actor = Actor(self, http, random.Random(0), era, server)
                    await actor.open()
                    await actor.calls()
                    await actor.asked("answers")
                    await actor.leave()

    async def _act(self, number: int) -> None:
        chance = random.Random(f"{self._seed} {number}")
        while not self._is_stopping:
            async with HttpClient() as http:  # its connections end with it, in whatever state they are
                for _ in range(chance.randrange(1, 4)):
                    await self._play(Actor(self, http, chance, chance.choice(ERAS), chance.choice(self.servers)))
                    await asyncio.sleep(chance.random() * self._rest_seconds)

    async def _play(self, actor: "Actor") -> None:
        """One client's visit."""
        name = "open"
        try:
            await actor.open()
            for _ in range(actor.chance.randrange(1, 4)):
                name, activity = actor.pick()
                await activity()
                self.counts[name] += 1
                self.counts[f"{actor.client.era} {actor.server}"] += 1
            name = "leave"
            await actor.leave()
        except Refused as error:
            self.counts[f"refused: {error}"] += 1
        except Exception as error:  # whatever it is, it is what the run is there to find
            self._blame(f"{name} of {actor}: {type(error).__name__}: {error}"[:600])

    def _blame(self, problem: str) -> None:
        self.counts["PROBLEMS"] += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)


class Actor:
    """One client during its visit."""

    def __init__(self, mix: Mix, http: HttpClient, chance: random.Random, era: Era, server: str) -> None:
        self.chance, self.server = chance, server
        self.secret = secrets.token_hex(6)
        self.client = AskedClient(http, mix.url, era, seconds=40.0)
        self._counts = mix.counts
        self._number = 0

    def __repr__(self) -> str:
        return f"<Actor {self.client.era} at {self.server} secret {self.secret}>"

    async def open(self) -> None:
        """Begin the visit."""
        await self.client.open()

    async def leave(self) -> None:
        """End the session, or let it lie."""
        if self.client.era == "legacy" and self.chance.random() < 0.5:
            status = await self.client.end()
            assert status == 204, status

    def pick(self) -> tuple[str, Callable[[], Awaitable[None]]]:
        """What to do next, by weight."""
        activities: tuple[tuple[int, Callable[[], Awaitable[None]]], ...] = (
            (8, self.calls),
            (3, self.progress),
            (3, self.logs),
            (6, self.asked),
            (3, self.cancels),
            (3, self.vanishes),
            (3, self.listens),
            (1, self.changes),
            (2, self.lists),
        )
        weights = [weight for weight, _ in activities]
        activity = self.chance.choices([one for _, one in activities], weights)[0]
        return activity.__name__, activity

    # activities

    async def calls(self) -> None:
        for _ in range(self.chance.randrange(1, 6)):
            text, size = self._text(), self.chance.choice(SIZES)
            got = text_of(self._let_pass(await self._call("big", text, bytes=size).answer(40)))
            self._check(got == text + "x" * size, got[:80])

    async def progress(self) -> None:
        text, steps = self._text(), self.chance.randrange(1, 40)
        token = f"token-{text}"
        pending = self._call("progress", text, meta={"progressToken": token}, steps=steps)
        self._check(text_of(self._let_pass(await pending.answer(40))) == text, text)
        for message in pending.messages:
            if message.get("method") == "notifications/progress":
                params = message["params"]
                self._check(params["progressToken"] == token and params["message"] == text, str(params))
                self._counts[f"told progress {self.client.era}"] += 1

    async def logs(self) -> None:
        text, level = self._text(), self.chance.choice(LEVELS)
        if self.client.era == "legacy":
            self._let_pass(await self.client.begin("logging/setLevel", {"level": level}).answer(40))
        self.client.log_level = level
        pending = self._call("logs", text)
        self._check(text_of(self._let_pass(await pending.answer(40))) == text, text)
        self.client.log_level = None
        for message in pending.messages:
            if message.get("method") == "notifications/message":
                params = message["params"]
                self._check(params["data"] == text, str(params))
                self._check(LEVELS.index(params["level"]) >= LEVELS.index(level), str(params))
                self._counts[f"told logs {self.client.era}"] += 1

    async def asked(self, how: str = "") -> None:
        text, kinds = self._text(), self.chance.sample(KINDS, self.chance.randrange(1, 4))
        how = how or self.chance.choices(("answers", "refuses", "abandons", "vanishes"), (6, 2, 1, 1))[0]
        pending = self._call("ask", text, kinds=kinds)
        if self.client.era == "modern":
            await self._asked_modern(pending, text, kinds, how)
        else:
            await self._asked_legacy(pending, text, kinds, how)
        self._counts[f"asked {self.client.era} {how}"] += 1

    async def _asked_modern(self, pending: Pending, text: str, kinds: list[str], how: str) -> None:
        if how == "vanishes":
            await asyncio.sleep(self.chance.random() * 0.05)
            await pending.vanish()
            return
        asked = self._let_pass(await pending.answer(40))["result"]
        self._check("inputRequests" in asked, str(asked))
        replies = {}
        for key, request in asked.get("inputRequests", {}).items():
            self._check_question(request, text)
            replies[key] = self._reply(request["method"], how)
        if how == "abandons":
            return
        retry = self._call("ask", text, kinds=kinds, beside={**_state(asked), "inputResponses": replies})
        answer = self._let_pass(await retry.answer(40))
        if "error" not in answer:
            self._check_replies(text_of(answer), text, how)

    async def _asked_legacy(self, pending: Pending, text: str, kinds: list[str], how: str) -> None:
        assert pending.task is not None
        for _ in kinds:
            asking = asyncio.ensure_future(pending.asked(40))
            await asyncio.wait((asking, pending.task), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                asking.cancel()
                break
            question = asking.result()
            self._check_question(question, text)
            if how in {"abandons", "vanishes"}:
                break
            await self.client.reply(question, self._reply(question["method"], how))
        if how == "vanishes":
            await pending.vanish()
            return
        answer = await pending.answer(40)
        if how == "abandons" and "in time" in answer.get("error", {}).get("message", ""):
            return
        self._check_replies(text_of(self._let_pass(answer)), text, how)

    async def cancels(self) -> None:
        pending = self._call("slow", self._text(), seconds=20)
        await asyncio.sleep(self.chance.random() * 0.1)
        if self.client.era == "modern":
            await pending.vanish()
            return
        params = {"requestId": pending.id, "reason": "enough"}
        await self.client.send({"method": "notifications/cancelled", "params": params})
        answer = self._let_pass(await pending.answer(40))
        self._check("result" not in answer, str(answer))

    async def vanishes(self) -> None:
        """The connection is lost; a legacy client comes back for the rest if it knows how."""
        text = self._text()
        pending = self._call("progress", text, meta={"progressToken": text}, steps=200)
        await asyncio.sleep(self.chance.random() * 0.02)
        await pending.vanish()
        if self.client.era == "legacy" and pending.last_event_id:
            rest = self.client.stream(pending.last_event_id)
            rest.id = pending.id
            with contextlib.suppress(TimeoutError):
                answer = await rest.answer(5.0)
                if "result" in answer:
                    self._check(text_of(answer) == text, str(answer)[:200])
                    self._counts["resumed legacy"] += 1
            await rest.vanish()

    async def listens(self) -> None:
        name = self.server.removeprefix("h-")
        uri = f"desk://{name}/{self.chance.randrange(8)}"
        pending = self.client.listen((uri,))
        pending.hook = self._hears(pending, uri)
        try:
            if self.client.era == "modern":
                await pending.heard("notifications/subscriptions/acknowledged", 15.0)
            else:
                self._let_pass(await self.client.begin("resources/subscribe", {"uri": uri}).answer(40))
            self._let_pass(
                await self._call("touch", self._text(), uri=uri, times=self.chance.randrange(1, 50)).answer(40)
            )
            with contextlib.suppress(TimeoutError):  # a server that has just been restarted tells of nothing
                await pending.heard("notifications/resources/updated", LISTEN_SECONDS)
                self._counts[f"heard {self.client.era}"] += 1
            if self.client.era == "legacy" and self.chance.random() < 0.5:
                await self.client.begin("resources/unsubscribe", {"uri": uri}).answer(40)
        finally:
            await pending.vanish()

    async def changes(self) -> None:
        text = self._text()
        self._check(text_of(self._let_pass(await self._call("change", text, times=3).answer(40))) == text, text)

    async def lists(self) -> None:
        for method in ("tools/list", "resources/list"):
            answer = await self.client.begin(method).answer(40)
            self._check(bool(answer["result"][method.partition("/")[0]]), str(answer)[:200])

    # what belongs to whom

    def _text(self) -> str:
        self._number += 1
        return f"{self.secret}.{self._number}"

    def _call(
        self, tool: str, text: str, *, meta: Message | None = None, beside: Message | None = None, **more: Any
    ) -> Pending:
        return self.client.call(f"{self.server}_{tool}", {"text": text, **more}, meta=meta, **(beside or {}))

    def _let_pass(self, answer: Message) -> Message:
        """An answer that is a result, or that a call was cancelled or not answered in time; a refusal that may be is raised."""
        error = answer.get("error")
        if error is None:
            return answer
        found = error.get("data") or {}
        if isinstance(found, dict) and found.get("reason") in KNOWN_REASONS and "server" in found:
            raise Refused(f"{found['server']} {found['reason']}")
        raise AssertionError(f"no refusal that may be: {answer}")

    @staticmethod
    def _check(holds: bool, what: str) -> None:
        if not holds:
            raise Stray(what)

    def _check_question(self, question: Message, text: str) -> None:
        said = json.dumps(question)
        self._check(question["method"] == "roots/list" or text in said, said[:300])

    def _check_replies(self, got: str, text: str, how: str) -> None:
        found = json.loads(got)
        self._check(found["text"] == text, got[:300])
        if how == "answers":
            said = [json.dumps(reply) for reply in found["replies"].values()]
            self._check(all(self.secret in reply for reply in said), got[:300])

    def _reply(self, method: str, how: str) -> Message:
        if how == "refuses" and method == "elicitation/create":
            return {"action": "decline"}
        return reply_for(method, self.secret)

    def _hears(self, pending: Pending, uri: str) -> Callable[[Message], None]:
        def hear(message: Message) -> None:
            params = message.get("params", {})
            if self.client.era == "modern" and "method" in message:
                self._check(params["_meta"]["io.modelcontextprotocol/subscriptionId"] == pending.id, str(message))
            if message.get("method") == "notifications/resources/updated":
                self._check(params["uri"] == uri, str(message))

        return hear


def _state(asked: Message) -> Message:
    return {"requestState": asked["requestState"]} if "requestState" in asked else {}
