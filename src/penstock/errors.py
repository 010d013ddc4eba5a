"""Every error Penstock raises, one tree.

    PenstockError
    ├── ConfigError              what somebody wrote down cannot be used
    ├── ListenError              the address cannot be served
    ├── GatewayNotFound          no running gateway answers where the runtime file points
    │   └── GatewayNotChosen     several run, and nobody said which is meant
    ├── SealError                a sealed token was not made by us, or has expired
    └── ServerError              a server behind Penstock did not answer as it should
        ├── ServerUnavailable    it cannot be reached, or went away before it answered      503
        ├── ServerBusy           no connection or session became free in time               503
        ├── ServerTimedOut       the deadline passed                                        504
        ├── ServerMisbehaved     it answered with something that is no answer               502
        └── NeedsAuthorization   it answered 401 or 403: our credential for it is missing   502

Codes of `ServerError` are HTTP statuses, outside the range JSON-RPC reserves, so that a client can tell Penstock's errors
from a server's own. The class's docstring is its default message.
"""

from typing import ClassVar


class PenstockError(Exception):
    """Something went wrong in Penstock."""

    exit_code: ClassVar[int] = 3
    """Of a command that ends with it."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())

    @property
    def message(self) -> str:
        """What was expected, what came, where, and what to do next; safe to show to a client."""
        return str(self.args[0])


class ConfigError(PenstockError):
    """The configuration cannot be used."""

    exit_code = 2

    def __init__(self, message: str, *, file: str = "", line: int = 0, key: str = "") -> None:
        self.file, self.line, self.key = file, line, key
        place = f"{file}:{line}: " if file and line else f"{file}: " if file else ""
        super().__init__(f"{place}{key + ': ' if key else ''}{message}")


class ListenError(PenstockError):
    """The address cannot be served."""


class GatewayNotFound(PenstockError):
    """No running gateway was found; start one with 'penstock serve'."""

    exit_code = 4


class GatewayNotChosen(GatewayNotFound):
    """Several gateways run; choose one with --gateway URL."""


class SealError(PenstockError):
    """The token is not one of ours, or has expired."""


class ServerError(PenstockError):
    """The server did not answer as it should."""

    status: ClassVar[int] = 502
    """JSON-RPC code, and HTTP status towards modern clients."""
    reason: ClassVar[str] = "server_error"
    """One word for programs, sent as `data.reason`."""
    retry_helps: ClassVar[bool] = False
    """Whether the same call may succeed a little later."""

    def __init__(self, server: str, message: str = "") -> None:
        self.server = server
        super().__init__(f"server '{server}': {message or (type(self).__doc__ or '').strip()}")


class ServerUnavailable(ServerError):
    """The server cannot be reached, or went away before it answered."""

    status = 503
    reason = "server_unavailable"
    retry_helps = True


class ServerBusy(ServerError):
    """No connection or session became free in time."""

    status = 503
    reason = "server_busy"
    retry_helps = True


class ServerTimedOut(ServerError):
    """The server did not answer before the deadline."""

    status = 504
    reason = "deadline_exceeded"
    retry_helps = True


class ServerMisbehaved(ServerError):
    """The server's answer is not a valid MCP answer."""

    reason = "bad_answer"


class NeedsAuthorization(ServerError):
    """The server needs authorization that Penstock was not given."""

    reason = "needs_authorization"


def forget_frames(error: BaseException) -> None:
    """Let go of the frames an error came through, and its causes: they hold it, and with it all they worked on.

    For errors that have been told: else each one waits for the collector, with the request that it refused.
    """
    left: BaseException | None = error
    while left is not None:
        cause = left.__cause__ or left.__context__
        left.__traceback__ = left.__cause__ = left.__context__ = None
        left = cause
