"""What a view shows, under which names, and whom it finds."""

from typing import Any

import pytest

from penstock.gateway.snapshot import ViewSettings
from penstock.protocol.versions import Era
from penstock.upstreams.in_memory import CallContext, InMemoryServer, InMemoryUpstream
from tests.unit.gateway.conftest import Running, weather_server


def server_of(name: str, *tools: str, era: Era = Era.MODERN, **more: Any) -> InMemoryServer:
    """A server with those tools, each saying its own name; a prompt, and a resource all such servers have."""
    server = InMemoryServer(name, era=era, **more)

    def add(tool: str) -> None:
        @server.tool(tool)
        async def answer(_arguments: dict[str, Any], _context: CallContext) -> Any:
            return f"{name}:{tool}"

    for tool in tools:
        add(tool)

    @server.prompt("ask", arguments=[{"name": "topic"}])
    async def ask(_arguments: dict[str, Any], _context: CallContext) -> Any:
        return name

    @server.resource("shared://one", name="one")
    async def one(_arguments: dict[str, Any], _context: CallContext) -> Any:
        return f"from {name}"

    @server.resource_template("shared://{kind}/x", name="x")
    async def template(_arguments: dict[str, Any], _context: CallContext) -> Any:
        return f"x of {name}"

    @server.completion
    async def complete(ref: dict[str, Any], argument: dict[str, Any]) -> list[str]:
        return [name, ref.get("name") or ref.get("uri") or "", argument.get("value", "")]

    return server


async def serve(running: Running, servers: list[InMemoryServer], *views: ViewSettings) -> None:
    await running.apply({one.name: lambda one=one: InMemoryUpstream(one.name, one) for one in servers}, *views)  # type: ignore[misc]
    await running.listed()


async def names(running: Running, method: str = "tools/list", path: str = "/mcp") -> list[str]:
    result = (await running.modern(method, path=path))["result"]
    (items,) = (value for value in result.values() if isinstance(value, list))
    return [item.get("name") for item in items]


async def said(running: Running, name: str, path: str = "/mcp") -> str:
    answer = await running.modern("tools/call", {"name": name, "arguments": {}}, path=path)
    return str(answer["result"]["content"][0]["text"] if "result" in answer else answer["error"]["message"])


async def test_names_are_prefixed_in_configuration_order_and_lead_to_their_server(empty: Running) -> None:
    await serve(empty, [server_of("zeta", "go", "stop"), server_of("alpha", "go")])
    assert await names(empty) == ["zeta_go", "zeta_stop", "alpha_go"]
    assert await said(empty, "alpha_go") == "alpha:go"
    assert await said(empty, "zeta_go") == "zeta:go"
    assert await said(empty, "go", "/mcp/alpha") == "alpha:go"
    assert await names(empty, "prompts/list") == ["zeta_ask", "alpha_ask"]


async def test_a_name_over_64_characters_is_cut_and_still_leads_there(empty: Running) -> None:
    long = "x" * 63
    await serve(empty, [server_of("alpha", long, long + "y")])
    shown = await names(empty)
    assert all(len(name) == 64 for name in shown)
    assert len(set(shown)) == 2
    assert await said(empty, shown[0]) == f"alpha:{long}"
    assert await names(empty, path="/mcp/alpha") == [long, long + "y"]


async def test_a_view_selects_servers_and_patterns_of_prefixed_names(empty: Running) -> None:
    views = [
        ViewSettings("some", ("alpha", "gone"), include=("alpha_read*", "*_ask"), exclude=("*_secret",)),
        ViewSettings("both", ("alpha", "zeta")),
    ]
    servers = [server_of("alpha", "read", "read_secret", "write"), server_of("zeta", "read")]
    await serve(empty, servers, *views)
    assert await names(empty, path="/mcp/some") == ["alpha_read"]
    assert await names(empty, "prompts/list", "/mcp/some") == ["alpha_ask"]
    assert await said(empty, "alpha_read", "/mcp/some") == "alpha:read"
    for hidden in ("alpha_write", "alpha_read_secret", "zeta_read", "alpha_unlisted"):
        assert await said(empty, hidden, "/mcp/some") == f"Unknown tool: {hidden}"
    assert await names(empty, path="/mcp/both") == ["alpha_read", "alpha_read_secret", "alpha_write", "zeta_read"]
    assert await said(empty, "alpha_unlisted", "/mcp/both") == "unknown tool 'unlisted'"


async def test_a_name_no_list_holds_is_for_its_server_to_judge(empty: Running) -> None:
    await serve(empty, [server_of("alpha", "go")])
    assert await said(empty, "alpha_new") == "unknown tool 'new'"
    assert await said(empty, "new", "/mcp/alpha") == "unknown tool 'new'"
    for nobody in ("beta_new", "alpha", "alpha_", "_new"):
        assert await said(empty, nobody) == f"Unknown tool: {nobody}"


async def test_of_duplicates_the_first_is_used_and_the_others_are_named(empty: Running) -> None:
    await serve(empty, [server_of("zeta", "go"), server_of("alpha", "go")])
    read = await empty.modern("resources/read", {"uri": "shared://one"})
    assert read["result"]["contents"][0]["text"] == "from zeta"
    own = await empty.modern("resources/read", {"uri": "shared://one"}, path="/mcp/alpha")
    assert own["result"]["contents"][0]["text"] == "from alpha"
    duplicates = empty.gateway.context.snapshot.duplicates
    assert duplicates == (
        "resources 'shared://one': 'zeta' is used, 'alpha' is not",
        "resourceTemplates 'shared://{kind}/x': 'zeta' is used, 'alpha' is not",
    )


async def test_a_uri_goes_to_the_first_template_it_fits(empty: Running) -> None:
    await serve(empty, [server_of("zeta"), server_of("alpha")])
    read = await empty.modern("resources/read", {"uri": "shared://any/x"})
    assert read["result"]["contents"][0]["text"] == "x of zeta"
    unknown = await empty.modern("resources/read", {"uri": "other://any"})
    assert unknown["error"]["message"] == "Unknown resource: other://any"
    own = await empty.modern("resources/read", {"uri": "other://any"}, path="/mcp/alpha")
    assert own["error"]["message"] == "Resource not found: other://any"


@pytest.mark.parametrize(
    ("ref", "values"),
    [
        ({"type": "ref/prompt", "name": "alpha_ask", "title": "kept"}, ["alpha", "ask", "v"]),
        ({"type": "ref/resource", "uri": "shared://{kind}/x"}, ["zeta", "shared://{kind}/x", "v"]),
        ({"type": "ref/resource", "uri": "shared://some/x"}, ["zeta", "shared://some/x", "v"]),
    ],
    ids=["prompt", "template", "uri of a template"],
)
async def test_a_completion_goes_to_the_server_its_reference_means(
    empty: Running, ref: dict[str, Any], values: list[str]
) -> None:
    await serve(empty, [server_of("zeta"), server_of("alpha")])
    answer = await empty.modern("completion/complete", {"ref": ref, "argument": {"name": "topic", "value": "v"}})
    assert answer["result"]["completion"]["values"] == values
    legacy = await empty.legacy("completion/complete", {"ref": ref, "argument": {"name": "topic", "value": "v"}})
    assert legacy["result"]["completion"]["values"] == values


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"ref": 5},
        {"ref": {"type": "ref/tool", "name": "alpha_ask"}},
        {"ref": {"type": "ref/prompt", "name": "nobody"}},
        {"ref": {"type": "ref/resource", "uri": "nobody://x"}},
    ],
)
async def test_a_completion_without_a_known_reference_is_refused(empty: Running, params: dict[str, Any]) -> None:
    await serve(empty, [server_of("zeta")])
    answer = await empty.modern("completion/complete", params)
    assert answer["error"]["code"] == -32602


async def test_capabilities_are_the_union_and_instructions_stand_under_names(empty: Running) -> None:
    await serve(empty, [weather_server(), server_of("alpha", instructions="Say please.")])
    found = (await empty.modern("server/discover"))["result"]
    told = {"listChanged": True}
    lists = {"prompts": told, "resources": told | {"subscribe": True}, "tools": told}
    assert found["capabilities"] == {"completions": {}, "logging": {}, **lists}
    assert found["instructions"] == "# weather\n\nAsk about the weather.\n\n# alpha\n\nSay please."


async def test_an_own_view_shows_what_its_server_can(empty: Running) -> None:
    class Rich(InMemoryServer):
        @property
        def capabilities(self) -> dict[str, Any]:
            tasks = {"io.modelcontextprotocol/tasks": {}, "com.example/more": {"a": 1}}
            listing = {"listChanged": True, "subscribe": True, "other": 1}
            return {"tools": listing, "extensions": tasks, "experimental": {"x": {}}, "logging": 5, "odd": {}}

    await serve(empty, [Rich("rich")])
    own = (await empty.modern("server/discover", path="/mcp/rich"))["result"]["capabilities"]
    assert own == {
        "tools": {"listChanged": True, "subscribe": True, "other": 1},
        "extensions": {"com.example/more": {"a": 1}, "io.modelcontextprotocol/tasks": {}},
        "experimental": {"x": {}},
        "logging": 5,
    }
    legacy, _ = await empty.initialize(path="/mcp/rich")
    assert legacy["capabilities"] == own | {"extensions": {"com.example/more": {"a": 1}}}
    joint = (await empty.modern("server/discover"))["result"]["capabilities"]
    carried = {"tools": {"listChanged": True, "subscribe": True}, "logging": {}}
    assert joint == carried | {"extensions": {"io.modelcontextprotocol/tasks": {}}}
    assert (await empty.initialize())[0]["capabilities"] == carried


async def test_without_servers_there_is_an_empty_list(empty: Running) -> None:
    await serve(empty, [])
    assert await names(empty) == []
    assert (await empty.modern("server/discover"))["result"]["capabilities"] == {"tools": {"listChanged": True}}
    assert repr(empty.gateway.context.snapshot).startswith("<Snapshot ")


async def test_many_items_come_in_pages_of_a_thousand_with_cursors_for_that_list_alone(empty: Running) -> None:
    await serve(empty, [server_of("alpha", *(f"t{number}" for number in range(2_500)))])
    pages = [(await empty.modern("tools/list"))["result"]]
    first = pages[0]["nextCursor"]
    while "nextCursor" in pages[-1]:
        pages.append((await empty.modern("tools/list", {"cursor": pages[-1]["nextCursor"]}))["result"])
    seen = [tool["name"] for page in pages for tool in page["tools"]]
    assert (len(pages), len(seen), len(set(seen))) == (3, 2_500, 2_500)
    legacy = await empty.legacy("tools/list", {"cursor": first})
    assert len(legacy["result"]["tools"]) == 1_000
    assert (await empty.legacy("tools/list", {"cursor": first}))["result"] == legacy["result"]
    tampered = first[:-2] + ("AA" if not first.endswith("AA") else "BB")
    for method, path, wrong in (
        ("tools/list", "/mcp", tampered),
        ("prompts/list", "/mcp", first),
        ("tools/list", "/mcp/alpha", first),
        ("tools/list", "/mcp", ""),
    ):
        answer = await empty.modern(method, {"cursor": wrong}, path=path)
        assert answer["error"]["code"] == -32602, (method, path)
    await serve(empty, [server_of("beta", "go")])
    assert (await empty.modern("tools/list", {"cursor": first}))["error"]["code"] == -32602
