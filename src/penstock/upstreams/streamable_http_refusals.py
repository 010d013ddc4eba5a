"""What an HTTP answer that is no MCP answer means, in a sentence that says what to do.

Knows: statuses, headers, JSON-RPC errors in bodies. Does not know: sessions, eras' rules of retrying, connections.
"""

from typing import Final
from urllib.parse import urljoin, urlsplit

from penstock.errors import NeedsAuthorization, ServerBusy, ServerError, ServerMisbehaved, ServerUnavailable
from penstock.http.client import ConnectionLost, RequestFailed, Response, ResponseTooLarge
from penstock.protocol.envelopes import decode
from penstock.protocol.messages import Reply

_SHOWN: Final = 200


def error_reply(response: Response) -> Reply | None:
    """The JSON-RPC error in an answer's body, if there is one."""
    body = response.body
    if not body or len(body) > 1_000_000 or body.lstrip()[:1] != b"{":
        return None
    message = decode(body)
    return message if isinstance(message, Reply) and message.error is not None else None


def is_json(response: Response) -> bool:
    """Whether the body is said to be JSON."""
    kind = response.headers.get(b"content-type", b"")
    return kind.startswith(b"application/json") or b"json" in kind.partition(b";")[0].lower()


def is_event_stream(response: Response) -> bool:
    """Whether the answer was an event stream."""
    return response.headers.get(b"content-type", b"")[:17].lower() == b"text/event-stream"


def speaks_of_session(response: Response) -> bool:
    """Whether a 400 is the way in which some servers say that they do not know the session."""
    return response.status == 400 and b"session" in response.body[:2000].lower()


def failed_request(server: str, error: RequestFailed) -> ServerError:
    """No answer came at all."""
    if isinstance(error, ConnectionLost):
        hint = "check that it runs and that its URL is right" if error.unprocessed else "see its log"
        return ServerUnavailable(server, f"{error.reason}; {hint}")
    if isinstance(error, ResponseTooLarge):
        return ServerMisbehaved(server, f"{error.reason}; ask it for less, or raise '{_limit_of(error)}'")
    return ServerMisbehaved(server, f"{error.reason}; is its URL that of an HTTP server?")


def _limit_of(error: ResponseTooLarge) -> str:
    """The setting that bounds what was too large."""
    if "event" in error.reason:
        return "limits.event_bytes"
    if "head" in error.reason or "framing" in error.reason:
        return "limits.response_header_bytes"
    return "limits.response_bytes"


def refusal(server: str, url: str, response: Response) -> ServerError:
    """The answer's status, or its content, is not that of an MCP answer."""
    status = response.status
    said = _said(response)
    if status in (401, 403):
        return NeedsAuthorization(
            server,
            f"it answered HTTP {status}{said}; give Penstock a credential it accepts, for instance "
            f'headers = {{ Authorization = "…" }} in its configuration',
        )
    if 300 <= status < 400:
        return ServerMisbehaved(server, _redirect(url, response))
    if status == 404:
        return ServerMisbehaved(server, f"it answered HTTP 404{said}: nothing is served at this path; check its URL")
    if status == 405:
        return ServerMisbehaved(server, f"it answered HTTP 405{said}: this path takes no POST; check its URL")
    if status == 429:
        after = _printable(response.headers.get(b"retry-after", b"")[:40])
        return ServerBusy(server, f"it answered HTTP 429{said}; try again {f'after {after} s' if after else 'later'}")
    if status in (502, 503, 504):
        return ServerUnavailable(server, f"it answered HTTP {status}{said}; try again a little later")
    if status == 202:
        return ServerMisbehaved(server, "it accepted the request (HTTP 202) but did not answer it; see its log")
    if 200 <= status < 300:
        kind = _printable(response.headers.get(b"content-type", b"")[:60]) or "no content type"
        return ServerMisbehaved(
            server,
            f"it answered HTTP {status} with {kind} instead of JSON or an event stream; is this its MCP endpoint?",
        )
    return ServerMisbehaved(server, f"it answered HTTP {status}{said}; see its log")


def clause(error: ServerError) -> str:
    """The error's message as the second half of a sentence that begins with 'it'."""
    return error.message.removeprefix(f"server '{error.server}': ").removeprefix("it ")


def _redirect(url: str, response: Response) -> str:
    location = _printable(response.headers.get(b"location", b"")[:1000])
    if not location:
        return f"it answered HTTP {response.status} without saying where to; check its URL"
    try:
        target = urlsplit(urljoin(url, location))
        shown = f"{target.scheme}://{target.hostname or ''}{f':{target.port}' if target.port else ''}{target.path}"
    except ValueError:
        return f"it redirects (HTTP {response.status}) to something that is no URL; check its URL"
    return (
        f"it redirects (HTTP {response.status}), which Penstock does not follow; use this URL instead if you trust it: "
        f"{shown[:_SHOWN]}"
    )


def _said(response: Response) -> str:
    """The server's own words, if its body has some that can be shown."""
    reply = error_reply(response)
    if reply is not None and reply.error is not None and reply.error.message:
        return f" ({_printable(reply.error.message.encode()[: 2 * _SHOWN])[:_SHOWN]})"
    kind = response.headers.get(b"content-type", b"")
    if kind.startswith(b"text/plain") and response.body:
        return f" ({_printable(response.body[: 2 * _SHOWN])[:_SHOWN]})"
    return ""


def _printable(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace")
    return "".join(character if character.isprintable() else " " for character in text).strip()
