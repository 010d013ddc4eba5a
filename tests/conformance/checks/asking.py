"""Checks of asking.toml: what servers ask of clients."""

import contextlib

from tests.conformance.checking import check
from tests.conformance.checks.messages import plain_requests
from tests.conformance.dialogue import Dialogue
from tests.conformance.plain_client import answer
from tests.conformance.scene import Scene
from tests.conformance.wire import Json
from tests.peers.servers import conformance_content as content

FORM = "test_input_required_result_elicitation"
FORM_WITH_STATE = "test_input_required_result_request_state"
THREE = "test_input_required_result_multiple_inputs"


def only(questions: dict[str, Json]) -> Json:
    """The one question."""
    assert len(questions) == 1, questions
    return next(iter(questions.values()))


@check("questions-reach-the-client")
def each_kind_of_question_reaches_the_client(scene: Scene) -> None:
    for tool, method in (
        (FORM, "elicitation/create"),
        ("test_input_required_result_sampling", "sampling/createMessage"),
        ("test_input_required_result_list_roots", "roots/list"),
    ):
        dialogue = Dialogue(scene, tool)
        asked = only(dialogue.questions())
        assert asked["method"] == method, asked
        dialogue.reply.close()


@check("questions-are-requests-to-legacy-clients")
def a_legacy_client_is_asked_by_a_request_on_the_calls_stream(scene: Scene) -> None:
    dialogue = Dialogue(scene, FORM)
    asked = dialogue.reply.next()
    assert asked["method"] == "elicitation/create", asked
    assert type(asked["id"]) in {str, int}, asked
    dialogue.say({asked["id"]: answer(asked)})
    assert "accept" in dialogue.text


@check("input-is-required-on-three-methods")
def input_is_required_on_no_other_method(scene: Scene) -> None:
    for method, result in plain_requests(scene).items():
        assert result["resultType"] != "input_required", method


@check("prompts-may-ask")
def a_prompt_may_ask(scene: Scene) -> None:
    dialogue = Dialogue(scene, "test_input_required_result_prompt", "prompts/get").carry_on()
    assert "accept" in dialogue.reply.result["messages"][0]["content"]["text"]


@check("input-required-asks-or-has-state")
def a_result_that_asks_asks_or_has_state(scene: Scene) -> None:
    for tool in (FORM, FORM_WITH_STATE):
        result = scene.call(tool).result
        assert result["resultType"] == "input_required", result
        assert result.get("inputRequests") or result.get("requestState"), result


@check("forms-are-complete")
def a_form_is_as_the_server_wrote_it(scene: Scene) -> None:
    for tool, form in (
        ("test_elicitation_sep1034_defaults", content.DEFAULTS_FORM),
        ("test_elicitation_sep1330_enums", content.ENUMS_FORM),
    ):
        dialogue = Dialogue(scene, tool)
        asked = only(dialogue.questions())["params"]
        assert asked["message"] == form["params"]["message"], asked
        assert asked["requestedSchema"] == form["params"]["requestedSchema"], asked
        assert asked.get("mode", "form") == "form", asked
        dialogue.reply.close()


@check("sampling-is-complete")
def a_question_to_the_model_is_as_the_server_wrote_it(scene: Scene) -> None:
    dialogue = Dialogue(scene, "test_input_required_result_sampling")
    asked = only(dialogue.questions())["params"]
    said = [(message["role"], message["content"]) for message in asked["messages"]]
    assert said in (
        [("user", content.text("What is the capital of France?"))],
        [("user", [content.text("What is the capital of France?")])],
    )
    assert asked["maxTokens"] == 100, asked
    dialogue.reply.close()


@check("answers-reach-the-server", back=True)
def an_answer_reaches_the_server(scene: Scene) -> None:
    dialogue = Dialogue(scene, FORM).carry_on(answer=lambda _: {"action": "accept", "content": {"name": "Adà"}})
    assert "Adà" in dialogue.text


@check("declining-is-an-answer", back=True)
def declining_is_an_answer(scene: Scene) -> None:
    for action in ("decline", "cancel"):
        dialogue = Dialogue(scene, FORM)
        dialogue.say({key: {"action": action} for key in dialogue.questions()})
        assert f"'{action}'" in dialogue.text


@check("side-by-side-questions-keep-their-answers")
def questions_side_by_side_keep_their_answers(scene: Scene) -> None:
    dialogue = Dialogue(scene, THREE)
    questions = dialogue.questions(3)
    assert sorted(question["method"] for question in questions.values()) == [
        "elicitation/create",
        "roots/list",
        "sampling/createMessage",
    ]
    dialogue.say({key: answer(question) for key, question in reversed(questions.items())})
    text = dialogue.text
    assert "'user_name': {'action': 'accept'" in text, text
    assert "'greeting': {'role'" in text, text
    assert "'client_roots': {'roots': []" in text, text


@check("rounds-follow-each-other")
def a_server_may_ask_twice(scene: Scene) -> None:
    dialogue = Dialogue(scene, "test_input_required_result_multi_round")
    first = dialogue.questions()
    assert only(first)["params"]["message"].startswith("Step 1")
    dialogue.say({key: answer(question) for key, question in first.items()})
    second = dialogue.questions()
    assert only(second)["params"]["message"].startswith("Step 2")
    dialogue.say({key: answer(question) for key, question in second.items()})
    assert "done" in dialogue.text or "color" in dialogue.text


@check("state-goes-back-as-it-came", back=True)
def a_servers_state_goes_back_as_it_came(scene: Scene) -> None:
    dialogue = Dialogue(scene, FORM_WITH_STATE).carry_on()
    first, second = (note for note in scene.sent if note.method == "tools/call")
    assert second.message["params"]["requestState"] == first.answers[-1]["result"]["requestState"]
    assert "accept" in dialogue.text


@check("no-state-no-state", back=True)
def a_server_that_gave_no_state_is_sent_none(scene: Scene) -> None:
    dialogue = Dialogue(scene, FORM)
    first = scene.sent_call().message["params"]
    assert "requestState" not in first, first
    dialogue.carry_on().reply.read()
    _, second = (note.message["params"] for note in scene.sent if note.method == "tools/call")
    assert "requestState" not in second, second


@check("a-retry-has-another-id", back=True)
def a_retry_has_another_id(scene: Scene) -> None:
    Dialogue(scene, FORM).carry_on().reply.read()
    first, second = (note.message["id"] for note in scene.sent if note.method == "tools/call")
    assert first != second


@check("changed-state-is-refused")
def a_changed_state_is_refused(scene: Scene) -> None:
    dialogue = Dialogue(scene, "test_input_required_result_tampered_state")
    state = dialogue.reply.result["requestState"]
    said = {key: answer(question) for key, question in dialogue.questions().items()}
    for changed in (state[:-2], "A" + state, state[::-1], "made up"):
        params = {"inputResponses": said, "requestState": changed}
        assert scene.call("test_input_required_result_tampered_state", params=params).error["code"] == -32602


@check("state-is-of-one-request", direct=False)
def a_state_is_good_for_its_own_request(scene: Scene) -> None:
    dialogue = Dialogue(scene, FORM_WITH_STATE)
    said = {key: answer(question) for key, question in dialogue.questions().items()}
    params = {"inputResponses": said, "requestState": dialogue.reply.result["requestState"]}
    assert scene.call("test_streaming_elicitation", params=params).error["code"] == -32602
    assert scene.call(FORM_WITH_STATE, {"other": 1}, params=params).error["code"] == -32602
    dialogue.say(said)
    assert "accept" in dialogue.text


@check("missing-answers-are-asked-for-again")
def a_missing_answer_is_asked_for_again(scene: Scene) -> None:
    dialogue = Dialogue(scene, FORM_WITH_STATE)
    first = only(dialogue.questions())
    dialogue.say({})
    again = only(dialogue.questions())
    assert again["params"]["message"] == first["params"]["message"]
    assert "accept" in dialogue.carry_on().text


@check("unasked-answers-are-ignored")
def an_answer_nobody_asked_for_is_ignored(scene: Scene) -> None:
    dialogue = Dialogue(scene, FORM_WITH_STATE)
    said = {key: answer(question) for key, question in dialogue.questions().items()}
    dialogue.say({**said, "nobody_asked": {"action": "decline"}})
    assert "accept" in dialogue.text
    assert "nobody_asked" not in dialogue.text


@check("malformed-answers-are-errors", direct=False)
def malformed_answers_are_an_error(scene: Scene) -> None:
    dialogue = Dialogue(scene, FORM_WITH_STATE)
    dialogue.questions()
    params = {"inputResponses": ["no object"], "requestState": dialogue.reply.result["requestState"]}
    assert type(scene.call(FORM_WITH_STATE, params=params).error["code"]) is int
    assert "accept" in dialogue.carry_on().text


def _asked(scene: Scene, tool: str, declared: Json) -> set[str]:
    """The methods that a client which declared that is asked."""
    reply = scene.call(tool, capabilities=declared)
    if scene.is_modern:
        said = reply.response()
        return {request["method"] for request in said.get("result", {}).get("inputRequests", {}).values()}
    asked = set()
    while (message := reply.next()) is not None and "method" in message:
        if "id" in message:
            asked.add(message["method"])
            scene.session().answer(message, **answer(message)).close()
    return asked


@check("undeclared-is-not-asked", direct=False)
def a_client_is_not_asked_what_it_did_not_declare(scene: Scene) -> None:
    assert _asked(scene, FORM, {"sampling": {}, "roots": {}}) == set()
    assert _asked(scene.another(), "test_input_required_result_sampling", {}) == set()


check("undeclared-is-not-asked-between-modern-peers", direct=False)(a_client_is_not_asked_what_it_did_not_declare)


@check("declared-capabilities-decide-what-is-asked")
def what_is_asked_is_what_was_declared(scene: Scene) -> None:
    tool = "test_input_required_result_capabilities"
    assert _asked(scene, tool, {"sampling": {}}) == {"sampling/createMessage"}
    other = scene.another()
    assert _asked(other, tool, {"elicitation": {"form": {}}}) == {"elicitation/create"}


@check("answers-to-servers-are-posts-of-their-own", back=True)
def an_answer_is_a_post_with_the_servers_id(scene: Scene) -> None:
    dialogue = Dialogue(scene, FORM)
    with contextlib.suppress(AssertionError):  # what the server makes of it is looked at last
        dialogue.carry_on()
    call = scene.sent_call()
    said = scene.sent_when(lambda note: isinstance(note.message, dict) and "result" in note.message)
    assert said is not None
    asked = next(message for message in call.answers if message and "id" in message and "method" in message)
    assert said.message["id"] == asked["id"], said.message
    assert type(said.message["id"]) is type(asked["id"]), said.message
    assert said.headers.get("mcp-session-id") == call.headers["mcp-session-id"]
    assert "accept" in dialogue.text
