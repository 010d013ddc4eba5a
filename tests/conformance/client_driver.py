"""Be the client of a client scenario, with a gateway between: what the suite tests is how the gateway behaves as a client.

    python -m tests.conformance.client_driver REVISION URL

The suite starts this with the URL of the scenario's server, and says in the environment which scenario it is. REVISION is what
the client speaks to the gateway. Exit code 1 when the client could not do what the scenario wants of it.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.conformance.plain_client import MODERN, LegacyClient, ModernClient, PlainClient, RefusedError, arguments_for
from tests.peers.gateway import Gateway

SERVER: Final = "scenario"


def list_tools(client: PlainClient) -> None:
    """Nothing more."""
    client.tools()


def add_numbers(client: PlainClient) -> None:
    """Call the one tool."""
    client.tools()
    client.call("add_numbers", {"a": 5, "b": 3})


def elicitation_defaults(client: PlainClient) -> None:
    """Accept a form with its defaults."""
    client.tools()
    client.call("test_client_elicitation_defaults", {})


def reconnection(client: PlainClient) -> None:
    """Wait for a result whose stream ends early."""
    client.tools()
    client.call("test_reconnection", {})


def two_lists(client: PlainClient) -> None:
    """The first request is refused by the scenario's server, for its version."""
    client.tools()
    client.tools()


def request_state(client: PlainClient) -> None:
    """Be asked, with and without state, and call another tool in the meantime."""
    client.tools()
    client.call("test_mrtr_echo_state", {}, lambda: client.call("test_mrtr_unrelated", {}))
    client.call("test_mrtr_no_state", {}, lambda: client.call("test_mrtr_unrelated", {}))
    client.call("test_mrtr_no_result_type", {})


def every_method(client: PlainClient) -> None:
    """Every request whose headers repeat something of it."""
    for name, tool in client.tools().items():
        client.call(name, arguments_for(tool))
    for resource in client.request("resources/list")["resources"]:
        client.request("resources/read", uri=resource["uri"])
    for prompt in client.request("prompts/list")["prompts"]:
        client.request("prompts/get", name=prompt["name"])


def given_calls(client: PlainClient) -> None:
    """The calls that the scenario names."""
    client.tools()
    for call in json.loads(os.environ["MCP_CONFORMANCE_CONTEXT"])["toolCalls"]:
        client.call(call["name"], call["arguments"])


def every_tool(client: PlainClient) -> None:
    """Call whatever is listed: the gateway has to leave out what must not be called."""
    for name, tool in client.tools().items():
        client.call(name, arguments_for(tool))


def foreign_schema(client: PlainClient) -> None:
    """Call a tool whose schema refers to another host; its server answers no call."""
    client.tools()
    try:
        client.call("lookup_user", {"id": "ada", "profile": {"displayName": "Ada"}})
    except RefusedError as refusal:
        print(f"refused, as it may be: {refusal}", file=sys.stderr)


def echo_schema(client: PlainClient) -> None:
    """Send a tool's schema back as it was listed."""
    schema = client.tools()["json_schema_2020_12_tool"]["inputSchema"]
    client.call("json_schema_echo", {"schema": schema})


SCENARIOS: Final[dict[str, Callable[[PlainClient], None]]] = {
    "initialize": list_tools,
    "tools_call": add_numbers,
    "elicitation-sep1034-client-defaults": elicitation_defaults,
    "sse-retry": reconnection,
    "request-metadata": two_lists,
    "sep-2322-client-request-state": request_state,
    "http-standard-headers": every_method,
    "http-custom-headers": given_calls,
    "http-invalid-tool-headers": every_tool,
    "json-schema-ref-no-deref": foreign_schema,
    "json-schema-2020-12-preservation": echo_schema,
}
"""What the client does, by scenario."""


def main(revision: str, url: str) -> int:
    """Start a gateway in front of the URL, and drive it."""
    scenario = SCENARIOS[os.environ["MCP_CONFORMANCE_SCENARIO"]]
    folder = tempfile.TemporaryDirectory(prefix="penstock-scenario-")
    with folder as name, Gateway(Path(name).resolve(), ["--server", f"{SERVER}={url}"]) as gateway:
        where = gateway.view(SERVER)
        try:
            scenario(ModernClient(where) if revision == MODERN else LegacyClient(where, revision))
        except Exception as problem:  # whatever it is, the suite is to report it with the gateway's log
            print(f"{type(problem).__name__}: {problem}", file=sys.stderr)
            return 1
        finally:
            print(gateway.stderr_tail(), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
