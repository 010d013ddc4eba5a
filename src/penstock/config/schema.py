"""JSON Schema of `penstock.toml`, for editors.

Knows: the table of keys. Does not know: the loader. Rules between keys that a schema can say (`url` or `command`) are in it.
"""

from typing import Any, Final

from penstock.config.keys import NAME_PATTERN, SECTIONS, Section

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def config_schema() -> dict[str, Any]:
    """The schema, JSON-ready."""
    return {
        "$schema": DIALECT,
        "title": "penstock.toml",
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _section_schema(section) for name, section in SECTIONS.items()},
    }


def _section_schema(section: Section) -> dict[str, Any]:
    defaults = section.defaults()
    table: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            key.name: key.kind.schema() | {"description": _described(section, key.name, defaults)}
            for key in section.keys.values()
        },
    }
    if not section.named:
        return table
    if section.name == "servers":
        table["oneOf"] = [{"required": ["url"]}, {"required": ["command"]}]
    else:
        table["required"] = ["servers"]
    return {"type": "object", "propertyNames": {"pattern": NAME_PATTERN}, "additionalProperties": table}


def _described(section: Section, name: str, defaults: dict[str, Any]) -> str:
    key, default = section.keys[name], defaults[name]
    written = "" if default is None or default in ((), {}) else f" (default {key.kind.show(default)})"
    return key.about + written
