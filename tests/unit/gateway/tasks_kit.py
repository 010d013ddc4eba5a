"""A modern server that makes tasks of its calls, and clients that take them."""

import asyncio
from typing import Any, Final

from msgspec import Raw, json

from penstock.protocol.versions import Era
from penstock.upstreams.in_memory import CallContext, InMemoryServer, InMemoryUpstream, Refused
from tests.unit.gateway.asking import CAPABILITIES, FORM
from tests.unit.gateway.conftest import MODERN_META, Running, plan_of

EXTENSION: Final = "io.modelcontextprotocol/tasks"
TAKES_TASKS: Final[dict[str, Any]] = {"extensions": {EXTENSION: {}}, "elicitation": {}}
TASKS_META: Final = MODERN_META | {CAPABILITIES: TAKES_TASKS}
CALL: Final[dict[str, Any]] = {"name": "jobs_work", "arguments": {}}
SEEN: Final = {"createdAt": "2026-01-01T00:00:00Z", "lastUpdatedAt": "2026-01-01T00:00:00Z", "ttlMs": 60_000}
"""What stands in every task of the server's."""


class Jobs:
    """The server: `work` becomes a task that wants to know a name, and then is done."""

    def __init__(self, era: Era = Era.MODERN) -> None:
        self.server = InMemoryServer("jobs", era=era)
        self.server.more_capabilities = {"extensions": {EXTENSION: {}, "com.example/other": {"level": 2}}}
        self.upstream = InMemoryUpstream("jobs", self.server)
        self.created: dict[str, Any] = {"taskId": "job-1", "status": "working"} | SEEN
        self.said: dict[str, Any] = {}
        self.asks: Any = {"name": {"method": "elicitation/create", "params": FORM}}
        self.listens: list[asyncio.Event] = []
        """One for each `subscriptions/listen`; set, it ends."""
        self.honours = True
        self._hear: Any = None
        self.server.tool("work", input_schema={"type": "object"})(self._work)
        self.server.method("tasks/get")(self._get)
        self.server.method("tasks/update")(self._update)
        self.server.method("tasks/cancel")(self._cancel)
        self.server.method("subscriptions/listen")(self._listen)

    def asked(self, method: str) -> list[dict[str, Any]]:
        """The params of what came of that method."""
        return [
            {key: json.decode(value) for key, value in call.params.items()}
            for call in self.upstream.calls
            if call.method == method
        ]

    async def _work(self, _arguments: dict[str, Any], _context: CallContext) -> Any:
        return {"resultType": "task"} | self.created

    async def _get(self, params: dict[str, Any], _context: CallContext) -> Any:
        self._known(params)
        if self.said:
            result = {"content": [{"type": "text", "text": str(self.said)}]}
            return {"taskId": "job-1", "status": "completed", "result": result} | SEEN
        return {"taskId": "job-1", "status": "input_required", "inputRequests": self.asks} | SEEN

    async def _update(self, params: dict[str, Any], _context: CallContext) -> Any:
        self._known(params)
        self.said |= params["inputResponses"]
        return {}

    async def _cancel(self, params: dict[str, Any], _context: CallContext) -> Any:
        self._known(params)
        return {}

    async def _listen(self, params: dict[str, Any], context: CallContext) -> Any:
        wanted = params["notifications"].get("taskIds", [])
        hear = context.call.hear
        assert hear is not None
        over = asyncio.Event()
        self.listens.append(over)
        self._hear = hear
        known = [task for task in wanted if task == "job-1" and self.honours]
        hear("notifications/subscriptions/acknowledged", {"notifications": Raw(json.encode({"taskIds": known}))})
        await over.wait()
        return {}

    def tell(self, task: str, status: str) -> None:
        """Say on the last listen how a task gets on."""
        params = {"taskId": task, "status": status, "_meta": {"io.modelcontextprotocol/subscriptionId": 3, "k": 1}}
        self._hear("notifications/tasks", {key: Raw(json.encode(value)) for key, value in (params | SEEN).items()})

    @staticmethod
    def _known(params: dict[str, Any]) -> None:
        if params["taskId"] != "job-1":
            raise Refused(-32602, "Task not found")


async def with_jobs(running: Running, era: Era = Era.MODERN, **plan: Any) -> Jobs:
    """The gateway gets that server alone, under the name `jobs`."""
    jobs = Jobs(era)
    await running.gateway.apply({"jobs": plan_of("jobs", lambda: jobs.upstream, **plan)}, ())
    await running.listed()
    return jobs


async def ask(running: Running, method: str, params: dict[str, Any], **more: Any) -> Any:
    """A request of a client that takes tasks."""
    return await running.modern(method, params, meta={CAPABILITIES: TAKES_TASKS}, **more)


async def new_task(running: Running, **more: Any) -> str:
    """Call the tool; the id of the task it becomes."""
    answer = await ask(running, "tools/call", CALL, **more)
    assert answer["result"]["resultType"] == "task", answer
    return str(answer["result"]["taskId"])
