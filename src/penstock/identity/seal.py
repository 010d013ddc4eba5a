"""Tokens only this gateway can make and read: session ids and cursors, later `requestState` and task ids.

Knows: keys, purposes, the clock. Does not know: HTTP, JSON-RPC, what the payload means.

A token is base64url(key id ‖ nonce ‖ AES-256-GCM(payload)); the purpose is bound as associated data, so that a cursor can
never pass for a session. Sealing costs about 2 µs. Source: NIST SP 800-38D; random 96-bit nonces are safe far beyond 2^32
tokens a key would see between rotations.
"""

import base64
import binascii
import os
from collections.abc import Sequence
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from penstock.errors import SealError

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_KEY_ID_BYTES: Final = 4
_MAX_TOKEN: Final = 8192


class SealingKey(NamedTuple):
    """One key and the short public name that tokens carry to find it again."""

    key_id: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"<SealingKey {self.key_id.hex()}>"

    @classmethod
    def generate(cls) -> "SealingKey":
        return cls(os.urandom(_KEY_ID_BYTES), os.urandom(KEY_BYTES))


class Sealer:
    """Seals with the first key, opens with any of them: put a new key first to rotate without breaking live tokens."""

    def __init__(self, keys: Sequence[SealingKey]) -> None:
        if not keys:
            raise ValueError("a Sealer needs at least one key")
        self._ciphers = {key.key_id: AESGCM(key.secret) for key in keys}
        self._newest = keys[0].key_id

    def __repr__(self) -> str:
        return f"<Sealer {len(self._ciphers)} keys, newest {self._newest.hex()}>"

    def seal(self, purpose: bytes, payload: bytes) -> str:
        """A URL- and header-safe token of about 4/3 × (payload + 32) characters."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self._newest].encrypt(nonce, payload, purpose)
        return base64.urlsafe_b64encode(self._newest + nonce + sealed).rstrip(b"=").decode("ascii")

    def open(self, purpose: bytes, token: str | bytes, *, max_token: int = _MAX_TOKEN) -> bytes:
        """The payload of a token sealed for this purpose, of at most that many characters.

        Raises:
            SealError: it is not ours, was altered, or was sealed for something else. The message does not say which.
        """
        if len(token) > max_token:
            raise SealError
        encoded = token.encode("ascii", "replace") if isinstance(token, str) else token
        try:
            raw = base64.b64decode(encoded + b"=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
            cipher = self._ciphers[raw[:_KEY_ID_BYTES]]
            nonce = raw[_KEY_ID_BYTES : _KEY_ID_BYTES + _NONCE_BYTES]
            return cipher.decrypt(nonce, raw[_KEY_ID_BYTES + _NONCE_BYTES :], purpose)
        except (binascii.Error, KeyError, ValueError, InvalidTag) as error:
            raise SealError from error
