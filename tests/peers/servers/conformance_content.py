"""What the official suite's scenarios want a server to hold: data, and no behaviour.

Read off the descriptions and checks of the scenarios of 2025-11-25 and 2026-07-28.
"""

from typing import Any, Final

PNG: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WAV: Final = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA="

NO_ARGUMENTS: Final[dict[str, Any]] = {"type": "object", "properties": {}, "additionalProperties": False}


def text(value: str) -> dict[str, Any]:
    """A block of text."""
    return {"type": "text", "text": value}


def embedded(uri: str, mime_type: str, value: str) -> dict[str, Any]:
    """A block that carries a resource."""
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime_type, "text": value}}


IMAGE: Final[dict[str, Any]] = {"type": "image", "data": PNG, "mimeType": "image/png"}
AUDIO: Final[dict[str, Any]] = {"type": "audio", "data": WAV, "mimeType": "audio/wav"}

FIXED_TOOLS: Final[dict[str, tuple[str, list[dict[str, Any]]]]] = {
    "test_simple_text": ("A block of text", [text("This is a simple text response for testing.")]),
    "test_image_content": ("An image", [IMAGE]),
    "test_audio_content": ("A sound", [AUDIO]),
    "test_embedded_resource": (
        "A resource in the answer",
        [embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")],
    ),
    "test_multiple_content_types": (
        "Text, an image and a resource in one answer",
        [
            text("Multiple content types test:"),
            IMAGE,
            embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
        ],
    ),
}
"""Tools that always answer the same."""


def form(message: str, properties: dict[str, Any], *required: str) -> dict[str, Any]:
    """Ask the user to fill in a form."""
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {"method": "elicitation/create", "params": {"mode": "form", "message": message, "requestedSchema": schema}}


def sample(prompt: str, max_tokens: int = 100) -> dict[str, Any]:
    """Ask the client's model."""
    messages = [{"role": "user", "content": text(prompt)}]
    return {"method": "sampling/createMessage", "params": {"messages": messages, "maxTokens": max_tokens}}


ROOTS: Final[dict[str, Any]] = {"method": "roots/list", "params": {}}
STRING: Final[dict[str, Any]] = {"type": "string"}
NAME_FORM: Final = form("What is your name?", {"name": STRING}, "name")
CONFIRM_FORM: Final = form("Please confirm", {"ok": {"type": "boolean"}}, "ok")

DEFAULTS_FORM: Final = form(
    "Please review these values",
    {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    },
)


def _titled(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"const": value, "title": title} for value, title in pairs]


OPTIONS: Final = ["option1", "option2", "option3"]
ENUMS_FORM: Final = form(
    "Please choose",
    {
        "untitledSingle": {"type": "string", "enum": OPTIONS},
        "titledSingle": {
            "type": "string",
            "oneOf": _titled(("value1", "First Option"), ("value2", "Second Option"), ("value3", "Third Option")),
        },
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"type": "string", "enum": OPTIONS}},
        "titledMulti": {
            "type": "array",
            "minItems": 1,
            "maxItems": 3,
            "items": {
                "anyOf": _titled(("value1", "First Choice"), ("value2", "Second Choice"), ("value3", "Third Choice"))
            },
        },
    },
)

ASKING_TOOLS: Final[dict[str, tuple[str, dict[str, dict[str, Any]], bool]]] = {
    "test_elicitation_sep1034_defaults": ("A form with defaults", {"form": DEFAULTS_FORM}, False),
    "test_elicitation_sep1330_enums": ("A form with every kind of choice", {"form": ENUMS_FORM}, False),
    "test_streaming_elicitation": ("A form, asked for in the midst of a call", {"form": CONFIRM_FORM}, False),
    "test_input_required_result_elicitation": ("A form", {"user_name": NAME_FORM}, False),
    "test_input_required_result_sampling": (
        "A question to the client's model",
        {"capital_question": sample("What is the capital of France?")},
        False,
    ),
    "test_input_required_result_list_roots": ("The client's roots", {"client_roots": ROOTS}, False),
    "test_input_required_result_request_state": ("A form, with state", {"confirm": CONFIRM_FORM}, True),
    "test_input_required_result_tampered_state": ("A form, with sealed state", {"confirm": CONFIRM_FORM}, True),
    "test_input_required_result_multiple_inputs": (
        "A form, a question and roots at once",
        {"user_name": NAME_FORM, "greeting": sample("Generate a greeting", 50), "client_roots": ROOTS},
        True,
    ),
}
"""Tools that ask the client once: what, and whether they hand out state."""

ROUNDS: Final[list[tuple[str, dict[str, Any]]]] = [
    ("step1", form("Step 1: What is your name?", {"name": STRING}, "name")),
    ("step2", form("Step 2: What is your favorite color?", {"color": STRING}, "color")),
]
"""What test_input_required_result_multi_round asks, in turn."""

FREE_FORM_TOOLS: Final[dict[str, tuple[str, str]]] = {
    "test_sampling": ("Hand a prompt to the client's model", "prompt"),
    "test_elicitation": ("Ask the user a question", "message"),
}
"""Tools that ask the client what their one argument says."""

JSON_SCHEMA_2020_12: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": STRING, "city": STRING},
        }
    },
    "properties": {
        "name": STRING,
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": STRING,
        "email": STRING,
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}

HEADER_ARGUMENT: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"region": {"type": "string", "x-mcp-header": "Region"}, "query": STRING},
}
"""One argument that a client of 2026-07-28 sends as the header `Mcp-Param-Region` too."""

WATCHED: Final = "test://watched-resource"
RESOURCES: Final[dict[str, dict[str, Any]]] = {
    "test://static-text": {"mimeType": "text/plain", "text": "This is the content of the static text resource."},
    "test://static-binary": {"mimeType": "image/png", "blob": PNG},
    WATCHED: {"mimeType": "text/plain", "text": "Watched resource content"},
}
TEMPLATE: Final = "test://template/{id}/data"


def _message(block: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": block}


def prompt_messages(name: str, arguments: dict[str, str]) -> list[dict[str, Any]] | None:
    """A prompt's messages; None for a prompt that is not held."""
    match name:
        case "test_simple_prompt":
            return [_message(text("This is a simple prompt for testing."))]
        case "test_prompt_with_arguments":
            first, second = arguments.get("arg1", ""), arguments.get("arg2", "")
            return [_message(text(f"Prompt with arguments: arg1='{first}', arg2='{second}'"))]
        case "test_prompt_with_embedded_resource":
            uri = arguments.get("resourceUri", "test://example-resource")
            block = embedded(uri, "text/plain", "Embedded resource content for testing.")
            return [_message(block), _message(text("Please process the embedded resource above."))]
        case "test_prompt_with_image":
            return [_message(IMAGE), _message(text("Please analyze the image above."))]
    return None


PROMPTS: Final[dict[str, list[str]]] = {
    "test_simple_prompt": [],
    "test_prompt_with_arguments": ["arg1", "arg2"],
    "test_prompt_with_embedded_resource": ["resourceUri"],
    "test_prompt_with_image": [],
    "test_input_required_result_prompt": [],
}
"""Names and arguments."""

CONTEXT_FORM: Final = form("What context should the prompt use?", {"context": STRING}, "context")
