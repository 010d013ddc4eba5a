"""Words of the command line as a tool's arguments, typed by its input schema.

Knows: JSON Schema as far as types go. Does not know: the gateway, terminals. The server judges the values; this only decides
whether `3` means a number or a text.
"""

import json
from typing import Any, Final

from penstock.config.kinds import nearest
from penstock.errors import ConfigError

_ORDER: Final = ("null", "boolean", "integer", "number", "array", "object", "string")
_A: Final = {"integer": "a whole number", "array": "a list (JSON, or the key repeated)", "object": "a JSON object"}
DEPTH: Final = 16


def arguments_from(words: tuple[str, ...], schema: dict[str, Any]) -> dict[str, Any]:
    """`key=value` and `key:=JSON` words as an object; a repeated key makes a list where the schema has one.

    Raises:
        ConfigError: a word is neither, a value is not of its type, or the schema knows no such key.
    """
    arguments: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key in {"", ":"}:
            raise ConfigError(f"expected key=value or key:=JSON, got '{word}'")
        if key.endswith(":"):
            key = key[:-1]
            arguments[key] = _json(key, value)
            continue
        rule = _rule(schema, key)
        if key in arguments and isinstance(arguments[key], list):
            arguments[key] += typed(key, value, rule, schema)
        elif key in arguments:
            raise ConfigError(f"'{key}' is given twice")
        else:
            arguments[key] = typed(key, value, rule, schema)
    return arguments


def typed(key: str, text: str, rule: Any, schema: dict[str, Any]) -> Any:
    """The text as the first of the rule's types that it can be.

    Raises:
        ConfigError: it can be none of them.
    """
    types = types_of(rule, schema)
    if not types:
        return text
    for kind in sorted(types, key=_ORDER.index):
        try:
            return _as(kind, text, rule, schema)
        except (ValueError, TypeError):
            continue
    expected = " or ".join(_A.get(kind, f"a {kind}") for kind in sorted(types, key=_ORDER.index))
    raise ConfigError(f"argument '{key}' expects {expected}, got '{text}'")


def types_of(rule: Any, schema: dict[str, Any], depth: int = 0) -> set[str]:
    """The types a value may have; empty when the rule does not say."""
    if not isinstance(rule, dict) or depth > DEPTH:
        return set()
    rule = _resolved(rule, schema)
    kinds = rule.get("type")
    if kinds is not None:
        return {kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if kind in _ORDER}
    if isinstance(rule.get("enum"), list):
        return {_type_of(value) for value in rule["enum"]}
    if "const" in rule:
        return {_type_of(rule["const"])}
    found = set[str]()
    for word in ("anyOf", "oneOf", "allOf"):
        for one in rule.get(word) or ():
            found |= types_of(one, schema, depth + 1)
    return found


def example_words(schema: Any) -> list[str] | None:
    """Words that give every required argument some value; None when that takes more than texts, numbers and flags."""
    if not isinstance(schema, dict):
        return []
    words = list[str]()
    for key in schema.get("required") or ():
        rule = (schema.get("properties") or {}).get(key, {})
        samples = [rule[word] for word in ("default", "const") if word in rule] + [
            *(rule.get("examples") or rule.get("enum") or ())
        ]
        kinds = types_of(rule, schema)
        if samples and isinstance(samples[0], str | int | float):
            value = samples[0]
        elif kinds & {"integer", "number"}:
            value = max(int(rule.get("minimum", 0)), len(words) + 2)
        elif "boolean" in kinds:
            value = True
        elif not kinds or "string" in kinds:
            value = "hello"
        else:
            return None
        words.append(f"{key}={json.dumps(value) if not isinstance(value, str) else value}")
    return words


def _as(kind: str, text: str, rule: Any, schema: dict[str, Any]) -> Any:
    match kind:
        case "string":
            return text
        case "integer":
            return int(text)
        case "number":
            value = json.loads(text)
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise TypeError(text)
            return value
        case "boolean" | "null":
            words: dict[str, bool | None] = {"null": None} if kind == "null" else {"true": True, "false": False}
            if text.lower() not in words:
                raise ValueError(text)
            return words[text.lower()]
        case "array":
            return _array(text, rule, schema)
        case _:
            value = json.loads(text)
            if not isinstance(value, dict):
                raise TypeError(text)
            return value


def _array(text: str, rule: Any, schema: dict[str, Any]) -> list[Any]:
    if text.lstrip().startswith("["):
        value = json.loads(text)
        if isinstance(value, list):
            return value
    items = _resolved(rule, schema).get("items")
    return [typed("item", text, items, schema)]


def _rule(schema: dict[str, Any], key: str) -> Any:
    properties = schema.get("properties")
    known = properties if isinstance(properties, dict) else {}
    if key in known:
        return known[key]
    if schema.get("additionalProperties") is False:
        near = nearest(key, tuple(known))
        meant = f"did you mean '{near}'?" if near else f"it takes {', '.join(known) or 'none'}"
        raise ConfigError(f"the tool has no argument '{key}'; {meant}")
    return schema.get("additionalProperties")


def _resolved(rule: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The rule behind a `$ref` into the same schema."""
    for _ in range(DEPTH):
        reference = rule.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return rule
        target: Any = schema
        for part in reference[2:].split("/"):
            target = target.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            return {}
        rule = target
    return {}


def _type_of(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _json(key: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ConfigError(f"argument '{key}' expects JSON behind ':=', got '{text}'") from None
