"""The last known good listing of each server, on disk.

Knows: one file for each server. Does not know: when listings are fetched. A listing is found again only for the very same
target (URL or command): the fingerprint in the file must match, else it is as if there were none.
"""

import logging
import os
import threading
from pathlib import Path
from typing import Final

import msgspec

from penstock.gateway.listing import Listing

_log = logging.getLogger(__name__)
MAX_BYTES: Final = 64 * 1024 * 1024


class _Kept(msgspec.Struct):
    fingerprint: str
    listing: Listing


class KnownLists:
    """Reads and writes `FOLDER/NAME.json`. Failing to write is reported, never raised: it must not stop a call."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __repr__(self) -> str:
        return f"<KnownLists {self._folder}>"

    def load(self, server: str, fingerprint: str) -> Listing | None:
        path = self._folder / f"{server}.json"
        try:
            if path.stat().st_size > MAX_BYTES:
                return None
            kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            _log.warning("last known lists of server '%s' cannot be read (%s): %s", server, path, error)
            return None
        return kept.listing if kept.fingerprint == fingerprint else None

    def save(self, server: str, fingerprint: str, listing: Listing) -> None:
        path = self._folder / f"{server}.json"
        draft = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.new")  # two may be writing at a time
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.write_bytes(msgspec.json.encode(_Kept(fingerprint, listing)))
            draft.replace(path)
        except OSError as error:
            _log.warning("last known lists of server '%s' cannot be kept (%s): %s", server, path, error)

    def forget(self, server: str) -> None:
        (self._folder / f"{server}.json").unlink(missing_ok=True)
