"""Tell from a stdio server's answers which era it speaks.

Knows: what `server/discover` and `initialize` answer (docs/specification/2026-07-28/basic/transports/stdio,
'Backward Compatibility'). Does not know: processes, time.
Invariant: a server is taken for legacy on anything but a `DiscoverResult` or a recognised modern error; never by one code.
"""

from typing import Final, NamedTuple

import msgspec

from penstock.protocol.errors import HEADER_MISMATCH, MISSING_CLIENT_CAPABILITY, UNSUPPORTED_VERSION
from penstock.protocol.messages import Reply, RpcError
from penstock.protocol.meta import SERVER_INFO
from penstock.protocol.versions import LEGACY_VERSIONS, MODERN_VERSIONS, Era, era_of
from penstock.upstreams.calls import Raw
from penstock.upstreams.interface import Description

_EMPTY: Final = Raw(b"{}")


class Agreement(NamedTuple):
    """What both sides will speak on one process."""

    era: Era
    version: str
    description: Description


class Modern(NamedTuple):
    """The server is modern and we have a revision in common."""

    agreement: Agreement


class SpeaksOnly(NamedTuple):
    """The server is modern and refused our revision; these are its own, those we know first."""

    supported: tuple[str, ...]

    def common(self, era: Era) -> str | None:
        """The newest revision of that era which both sides know."""
        known = MODERN_VERSIONS if era is Era.MODERN else LEGACY_VERSIONS
        return next((version for version in known if version in self.supported), None)


class NotModern(NamedTuple):
    """The answer is not one a modern server gives."""

    why: str


DiscoverVerdict = Modern | SpeaksOnly | NotModern


class _DiscoverResult(msgspec.Struct):
    supported_versions: list[str] = msgspec.field(name="supportedVersions")
    capabilities: Raw = _EMPTY
    instructions: str | None = None
    ttl_ms: float | None = msgspec.field(name="ttlMs", default=None)
    meta: dict[str, Raw] = msgspec.field(name="_meta", default_factory=dict)


class _InitializeResult(msgspec.Struct):
    protocol_version: str = msgspec.field(name="protocolVersion")
    capabilities: Raw = _EMPTY
    server_info: Raw = msgspec.field(name="serverInfo", default=_EMPTY)
    instructions: str | None = None


class _Supported(msgspec.Struct):
    supported: list[str]


_decode_discover = msgspec.json.Decoder(_DiscoverResult).decode
_decode_initialize = msgspec.json.Decoder(_InitializeResult).decode
_decode_supported = msgspec.json.Decoder(_Supported).decode


def judge_discover(reply: Reply, asked: str) -> DiscoverVerdict:
    """What the answer to `server/discover`, asked in revision `asked`, says of the server."""
    if reply.error is not None:
        return _judge_error(reply.error, asked)
    try:
        result = _decode_discover(reply.result or b"")
    except msgspec.MsgspecError as error:
        return NotModern(f"answered server/discover with something else ({error})")
    supported = tuple(result.supported_versions)
    version = asked if asked in supported else SpeaksOnly(supported).common(Era.MODERN)
    if version is None:
        return SpeaksOnly(supported)
    description = Description(
        eras=(Era.MODERN,),
        versions=supported,
        server_info=_object(result.meta.get(SERVER_INFO, _EMPTY)),
        capabilities=_object(result.capabilities),
        instructions=result.instructions or "",
        ttl_ms=max(0, int(result.ttl_ms or 0)),
    )
    return Modern(Agreement(Era.MODERN, version, description))


def judge_initialize(reply: Reply) -> Agreement | str:
    """What both sides agreed on, or in words why they did not."""
    if reply.error is not None:
        return f"refused initialize with error {reply.error.code} ({reply.error.message})"
    try:
        result = _decode_initialize(reply.result or b"")
    except msgspec.MsgspecError as error:
        return f"answered initialize with something else ({error})"
    if result.protocol_version not in LEGACY_VERSIONS:
        known = ", ".join(LEGACY_VERSIONS)
        return f"answered initialize with revision '{result.protocol_version}', which Penstock does not know ({known})"
    description = Description(
        eras=(Era.LEGACY,),
        versions=(result.protocol_version,),
        server_info=_object(result.server_info),
        capabilities=_object(result.capabilities),
        instructions=result.instructions or "",
    )
    return Agreement(Era.LEGACY, result.protocol_version, description)


def _judge_error(error: RpcError, asked: str) -> DiscoverVerdict:
    if error.code == UNSUPPORTED_VERSION:
        try:
            return SpeaksOnly(tuple(_decode_supported(error.data or b"").supported))
        except msgspec.MsgspecError:
            return NotModern(f"refused server/discover with error {error.code} and no list of versions")
    if error.code in {HEADER_MISMATCH, MISSING_CLIENT_CAPABILITY}:
        # It would not describe itself to us, but only a modern server says no in these words.
        unknown = Description(eras=(Era.MODERN,), versions=(asked,), server_info=_EMPTY, capabilities=_EMPTY)
        return Modern(Agreement(Era.MODERN, asked, unknown))
    return NotModern(f"refused server/discover with error {error.code} ({error.message})")


def pinned_era(protocol: str) -> Era | None:
    """The era of a `protocol` setting; None for `auto`."""
    return None if protocol == "auto" else era_of(protocol)


def _object(raw: Raw) -> Raw:
    """An owned copy of a JSON object; `{}` for anything else."""
    value = bytes(raw)
    return Raw(value) if value.startswith(b"{") else _EMPTY
