"""What a client of the matrix hears in the midst of an operation, and what it says when it is asked.

Knows: nothing of any client library. Invariant: keeps what came since the last `forget`, `LIMIT` at most.
"""

from typing import Any

import anyio

LIMIT = 1000
CHANGED_TOOLS = "notifications/tools/list_changed"
UPDATED = "notifications/resources/updated"
LOGGED = "notifications/message"
MODEL_SAYS = "peregrine"
ROOT = "file:///peers/root"


class Ears:
    """Methods that came from the server, each with the words that matter of it."""

    def __init__(self) -> None:
        self.answer = "accept"
        """What the person behind the client does with a form or a page."""
        self.ever: set[str] = set()
        """Every method that came since the session began."""
        self._heard: list[tuple[str, str]] = []
        self._more = anyio.Event()

    def note(self, method: str, words: str = "") -> None:
        """Something came."""
        self.ever.add(method)
        if len(self._heard) < LIMIT:
            self._heard.append((method, words))
        more, self._more = self._more, anyio.Event()
        more.set()

    def forget(self) -> None:
        """Begin anew."""
        self._heard.clear()

    def count(self, method: str, words: str = "") -> int:
        """How often it came."""
        return sum(1 for name, said in self._heard if name == method and words in said)

    async def hear(self, method: str, words: str, seconds: float) -> None:
        """Wait until it came.

        Raises:
            TimeoutError: it did not.
        """
        with anyio.fail_after(seconds):
            while not self.count(method, words):
                await self._more.wait()

    def form(self, schema: dict[str, Any] | None) -> tuple[str, dict[str, Any] | None]:
        """What to do with a form (a page has no schema), and what is in it."""
        self.note("elicitation/create", "url" if schema is None else "form")
        if schema is None or self.answer != "accept":
            return self.answer, None
        properties = schema.get("properties", {})
        return "accept", {name: _filled(properties[name]) for name in schema.get("required", [])}


def _filled(schema: dict[str, Any]) -> Any:
    samples = {"string": "Ada", "integer": 1, "number": 1.5, "boolean": True, "array": []}
    return schema.get("default", samples.get(str(schema.get("type")), "Ada"))
