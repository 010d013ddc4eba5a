"""Log lines on stderr: one per event, repeats collapsed, secrets taken out.

Knows: the standard library's logging. Does not know: who logs.
Invariant: of equal lines at most `REPEATS` in `WINDOW` seconds are written; the rest are counted, and the count is written with
the next one.
"""

import json
import logging
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TextIO

LEVELS: Final = ("debug", "info", "warning", "error")
REPEATS: Final = 5
WINDOW: Final = 10.0
REMEMBERED: Final = 1000
_SECRETS: Final[tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...]] = (
    (
        re.compile(
            r"(?i)(\bservers\.[a-z0-9-]+\.headers\.)?\b(authorization|proxy-authorization|cookie|set-cookie|mcp-session-id|x-api-key)"
            r"\b(['\"]?\s*[:=]\s*)[^\r\n]+"
        ),
        # a key of the configuration has what is wrong with it behind it, and never its value
        lambda found: found[0] if found[1] else f"{found[2]}{found[3]}***",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{4,}"), r"\1 ***"),
    (re.compile(r"(?i)([?&](?:[a-z0-9_-]*(?:key|token|secret|password|code))=)[^&\s'\"]+"), r"\1***"),
    (re.compile(r"(://)[^/@\s]+@"), r"\1***@"),
)
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def without_secrets(text: str) -> str:
    """The text with credentials replaced by `***`."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


class LineFormatter(logging.Formatter):
    """`2026-11-20T10:00:00Z warning penstock.http: what happened key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={value}" for key, value in _fields(record).items())
        return f"{_time(record)} {record.levelname.lower()} {record.name}: {_message(record)}{_printable(fields)}"


class JsonFormatter(logging.Formatter):
    """One JSON object per event."""

    def format(self, record: logging.LogRecord) -> str:
        event = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        fields = {key: without_secrets(str(value)) for key, value in _fields(record).items() if key not in event}
        return json.dumps(event | fields, ensure_ascii=False)


class RepeatFilter(logging.Filter):
    """Lets the first few equal lines of a window through and counts the rest."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}

    def __repr__(self) -> str:
        return f"<RepeatFilter {len(self._seen)} lines>"

    def filter(self, record: logging.LogRecord) -> bool:
        key, now = (record.name, record.levelno, record.getMessage()), self._now()
        since, count = self._seen.get(key, (now, 0))
        if now - since >= WINDOW:
            suppressed, since, count = count - REPEATS, now, 0
            if suppressed > 0:
                record.msg, record.args = f"{key[2]} (and {suppressed} more like it)", None
        if len(self._seen) >= REMEMBERED and key not in self._seen:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = (since, count + 1)
        return count < REPEATS


def set_up_logging(level: str, *, as_json: bool, stream: TextIO | None = None) -> None:
    """Send the log of the whole process to stderr in our form."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else LineFormatter())
    handler.addFilter(RepeatFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info:
        text += "\n" + logging.Formatter().formatException(record.exc_info)
    return _printable(text)


def _printable(text: str) -> str:
    """On one line and without secrets."""
    return without_secrets(text).replace("\r", "\\r").replace("\n", "\\n").replace("\x1b", "\\x1b")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}
