"""Checks of features.toml: tools, prompts, resources, completion."""

from typing import Any

from tests.conformance.checking import check
from tests.conformance.scene import TAKES_TASKS, Scene
from tests.peers.servers import conformance_content as content


@check("tools-are-listed")
def all_tools_are_listed(scene: Scene) -> None:
    names = {tool["name"] for tool in scene.ask("tools/list").result["tools"]}
    assert names >= {*content.FIXED_TOOLS, *content.ASKING_TOOLS, "test_error_handling", "test_x_mcp_header"}


@check("prompts-are-listed")
def all_prompts_are_listed(scene: Scene) -> None:
    assert [prompt["name"] for prompt in scene.ask("prompts/list").result["prompts"]] == list(content.PROMPTS)


@check("resources-are-listed")
def all_resources_are_listed(scene: Scene) -> None:
    listed = scene.ask("resources/list").result["resources"]
    assert [resource["uri"] for resource in listed] == list(content.RESOURCES)
    templates = scene.ask("resources/templates/list").result["resourceTemplates"]
    assert [template["uriTemplate"] for template in templates] == [content.TEMPLATE]


@check("lists-do-not-depend-on-the-connection", changes=True)
def a_list_is_the_same_for_whoever_asks(scene: Scene) -> None:
    first = scene.ask("tools/list").result["tools"]
    scene.call("test_trigger_tool_change").read()
    other = scene.another()
    assert other.ask("tools/list", capabilities={}).result["tools"] == first


@check("lists-have-an-order")
def a_list_comes_in_the_same_order(scene: Scene) -> None:
    for method in ("tools/list", "prompts/list", "resources/list"):
        key = method.partition("/")[0]
        first, second = (scene.ask(method).result[key] for _ in range(2))
        assert first == second, method


@check("schemas-are-left-alone")
def a_schema_is_passed_on_whole(scene: Scene) -> None:
    tools = {tool["name"]: tool for tool in scene.ask("tools/list").result["tools"]}
    assert tools["json_schema_2020_12_tool"]["inputSchema"] == content.JSON_SCHEMA_2020_12
    assert tools["test_x_mcp_header"]["inputSchema"] == content.HEADER_ARGUMENT


@check("a-failing-tool-is-a-result")
def a_tool_that_fails_has_a_result(scene: Scene) -> None:
    reply = scene.call("test_error_handling")
    assert reply.result["isError"] is True, reply
    assert reply.status == 200, reply


@check("unknown-names-are-invalid-params")
def an_unknown_name_is_invalid_params(scene: Scene) -> None:
    assert scene.call("no_such_tool").error["code"] == -32602
    assert scene.ask("prompts/get", {"name": "no_such_prompt"}).error["code"] == -32602


@check("missing-resource-is-32602")
def a_missing_resource_is_invalid_params_to_modern_clients(scene: Scene) -> None:
    for uri in ("test://nothing", "other://nothing"):
        assert scene.ask("resources/read", {"uri": uri}).error["code"] == -32602, uri


@check("missing-resource-is-32002")
def a_missing_resource_is_not_found_to_legacy_clients(scene: Scene) -> None:
    for uri in ("test://nothing", "other://nothing"):
        assert scene.ask("resources/read", {"uri": uri}).error["code"] == -32002, uri
    assert scene.ask("prompts/get", {"name": "no_such_prompt"}).error["code"] == -32602


@check("missing-resource-is-not-empty")
def a_missing_resource_is_no_result(scene: Scene) -> None:
    reply = scene.ask("resources/read", {"uri": "test://nothing"}).read()
    assert "result" not in reply.seen[-1], reply
    assert reply.seen[-1]["error"], reply


@check("resources-are-read-whole")
def what_is_read_is_whole(scene: Scene) -> None:
    for uri, held in content.RESOURCES.items():
        assert scene.ask("resources/read", {"uri": uri}).result["contents"] == [{"uri": uri, **held}]
    from_template = scene.ask("resources/read", {"uri": "test://template/7/data"}).result["contents"][0]
    assert '"id": "7"' in from_template["text"]


@check("media-in-prompts-keep-their-type")
def media_in_prompts_keep_their_type(scene: Scene) -> None:
    image = scene.ask("prompts/get", {"name": "test_prompt_with_image"}).result["messages"][0]
    assert image == {"role": "user", "content": content.IMAGE}
    given = {"name": "test_prompt_with_embedded_resource", "arguments": {"resourceUri": "test://mine"}}
    resource = scene.ask("prompts/get", given).result["messages"][0]["content"]["resource"]
    assert (resource["uri"], resource["mimeType"], bool(resource["text"])) == ("test://mine", "text/plain", True)


@check("prompts-get-their-arguments")
def a_prompt_gets_its_arguments(scene: Scene) -> None:
    given = {"name": "test_prompt_with_arguments", "arguments": {"arg1": "Ada", "arg2": "ž"}}
    said = scene.ask("prompts/get", given).result["messages"][0]["content"]["text"]
    assert said == "Prompt with arguments: arg1='Ada', arg2='ž'"


@check("completions-reach-the-server-meant")
def a_completion_comes_back_whole(scene: Scene) -> None:
    for ref in (
        {"type": "ref/prompt", "name": "test_prompt_with_arguments"},
        {"type": "ref/resource", "uri": content.TEMPLATE},
    ):
        asked = {"ref": ref, "argument": {"name": "arg1", "value": "par"}}
        said = scene.ask("completion/complete", asked).result["completion"]
        assert said == {"values": ["paris", "park", "party"], "total": 3, "hasMore": False}, said


@check("bad-completions-are-invalid-params", direct=False)
def a_completion_of_nothing_is_invalid_params(scene: Scene) -> None:
    asked = {"ref": {"type": "ref/nothing"}, "argument": {"name": "a", "value": ""}}
    assert scene.ask("completion/complete", asked).error["code"] == -32602


@check("names-have-case")
def names_differ_by_case(scene: Scene) -> None:
    assert scene.call("TEST_SIMPLE_TEXT").error["code"] == -32602


@check("tasks-can-be-asked-about")
def a_task_is_asked_about_and_cancelled(scene: Scene) -> None:
    made = scene.call("slow_compute", {"seconds": 60}, capabilities=TAKES_TASKS).result
    assert (made["resultType"], made["status"]) == ("task", "working")
    about = {"taskId": made["taskId"]}
    found = scene.ask("tasks/get", about, capabilities=TAKES_TASKS).result
    assert (found["resultType"], found["taskId"], found["status"]) == ("complete", made["taskId"], "working")
    answers: dict[str, Any] = {"inputResponses": {}}
    for method, params in (("tasks/update", about | answers), ("tasks/cancel", about)):
        assert scene.ask(method, params, capabilities=TAKES_TASKS).result["resultType"] == "complete"


@check("tasks-need-the-extension")
def who_takes_no_tasks_cannot_ask_about_them(scene: Scene) -> None:
    made = scene.call("slow_compute", {"seconds": 60}, capabilities=TAKES_TASKS).result
    refused = scene.ask("tasks/get", {"taskId": made["taskId"]}).error
    assert (refused["code"], refused["data"]) == (-32021, {"requiredCapabilities": TAKES_TASKS})
    assert "taskId" not in scene.call("slow_compute", {"seconds": 0}).result


@check("unknown-tasks-are-invalid-params")
def a_task_nobody_made_is_unknown(scene: Scene) -> None:
    for method in ("tasks/get", "tasks/cancel"):
        assert scene.ask(method, {"taskId": "nobody's"}, capabilities=TAKES_TASKS).error["code"] == -32602
