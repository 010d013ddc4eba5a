"""`Mcp-Param-*`: tool arguments mirrored in HTTP headers, as a tool's `inputSchema` asks with `x-mcp-header`.

Knows: the annotation's rules, how a scalar is written in a header. Does not know: tools, upstreams, HTTP framing.

Source: 2026-07-28 basic/transports/streamable-http, "Custom Headers from Tool Parameters".
"""

import re
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple, cast

import msgspec
from msgspec import Raw

from penstock.protocol.headers import Mismatch, decode_value, encode_value

ANNOTATION: Final = "x-mcp-header"
HEADER_PREFIX: Final = b"mcp-param-"

_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_str = msgspec.json.Decoder(str).decode
_decode_schema = msgspec.json.Decoder(dict[str, Any]).decode
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_INTEGRAL: Final = re.compile(r"(-?[0-9]{1,32})(?:\.0{1,32})?").fullmatch

# Keywords of JSON Schema (2020-12, and draft-07's older names) under which further schemas stand. Below them an annotation is
# invalid: which argument it means would depend on the instance. Data (`default`, `enum`, …) is not looked into.
_ONE_SCHEMA: Final = frozenset(
    {
        "items",
        "additionalItems",
        "contains",
        "unevaluatedItems",
        "additionalProperties",
        "propertyNames",
        "unevaluatedProperties",
        "not",
        "if",
        "then",
        "else",
        "contentSchema",
    }
)
_SCHEMA_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "items"})
_SCHEMA_MAPS: Final = frozenset({"patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions"})


class ParamHeader(NamedTuple):
    """One argument that is mirrored in a header."""

    path: tuple[str, ...]
    """Keys from the arguments' root to the value."""
    header: bytes
    """Lower-case name of the header."""
    type: Literal["string", "integer", "boolean"]


class Invalid(NamedTuple):
    """Why a tool's annotations are against the rules: HTTP clients must leave such a tool out of the list."""

    reason: str


def param_header_rules(input_schema: Raw | bytes) -> tuple[ParamHeader, ...] | Invalid:
    """The arguments a tool wants mirrored; empty for nearly every tool."""
    raw = bytes(input_schema)
    if ANNOTATION.encode() not in raw and b"\\u" not in raw:
        return ()
    try:
        schema = _decode_schema(raw)
    except msgspec.ValidationError:
        return ()
    found: dict[bytes, ParamHeader] = {}
    for path, position in _positions(schema):
        if ANNOTATION not in position:
            continue
        rule = _rule(path, position)
        if isinstance(rule, Invalid):
            return rule
        if rule.header in found:
            return Invalid(f"{ANNOTATION} {position[ANNOTATION]!r} is used twice (names are case-insensitive)")
        found[rule.header] = rule
    return tuple(sorted(found.values()))


def _rule(path: tuple[str, ...] | None, position: dict[str, Any]) -> ParamHeader | Invalid:
    if not path:
        return Invalid(f"{ANNOTATION} stands where no chain of 'properties' leads to one argument")
    where, name, kind = ".".join(path), position[ANNOTATION], position.get("type")
    if not isinstance(name, str) or not _TOKEN(name):
        return Invalid(
            f"'{where}': {ANNOTATION} must be a token of HTTP (letters, digits, !#$%&'*+-.^_`|~), not {name!r:.60}"
        )
    if kind not in ("string", "integer", "boolean"):
        return Invalid(f"'{where}': {ANNOTATION} needs the type string, integer or boolean, not {kind!r:.60}")
    return ParamHeader(path, HEADER_PREFIX + name.lower().encode("ascii"), kind)


def _positions(schema: dict[str, Any]) -> Iterator[tuple[tuple[str, ...] | None, dict[str, Any]]]:
    """Every place in which a schema stands, with its path of `properties` keys, None when it is not reached by those alone."""
    pending: list[tuple[tuple[str, ...] | None, Any]] = [((), schema)]
    while pending:
        path, node = pending.pop()
        if not isinstance(node, dict):
            continue
        position = cast("dict[str, Any]", node)
        yield path, position
        for keyword, value in position.items():
            if keyword == "properties" and isinstance(value, dict):
                pending += ((None if path is None else (*path, key), sub) for key, sub in value.items())
            elif keyword in _SCHEMA_LISTS and isinstance(value, list):
                pending += ((None, sub) for sub in value)
            elif keyword in _SCHEMA_MAPS and isinstance(value, dict):
                pending += ((None, sub) for sub in value.values())
            elif keyword in _ONE_SCHEMA:
                pending.append((None, value))


def write_param_headers(
    rules: tuple[ParamHeader, ...], arguments: Raw | bytes | None
) -> tuple[tuple[bytes, bytes], ...]:
    """The headers a call must carry: (lower-case name, encoded value); absent and null arguments have none."""
    written = []
    for rule in rules:
        text = _mirrored(arguments, rule)
        if text is not None:
            written.append((rule.header, encode_value(text)))
    return tuple(written)


def check_param_headers(
    rules: tuple[ParamHeader, ...], headers: dict[bytes, bytes], arguments: Raw | bytes | None
) -> Mismatch | None:
    """Whether header and argument of each rule are there together and say the same, or are absent together."""
    for rule in rules:
        value, text = headers.get(rule.header), _mirrored(arguments, rule)
        name = rule.header.decode("ascii")
        if value is None:
            if text is not None:
                return Mismatch(f"Header mismatch: {name} is missing, the argument '{'.'.join(rule.path)}' is there")
            continue
        said = decode_value(value)
        if said is None:
            return Mismatch(f"Header mismatch: {name} contains invalid characters or invalid Base64")
        if text is None:
            return Mismatch(f"Header mismatch: {name} is there, the argument '{'.'.join(rule.path)}' is not")
        if said != text and not (rule.type == "integer" and _equal_numbers(said, text)):
            return Mismatch(f"Header mismatch: {name} is not what the argument '{'.'.join(rule.path)}' says")
    return None


def _mirrored(arguments: Raw | bytes | None, rule: ParamHeader) -> str | None:
    """The text that mirrors an argument; None when it is absent, null, or nothing a header can mirror."""
    raw = arguments
    try:
        for key in rule.path:
            if raw is None:
                return None
            raw = _decode_members(raw).get(key)
    except msgspec.ValidationError:
        return None
    if raw is None:
        return None
    value = bytes(raw)
    if value[:1] == b'"':
        return _decode_str(value)
    if value == b"null" or value[:1] in (b"{", b"["):
        return None
    return _plain_integer(value.decode("ascii")) if rule.type == "integer" else value.decode("ascii")


def _plain_integer(text: str) -> str:
    """`1e2` and `100.0` as `100`; what is no integer stays as it was written."""
    if text.lstrip("-").isdigit() or text in ("true", "false"):
        return text
    number = float(text)
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else text


def _equal_numbers(said: str, text: str) -> bool:
    """Compare as numbers, as the specification recommends: `42.0` is `42`."""
    left, right = _INTEGRAL(said), _INTEGRAL(text)
    return left is not None and right is not None and int(left[1]) == int(right[1])
