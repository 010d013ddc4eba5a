"""`Mcp-Param-*` headers are held against the arguments here where the server never sees them."""

from typing import Any

import pytest

from penstock.protocol.versions import Era
from penstock.upstreams.in_memory import CallContext, InMemoryServer, InMemoryUpstream
from tests.unit.gateway.conftest import Running

SCHEMA = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
INVALID = {"type": "object", "properties": {"region": {"type": "object", "x-mcp-header": "Region"}}}


class HttpLike(InMemoryUpstream):
    """Writes `Mcp-Param-*` headers, as an upstream over HTTP does."""

    def learn_tools(self, tools: list[tuple[str, Any]]) -> dict[str, str]:
        return {name: "its annotation is invalid" for name, schema in tools if b'"object","x-mcp' in bytes(schema)}


def annotated(era: Era) -> InMemoryServer:
    server = InMemoryServer("it", era=era)
    for name, schema in (("query", SCHEMA), ("odd", INVALID)):

        @server.tool(name, input_schema=schema)
        async def query(arguments: dict[str, Any], _context: CallContext) -> Any:
            return str(arguments)

    return server


CALL = {"name": "it_query", "arguments": {"region": "north"}}
WRONG: list[tuple[dict[str, Any], dict[str, str]]] = [
    (CALL, {}),
    (CALL, {"mcp-param-region": "south"}),
    (CALL, {"mcp-param-region": "=?base64?!?="}),
    ({"name": "it_query", "arguments": {}}, {"mcp-param-region": "north"}),
    ({"name": "it_query"}, {"mcp-param-region": "north"}),
]
RIGHT: list[tuple[dict[str, Any], dict[str, str]]] = [
    (CALL, {"mcp-param-region": "north"}),
    ({"name": "it_query", "arguments": {}}, {}),
    ({"name": "it_query", "arguments": {"region": None}}, {}),
]


@pytest.mark.parametrize(
    ("params", "headers"), WRONG, ids=["missing", "differs", "not decodable", "alone", "no arguments"]
)
@pytest.mark.parametrize(
    ("era", "kind"), [(Era.LEGACY, HttpLike), (Era.MODERN, InMemoryUpstream)], ids=["legacy", "modern, not over http"]
)
async def test_a_header_that_contradicts_the_arguments_is_refused_before_the_server_is_asked(
    empty: Running, era: Era, kind: type[InMemoryUpstream], params: dict[str, Any], headers: dict[str, str]
) -> None:
    upstream = kind("it", annotated(era))
    await empty.apply({"it": lambda: upstream})
    await empty.listed()
    answer = await empty.modern("tools/call", params, headers=headers)
    assert (answer["status"], answer["error"]["code"]) == (400, -32020)
    assert not [call for call in upstream.calls if call.method == "tools/call"]


@pytest.mark.parametrize(("params", "headers"), RIGHT, ids=["same", "both absent", "null"])
async def test_headers_that_say_what_the_arguments_say_pass(
    empty: Running, params: dict[str, Any], headers: dict[str, str]
) -> None:
    await empty.apply({"it": lambda: HttpLike("it", annotated(Era.LEGACY))})
    await empty.listed()
    for path, name in (("/mcp", "it_query"), ("/mcp/it", "query")):
        answer = await empty.modern("tools/call", params | {"name": name}, headers=headers, path=path)
        assert answer["status"] == 200, answer
        assert "result" in answer


async def test_a_modern_server_over_http_checks_for_itself(empty: Running) -> None:
    await empty.apply({"it": lambda: HttpLike("it", annotated(Era.MODERN))})
    await empty.listed()
    assert (await empty.modern("tools/call", CALL))["status"] == 200


async def test_a_legacy_client_writes_no_such_headers(empty: Running) -> None:
    await empty.apply({"it": lambda: InMemoryUpstream("it", annotated(Era.LEGACY))})
    await empty.listed()
    assert "result" in await empty.legacy("tools/call", CALL)


async def test_a_tool_with_an_invalid_annotation_is_left_out_where_headers_are_written(empty: Running) -> None:
    await empty.apply({"it": lambda: HttpLike("it", annotated(Era.MODERN))})
    await empty.listed()
    names = [tool["name"] for tool in (await empty.modern("tools/list"))["result"]["tools"]]
    assert names == ["it_query"]


async def test_an_invalid_annotation_asks_for_nothing(empty: Running) -> None:
    await empty.apply({"it": lambda: InMemoryUpstream("it", annotated(Era.LEGACY))})
    await empty.listed()
    answer = await empty.modern("tools/call", {"name": "it_odd", "arguments": {}})
    assert "result" in answer


async def test_tools_without_annotations_have_nothing_to_check(running: Running) -> None:
    await running.listed()
    routes = running.gateway.context.snapshot.endpoints["/mcp"].routes["tools/call"]
    assert {route.param_headers for route in routes.values()} == {None}


async def test_the_arguments_are_compared_each_time_however_often_the_header_was_right(empty: Running) -> None:
    await empty.apply({"it": lambda: HttpLike("it", annotated(Era.LEGACY))})
    await empty.listed()
    headers = {"mcp-param-region": "north"}
    for _ in range(3):
        assert "result" in await empty.modern("tools/call", CALL, headers=headers)
    lying = {"name": "it_query", "arguments": {"region": "south"}}
    answer = await empty.modern("tools/call", lying, headers=headers)
    assert (answer["status"], answer["error"]["code"]) == (400, -32020)
