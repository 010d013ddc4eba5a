"""What a tool asks back during a call, put to the person at the terminal.

Knows: forms of elicitation, a way to ask and to tell. Does not know: the gateway.
"""

from collections.abc import Callable
from typing import Any

from penstock.cli.arguments import typed, types_of
from penstock.cli.gateway_client import Refused
from penstock.cli.output import harmless
from penstock.errors import ConfigError

Ask = Callable[[str], str]
"""Shows a prompt, returns a line; raises EOFError when there will be none."""
Tell = Callable[[str], None]


def answers_to(requests: dict[str, Any], *, ask: Ask | None, tell: Tell) -> dict[str, Any]:
    """The answers to a result's `inputRequests`; `ask` is None where nobody can be asked.

    Raises:
        Refused: something is asked that cannot be answered here.
    """
    answers = {}
    for key, request in requests.items():
        params = request.get("params") if isinstance(request, dict) else None
        if not isinstance(params, dict) or request.get("method") != "elicitation/create":
            method = request.get("method") if isinstance(request, dict) else "something unknown"
            raise Refused(
                f"the tool asks for '{method}', which the command line cannot give; call it from an MCP client"
            )
        message = harmless(str(params.get("message", "")))
        if params.get("mode", "form") != "form":
            raise Refused(f"the tool asks you to visit an address ({message}); call it from an MCP client that can")
        if ask is None:
            raise Refused(f"the tool asks: {message}; run the command in a terminal to answer")
        answers[key] = _form(message, params.get("requestedSchema"), ask, tell)
    return answers


def _form(message: str, schema: Any, ask: Ask, tell: Tell) -> dict[str, Any]:
    tell(f"The tool asks: {message}")
    tell("(Ctrl-D declines)")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    content = {}
    try:
        for name, rule in (properties or {}).items():
            value = _field(name, rule if isinstance(rule, dict) else {}, schema, ask, tell)
            if value is not None:
                content[name] = value
        if not content and ask("go on? [y/N] ").strip().lower() not in {"y", "yes"}:
            return {"action": "decline"}
    except EOFError:
        return {"action": "decline"}
    return {"action": "accept", "content": content}


def _field(name: str, rule: dict[str, Any], schema: dict[str, Any], ask: Ask, tell: Tell) -> Any:
    required = name in (schema.get("required") or ())
    prompt = _prompt(name, rule, schema, required)
    while True:
        text = ask(prompt)
        if not text.strip():
            if "default" in rule:
                return rule["default"]
            if not required:
                return None
            tell("a value is needed")
            continue
        try:
            value = typed(name, text, rule, schema)
        except ConfigError as error:
            tell(error.message)
            continue
        problem = _problem(value, rule)
        if problem is None:
            return value
        tell(problem)


def _prompt(name: str, rule: dict[str, Any], schema: dict[str, Any], required: bool) -> str:
    kind = "|".join(choices_of(rule)) or "/".join(sorted(types_of(rule, schema))) or "text"
    default = f" [{rule['default']}]" if "default" in rule else "" if required else " [none]"
    about = f" - {rule['description']}" if rule.get("description") else ""
    return harmless(f"{rule.get('title') or name}{about} ({kind}){default}: ")


def choices_of(rule: dict[str, Any]) -> list[str]:
    """The values a field allows, if they are listed."""
    titled = [one.get("const") for one in rule.get("oneOf") or () if isinstance(one, dict)]
    return [str(value) for value in rule.get("enum") or titled if value is not None]


def _problem(value: Any, rule: dict[str, Any]) -> str | None:
    allowed = choices_of(rule)
    if allowed and not isinstance(value, list) and str(value) not in allowed:
        return f"expected one of {', '.join(allowed)}"
    return None
