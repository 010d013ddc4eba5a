"""Tasks of 2026-07-28, as the official suite asks for them: tools whose calls go on after they were answered.

Knows: what becomes of a task. Does not know: the other tools, transports. Clients that do not take tasks, and those of older
revisions, get the result itself, but from a tool that is nothing without a task.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal

import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from tests.peers.servers import conformance_content as content

EXTENSION: Final = "io.modelcontextprotocol/tasks"
SECOND: Final = 0.1
"""How long a second of the suite's lasts here."""
Result = dict[str, Any]
Run = Callable[["Task"], Awaitable[Result]]
TASKS: Final[dict[str, "Task"]] = {}


class AboutTask(types.RequestParams):
    """Parameters of all requests about tasks."""

    task_id: str
    input_responses: dict[str, Any] | None = None


class Task:
    """One call that goes on."""

    def __init__(self, run: Run) -> None:
        self.id: Final = secrets.token_urlsafe(24)
        self._created = self._updated = _now()
        self._outcome: Result = {}
        self._status: Literal["working", "completed", "failed", "cancelled"] = "working"
        self._open: dict[str, Any] = {}
        self._said: dict[str, Any] = {}
        self._answered = asyncio.Event()
        TASKS[self.id] = self
        self._work: Final = asyncio.create_task(self._run(run))

    async def ask(self, requests: dict[str, Any]) -> dict[str, Any]:
        """What the client says to all of them."""
        self._open = dict(requests)
        self._answered.clear()
        await self._answered.wait()
        return self._said

    def update(self, responses: dict[str, Any]) -> None:
        """Take answers to what was asked."""
        for key in self._open.keys() & responses.keys():
            self._said[key] = responses[key]
            del self._open[key]
        if not self._open:
            self._answered.set()

    def cancel(self) -> None:
        """Stop, unless it is over."""
        self._work.cancel()

    @property
    def state(self) -> Result:
        """What `tasks/get` says."""
        asks: Result = {"status": "input_required", "inputRequests": self._open} if self._open else {}
        return self.seed | asks | self._outcome

    @property
    def seed(self) -> Result:
        """What a call that becomes a task is answered with."""
        return {
            "taskId": self.id,
            "status": self._status,
            "createdAt": self._created,
            "lastUpdatedAt": self._updated,
            "ttlMs": 600_000,
            "pollIntervalMs": 100,
        }

    async def _run(self, run: Run) -> None:
        try:
            self._outcome = {"result": await run(self)}
            self._status = "completed"
        except MCPError as error:
            self._outcome = {"error": {"code": error.error.code, "message": error.error.message}}
            self._status = "failed"
        except asyncio.CancelledError:
            self._open, self._status = {}, "cancelled"
        self._updated = _now()


def _now() -> str:
    return datetime.now(UTC).isoformat()


def takes_tasks(ctx: Any) -> bool:
    """Whether the client of a request has said so."""
    has = ctx.session.client_capabilities if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS else None
    return has is not None and EXTENSION in (has.extensions or {})


def missing() -> MCPError:
    """The error for a client that has not."""
    needed = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
    return MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "This needs the tasks extension", needed)


def becomes(run: Run) -> Result:
    """The answer of a call that becomes a task."""
    return {"resultType": "task", **Task(run).seed}


def _text(words: str, *, is_error: bool = False) -> Result:
    return {"content": [content.text(words)], "isError": is_error}


async def greet(ctx: Any, params: Any) -> Result:
    """Never a task."""
    return _text(f"Hello, {(params.arguments or {}).get('name', '')}!")


async def slow_compute(ctx: Any, params: Any) -> Result:
    """A task for who takes it."""
    seconds = float((params.arguments or {}).get("seconds", 1))

    async def run(task: Task | None) -> Result:
        await asyncio.sleep(seconds * SECOND)
        return _text(f"computed for {seconds:g} s")

    return becomes(run) if seconds and takes_tasks(ctx) else await run(None)


async def failing_job(ctx: Any, params: Any) -> Result:
    """Nothing without a task; the tool fails."""

    async def run(task: Task) -> Result:
        await asyncio.sleep(SECOND)
        return _text("the job has failed", is_error=True)

    if not takes_tasks(ctx):
        raise missing()
    return becomes(run)


async def protocol_error_job(ctx: Any, params: Any) -> Result:
    """The call itself goes wrong."""

    async def run(task: Task) -> Result:
        raise MCPError(types.INTERNAL_ERROR, "the job could not be run")

    if not takes_tasks(ctx):
        raise missing()
    return becomes(run)


def _asking(requests: dict[str, Any]) -> Callable[[Any, Any], Awaitable[Result]]:
    async def tool(ctx: Any, params: Any) -> Result:
        async def run(task: Task) -> Result:
            return _text(f"The client said: {await task.ask(requests)}")

        if not takes_tasks(ctx):
            raise missing()
        return becomes(run)

    return tool


async def with_question_first(ctx: Any, params: Any) -> Result:
    """Asks before it becomes a task."""
    if not takes_tasks(ctx):
        raise missing()
    said = (params.input_responses or {}).get("user_name")
    if said is None:
        return {"resultType": "input_required", "inputRequests": {"user_name": content.NAME_FORM}, "requestState": "1"}
    answer = said.model_dump(by_alias=True, mode="json", exclude_none=True)

    async def run(task: Task) -> Result:
        return _text(f"The client said: {answer}")

    return becomes(run)


_ANYTHING: Final = {"type": "object"}
_CONFIRM: Final = content.form("Delete it?", {"confirm": {"type": "boolean"}}, "confirm")
_NAME: Final = content.form("Who are you?", {"name": content.STRING}, "name")
TOOLS: Final[dict[str, tuple[str, dict[str, Any], Callable[[Any, Any], Awaitable[Result]]]]] = {
    "greet": ("Greets", _ANYTHING, greet),
    "slow_compute": ("Takes its time", _ANYTHING, slow_compute),
    "failing_job": ("Fails as a task", _ANYTHING, failing_job),
    "protocol_error_job": ("Goes wrong as a task", _ANYTHING, protocol_error_job),
    "confirm_delete": ("Asks as a task", _ANYTHING, _asking({"confirm": _CONFIRM})),
    "multi_input": ("Asks two things as a task", _ANYTHING, _asking({"who": _NAME, "sure": _CONFIRM})),
    "test_tool_with_task": ("Asks, then becomes a task", _ANYTHING, with_question_first),
}


def add_tasks(server: Server[Any]) -> None:
    """Serve requests about tasks."""

    def about(answer: Callable[[Task, AboutTask], Result]) -> Any:
        async def handle(ctx: Any, params: AboutTask) -> Result:
            if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
                raise MCPError(types.METHOD_NOT_FOUND, "Method not found")
            if not takes_tasks(ctx):
                raise missing()
            task = TASKS.get(params.task_id)
            if task is None:
                raise MCPError(types.INVALID_PARAMS, "Task not found")
            return {"resultType": "complete", **answer(task, params)}

        return handle

    def update(task: Task, params: AboutTask) -> Result:
        task.update(params.input_responses or {})
        return {}

    def cancel(task: Task, _params: AboutTask) -> Result:
        task.cancel()
        return {}

    for method, answer in (("get", lambda task, _params: task.state), ("update", update), ("cancel", cancel)):
        server.add_request_handler(f"tasks/{method}", AboutTask, about(answer))
    server.extensions[EXTENSION] = {}
