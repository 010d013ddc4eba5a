"""A call in the course of which the client is asked, in the words of either era.

Knows: `input_required` and retries; requests on a call's stream. Does not know: what is asked, or what should be said to it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from tests.conformance.plain_client import answer as plain_answer
from tests.conformance.scene import Scene
from tests.conformance.wire import Json, Reply


class Dialogue:
    """One call. `ask_for` names a method and its parameters; the default is a tool by its name."""

    def __init__(self, scene: Scene, tool: str, method: str = "tools/call", **more: Any) -> None:
        self._scene = scene
        self._method = method
        self._params: Json = {"name": tool}
        if method == "tools/call":
            self._params["arguments"] = more.pop("arguments", {})
        self._more = more
        self.reply: Reply = scene.ask(method, self._params, **more)
        self.last = ""
        """The id of the last event that was read, where somebody noted it."""

    def questions(self, count: int = 1) -> dict[Any, Json]:
        """What the client is asked, by key: the name in `inputRequests`, or the request's id."""
        if self._scene.is_modern:
            result = self.reply.result
            assert result["resultType"] == "input_required", result
            asked: dict[Any, Json] = result.get("inputRequests", {})
            return asked
        return {said["id"]: said for said in (self.reply.until(_is_request) for _ in range(count))}

    def say(self, answers: Mapping[Any, Json] | None, **more: Any) -> None:
        """Answer; a modern client does it by asking again, with the state it was given and `more` parameters."""
        if self._scene.is_modern:
            again: Json = {} if answers is None else {"inputResponses": dict(answers)}
            state = self.reply.result.get("requestState")
            again |= {} if state is None else {"requestState": state}
            self.reply = self._scene.ask(self._method, {**self._params, **again, **more}, **self._more)
            return
        for request_id, said in (answers or {}).items():
            taken = self._scene.session().answer({"id": request_id}, **said)
            assert taken.status == 202, taken

    def carry_on(self, count: int = 1, answer: Callable[[Json], Json] = plain_answer) -> "Dialogue":
        """Answer what is asked, each as `answer` says."""
        self.say({key: answer(question) for key, question in self.questions(count).items()})
        return self

    @property
    def text(self) -> str:
        """The text of the call's result."""
        result = self.reply.result
        assert "content" in result, result
        return str(result["content"][0]["text"])


def _is_request(message: Any) -> bool:
    return "method" in message and "id" in message
