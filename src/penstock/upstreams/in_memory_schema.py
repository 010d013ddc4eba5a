"""Check arguments against the few words of JSON Schema that in-memory servers use.

Knows: type, required, properties, additionalProperties, enum, minimum, maximum, minLength, maxLength; other words are
ignored. Does not know: references, composition, formats.
"""

from typing import Any, Final

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


def first_fault(value: Any, schema: dict[str, Any], where: str = "arguments") -> str:
    """What is wrong with `value`, in words for the caller; empty when nothing is."""
    kind = schema.get("type")
    if kind is not None and not _is_of_type(value, kind):
        return f"{where}: expected {kind}, got {_name_of(value)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where}: expected one of {', '.join(map(repr, schema['enum']))}, got {value!r}"
    if isinstance(value, dict):
        return _fault_of_object(value, schema, where)
    if isinstance(value, str):
        return _fault_of_size(len(value), schema.get("minLength"), schema.get("maxLength"), f"{where}: length")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _fault_of_size(value, schema.get("minimum"), schema.get("maximum"), where)
    return ""


def _fault_of_object(value: dict[str, Any], schema: dict[str, Any], where: str) -> str:
    properties: dict[str, Any] = schema.get("properties", {})
    missing = [name for name in schema.get("required", ()) if name not in value]
    if missing:
        return f"{where}: '{missing[0]}' is missing"
    unknown = [name for name in value if name not in properties]
    if unknown and schema.get("additionalProperties") is False:
        known = ", ".join(f"'{name}'" for name in properties) or "none"
        return f"{where}: '{unknown[0]}' is not known (known: {known})"
    faults = (first_fault(value[name], properties[name], f"'{name}'") for name in properties if name in value)
    return next((fault for fault in faults if fault), "")


def _fault_of_size(size: float, least: float | None, most: float | None, where: str) -> str:
    if least is not None and size < least:
        return f"{where} must be at least {least}, is {size}"
    if most is not None and size > most:
        return f"{where} must be at most {most}, is {size}"
    return ""


def _is_of_type(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])


def _name_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return next(name for name, types in _TYPES.items() if isinstance(value, types))
