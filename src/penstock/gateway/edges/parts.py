"""Small readings of a request that both edges need."""

from collections.abc import Callable
from typing import Final

import msgspec

from penstock.gateway.context import GatewayContext
from penstock.gateway.edges.head import HeadFacts
from penstock.gateway.route import Route
from penstock.gateway.view import View

_decode_text: Final = msgspec.json.Decoder(str).decode


class _Ref(msgspec.Struct):
    type: str
    name: str = ""
    uri: str = ""


_decode_ref: Final = msgspec.json.Decoder(_Ref).decode
_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def name_of(params: dict[str, msgspec.Raw], field: str) -> str | None:
    """The string member of that name; None when it is missing or no string."""
    raw = params.get(field)
    if raw is None:
        return None
    try:
        return _decode_text(raw)
    except msgspec.DecodeError:
        return None


def cursor_of(params: dict[str, msgspec.Raw]) -> tuple[str | None, bool]:
    """The `cursor` and whether it is well-formed; `""` is a valid cursor, though never one of ours."""
    if "cursor" not in params:
        return None, True
    cursor = name_of(params, "cursor")
    return cursor, cursor is not None


def completion_route(view: View, params: dict[str, msgspec.Raw]) -> Route | None:
    """The route of a `completion/complete` by its `ref`, whose prompt name is put back to the server's own."""
    raw = params.get("ref")
    if raw is None:
        return None
    try:
        ref = _decode_ref(raw)
    except msgspec.DecodeError:
        return None
    if ref.type == "ref/resource":
        return view.find_template(ref.uri)
    if ref.type != "ref/prompt":
        return None
    route = view.find("prompts/get", ref.name)
    if route is not None:
        members = _decode_members(raw)
        members["name"] = route.name_json
        params["ref"] = msgspec.Raw(msgspec.json.encode(members))
    return route


def client_headers(
    facts: HeadFacts, headers: dict[bytes, bytes], forwarded: tuple[bytes, ...]
) -> tuple[tuple[bytes, bytes], ...]:
    """The client's headers a server may see: `mcp-param-*`, which intermediaries must pass on, and those its settings name."""
    if not forwarded:
        return facts.param_headers
    return facts.param_headers + tuple((name, headers[name]) for name in forwarded if name in headers)


def unknown_name(method: str, name: str | None) -> str:
    """The message for what no server of the view has."""
    if name is None:
        return f"Invalid params: {method} refers to no prompt or resource of this view"
    kind = {"tools/call": "tool", "prompts/get": "prompt"}.get(method, "resource")
    return f"Unknown {kind}: {name[:200]}"


async def when_listed(context: GatewayContext, view_name: str, then: Callable[[View | None], None]) -> None:
    """A server that was never listed is waited for, once; `then` takes the view, or None when it has been removed meanwhile."""
    then(await context.listed_view(view_name))
