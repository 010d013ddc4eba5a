"""Kinds of values written as text: addresses, URLs, paths, names, headers, commands.

Knows: what makes each of them usable here. Does not know: which keys exist, whether anything answers there.
"""

import ipaddress
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from penstock.config.interpolation import Unresolved
from penstock.config.kinds import BadValue, Kind, Schema, interpolable, nearest, quoted, shown
from penstock.config.settings import MASK, Address, Secret, Text

EVERY_INTERFACE: Final = "0.0.0.0"
"""What `:8080` means; refused unless insecure_listen."""
FRAMING_HEADERS: Final = frozenset(
    [
        "accept",
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "last-event-id",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
"""Headers the HTTP lane and the protocol write themselves."""
CREDENTIAL_HEADERS: Final = frozenset(("authorization", "proxy-authorization"))
_TOKEN: Final = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"
_VARIABLE: Final = r"^[A-Za-z_][A-Za-z0-9_]*$"
_HOST: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?"
_ADDRESS: Final = re.compile(rf"(?:\[(?P<six>[0-9A-Fa-f:.%]+)\]|(?P<host>{_HOST}))?(?::(?P<port>[0-9]{{1,5}}))?")
_URL: Final = r"^[Hh][Tt][Tt][Pp][Ss]?://[^\s/?#]+[^\s#]*$"
_CREDENTIAL_WORD: Final = re.compile(r"key|token|secret|passw|credential|authorization|bearer", re.IGNORECASE)


class Matching(Kind):
    """A text that matches a pattern."""

    def __init__(self, expected: str, pattern: str, check: Callable[[str], str | None] | None = None) -> None:
        self.expected, self._pattern, self._check = expected, pattern, check

    def judge(self, value: object, directory: Path) -> str:
        if not isinstance(value, str) or not re.fullmatch(self._pattern, value):
            raise self.refuse(value)
        problem = self._check(value) if self._check else None
        if problem:
            raise BadValue(problem)
        return value

    def schema(self) -> Schema:
        return interpolable({"type": "string", "pattern": self._pattern})


class HeaderName(Matching):
    """A client's header to be passed on; read in lower case."""

    def __init__(self) -> None:
        super().__init__("a header name", _TOKEN, _forwarding_problem)

    def judge(self, value: object, directory: Path) -> str:
        return super().judge(value, directory).lower()


class FilePath(Kind):
    """A path; relative ones start beside the configuration file."""

    expected = "a path"

    def judge(self, value: object, directory: Path) -> str:
        if not isinstance(value, str) or not value or "\0" in value:
            raise self.refuse(value)
        return str(directory / Path(value).expanduser())

    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1}


class Addresses(Kind):
    """One address to listen on, or a list of them."""

    expected = 'an address such as "127.0.0.1:8080", "[::1]:8080" or "localhost:8080"'

    def __init__(self, default_port: int) -> None:
        self._default_port = default_port

    def judge(self, value: object, directory: Path) -> tuple[Address, ...]:
        if isinstance(value, int) and not isinstance(value, bool):
            raise self.refuse(value, f'"127.0.0.1:{value}"')
        if isinstance(value, list) and value:
            return tuple(self._address(item) for item in value)
        return (self._address(value),)

    def _address(self, value: object) -> Address:
        match = _ADDRESS.fullmatch(value) if isinstance(value, str) and value else None
        if match is None or not isinstance(value, str) or (value.isdigit() and len(value) <= 5):
            raise self.refuse(value, _address_hint(value) if isinstance(value, str) else "")
        host = match["six"] or match["host"] or EVERY_INTERFACE
        port = int(match["port"]) if match["port"] else self._default_port
        if port > 65_535:
            raise BadValue(f"expected a port from 0 to 65535, got {shown(value)}")
        if match["six"]:
            try:
                ipaddress.IPv6Address(host)
            except ValueError:
                raise self.refuse(value) from None
        return host, port

    def from_text(self, text: str) -> object:
        return [part.strip() for part in text.split(",")] if "," in text else text

    def schema(self) -> Schema:
        one = {"type": "string", "pattern": rf"^(?![0-9]{{1,5}}$)(?=.)(\[[0-9A-Fa-f:.%]+\]|{_HOST})?(:[0-9]{{1,5}})?$"}
        return interpolable(one, {"type": "array", "items": one, "minItems": 1})

    def show(self, value: tuple[Address, ...]) -> str:
        texts = [quoted(address_text(*address)) for address in value]
        return texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"


class Url(Kind):
    """An http or https URL; a Secret when it carries credentials or a query."""

    expected = "an http(s) URL"

    def read(self, value: object, directory: Path) -> Any:
        if isinstance(value, Unresolved):
            return Unresolved(value.reveal(), shown=masked_url(value.shown), sources=value.sources)
        if isinstance(value, Secret):
            self._check(value.reveal(), MASK)
            return Secret(value.reveal(), shown=masked_url(value.shown), sources=value.sources)
        return self.judge(value, directory)

    def judge(self, value: object, directory: Path) -> Text:
        if not isinstance(value, str):
            raise self.refuse(value)
        masked = masked_url(value)
        self._check(value, shown(masked))
        return value if masked == value else Secret(value, shown=masked)

    def _check(self, url: str, display: str) -> None:
        if not re.fullmatch(_URL, url) or not url.isprintable():
            hint = _url_hint(url) if display != MASK else ""
            raise BadValue(f"{display} is not an http(s) URL{hint}")
        try:
            parts = urlsplit(url)
            usable = bool(parts.hostname) and parts.port != 0
        except ValueError:
            raise BadValue(f"{display} has no usable host or port") from None
        if not usable:
            raise BadValue(f"{display} has no usable host or port")
        if "@" in parts.netloc:
            raise BadValue(f"{display} holds a user name or password; put them into 'headers' (Authorization)")

    def schema(self) -> Schema:
        return interpolable({"type": "string", "pattern": _URL})


class Command(Kind):
    """A program and its arguments."""

    expected = "a list of a program and its arguments"

    def judge(self, value: object, directory: Path) -> tuple[Text, ...]:
        if isinstance(value, str) and value.strip():
            try:
                parts = shlex.split(value)
            except ValueError:
                parts = value.split()
            raise self.refuse(value, "[" + ", ".join(map(quoted, parts)) + "]")
        if not isinstance(value, list) or not value:
            raise self.refuse(value)
        for index, part in enumerate(value):
            if not isinstance(part, str | Secret) or "\0" in _plain(part) or (index == 0 and not _plain(part)):
                raise BadValue(f"expected a text, got {shown(part)}", str(index))
        return tuple(_masked_argument(value, index) for index in range(len(value)))

    def schema(self) -> Schema:
        return {"type": "array", "items": {"type": "string"}, "minItems": 1}

    def show(self, value: tuple[Text, ...]) -> str:
        return "[" + ", ".join(quoted(str(part)) for part in value) + "]"


class SecretTable(Kind):
    """Names with values that are never shown: headers, environment variables."""

    def __init__(self, expected: str, name: str, pattern: str, problem: Callable[[str, str], str | None]) -> None:
        self.expected, self._name, self._pattern, self._problem = expected, name, pattern, problem

    def judge(self, value: object, directory: Path) -> dict[str, Secret]:
        if not isinstance(value, dict):
            raise self.refuse(value)
        return {name: self._value(name, text) for name, text in value.items()}

    def _value(self, name: str, text: object) -> Secret:
        if not re.fullmatch(self._pattern, name):
            raise BadValue(f"expected {self._name}, got {shown(name)}", name)
        if not isinstance(text, str | Secret):
            raise BadValue(f"expected a text, got {shown(text)}", name)
        if isinstance(text, Unresolved):
            return Unresolved(text.reveal(), sources=text.sources)
        problem = self._problem(name, _plain(text))
        if problem:
            raise BadValue(problem, name)
        return Secret(_plain(text), sources=text.sources if isinstance(text, Secret) else ())

    def schema(self) -> Schema:
        return {
            "type": "object",
            "propertyNames": {"pattern": self._pattern},
            "additionalProperties": {"type": "string"},
        }

    def show(self, value: dict[str, Secret]) -> str:
        return "{" + ", ".join(f"{quoted(name)} = {quoted(str(text))}" for name, text in value.items()) + "}"


def headers_table() -> SecretTable:
    return SecretTable('a table such as { Authorization = "Bearer …" }', "a header name", _TOKEN, _header_problem)


def environment_table() -> SecretTable:
    return SecretTable('a table such as { TOKEN = "…" }', "a variable name", _VARIABLE, _variable_problem)


def network() -> Matching:
    return Matching('an address or network such as "10.0.0.0/8"', r"^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$", _network_problem)


def address_text(host: str, port: int) -> str:
    """Host and port as people write them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether nobody on another machine can reach it."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def masked_url(url: str) -> str:
    """The URL without what may be a credential: user, password, values of the query."""
    url = re.sub(r"^([^:/?#]*:?//)[^/?#]*@", rf"\1{MASK}@", url)
    before, mark, query = url.partition("?")
    return before + mark + re.sub(r"(^|&)([^=&]*)=[^&]+", rf"\1\2={MASK}", query)


def _masked_argument(parts: list[Any], index: int) -> Text:
    """An argument named like a credential, or behind an option named like one, is a Secret."""
    part = parts[index]
    if isinstance(part, Secret):
        return part
    option, equals, _ = part.partition("=")
    if equals and _CREDENTIAL_WORD.search(option):
        return Secret(part, shown=f"{option}={MASK}")
    before = parts[index - 1] if index else ""
    follows_option = isinstance(before, str) and before.startswith("-") and "=" not in before
    if follows_option and not part.startswith("-") and _CREDENTIAL_WORD.search(before):
        return Secret(part)
    if re.match(r"(?i)authorization\s*:|bearer\s", part):
        return Secret(part)
    return Secret(part, shown=masked) if "://" in part and (masked := masked_url(part)) != part else part


def _plain(text: Text) -> str:
    return text if isinstance(text, str) else text.reveal()


def _address_hint(text: str) -> str:
    if text.isdigit():
        return f'"127.0.0.1:{text}"'
    if "://" in text:
        return quoted(text.split("://", 1)[1].split("/", 1)[0])
    if text.startswith("*:"):
        return quoted(EVERY_INTERFACE + text[1:])
    if text.count(":") > 1 and "[" not in text:
        return quoted(f"[{text}]:8080")
    return ""


def _url_hint(url: str) -> str:
    scheme, colon, rest = url.partition("://")
    if colon:
        near = nearest(scheme, ("http", "https"))
        return f" (did you mean '{near}://{masked_url('//' + rest)[2:]}'?)" if near and near != scheme.lower() else ""
    return f" (did you mean 'https://{masked_url('//' + url)[2:]}'?)" if re.match(rf"{_HOST}(:\d+)?(/|$)", url) else ""


def _header_problem(name: str, value: str) -> str | None:
    lower = name.lower()
    if lower in FRAMING_HEADERS or lower.startswith("mcp-"):
        return f"'{name}' is written by Penstock itself; leave it out"
    bad = next((at for at, c in enumerate(value) if not (" " <= c <= "~" or c == "\t")), None)
    return (
        None if bad is None else f"character {bad + 1} of the value cannot stand in a header; expected printable ASCII"
    )


def _variable_problem(name: str, value: str) -> str | None:
    return f"the value of {name} holds a NUL character" if "\0" in value else None


def _forwarding_problem(name: str) -> str | None:
    lower = name.lower()
    if lower in CREDENTIAL_HEADERS:
        return f"a client's '{name}' is never passed on; give the server its own in 'headers'"
    if lower in FRAMING_HEADERS or lower.startswith("mcp-"):
        return f"'{name}' is written by Penstock itself; leave it out"
    return None


def _network_problem(text: str) -> str | None:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return f'expected an address or network such as "10.0.0.0/8", got {shown(text)}'
    return None
