"""Answers that are encoded when the snapshot is built and only stitched together when asked for.

Knows: items, pages, both eras' shapes. Does not know: who asks. One page holds 1,000 items, because many clients ignore
cursors.
"""

from collections.abc import Sequence
from typing import Final

from penstock.errors import SealError
from penstock.gateway.listing import ListKind
from penstock.identity.seal import Sealer
from penstock.protocol.results import to_legacy

PAGE_ITEMS: Final = 1_000
_CURSOR: Final = b"cursor"


class PreparedList:
    """One list of one view."""

    def __init__(
        self,
        kind: ListKind,
        items: Sequence[bytes],
        *,
        view: str,
        public: bool,
        server_info: bytes,
        sealer: Sealer,
    ) -> None:
        self._kind = kind
        self._view = view
        self._sealer = sealer
        scope = b"public" if public else b"private"
        self._modern = [
            b'{"resultType":"complete","%b":[%b],%b"_meta":{"io.modelcontextprotocol/serverInfo":%b},"cacheScope":"%b","ttlMs":'
            % (
                kind.field.encode(),
                b",".join(items[at : at + PAGE_ITEMS]),
                self._next(at, len(items)),
                server_info,
                scope,
            )
            for at in range(0, max(len(items), 1), PAGE_ITEMS)
        ]
        self._legacy: dict[tuple[str, int], bytes] = {}
        self.count: Final = len(items)
        self.fingerprint: Final = hash(tuple(items))
        """Differs when clients would see another list, for as long as the process lives."""

    def __repr__(self) -> str:
        return f"<PreparedList {self._view or 'all'} {self._kind.method} {self.count} items>"

    def modern(self, cursor: str | None, ttl_ms: int) -> bytes | None:
        """The result for a modern client, fresh for so long; None when the cursor is not one of ours."""
        page = self._page(cursor)
        if page is None:
            return None
        return b"%b%d}" % (self._modern[page], ttl_ms)

    def legacy(self, cursor: str | None, revision: str) -> bytes | None:
        """The result for a legacy client of that revision; None when the cursor is not one of ours."""
        page = self._page(cursor)
        if page is None:
            return None
        known = self._legacy.get((revision, page))
        if known is None:
            legacy = to_legacy(self._modern[page] + b"0}", self._kind.method, revision)
            assert isinstance(legacy, bytes), "what we encoded is an object that is complete"
            known = legacy
            self._legacy[revision, page] = known  # bounded: revisions and pages are both few
        return known

    def _next(self, at: int, total: int) -> bytes:
        following = at + PAGE_ITEMS
        if following >= total:
            return b""
        token = self._sealer.seal(_CURSOR, f"{self._view}\n{self._kind.method}\n{following}".encode())
        return b'"nextCursor":"%b",' % token.encode()

    def _page(self, cursor: str | None) -> int | None:
        if cursor is None:
            return 0
        try:
            view, method, at = self._sealer.open(_CURSOR, cursor).decode().split("\n")
        except SealError:
            return None
        page = int(at) // PAGE_ITEMS
        if view != self._view or method != self._kind.method:
            return None
        return page if page < len(self._modern) else None
