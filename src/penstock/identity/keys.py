"""Where sealing keys live: one file, read by its owner alone, that survives restarts.

Knows: the file. Does not know: what is sealed. A restart with the same keys keeps legacy sessions valid, because many clients
never initialize again.
"""

import binascii
import os
from pathlib import Path
from typing import Final

from penstock.errors import ConfigError
from penstock.identity.seal import KEY_BYTES, SealingKey

FILE_NAME: Final = "sealing.keys"
_KEY_ID_BYTES: Final = 4
_MAX_KEYS: Final = 8


def load_or_create(folder: Path) -> list[SealingKey]:
    """The keys in `folder`, newest first; a first key is made when there is none. The folder is made with mode 0700.

    Raises:
        ConfigError: the file is not one of ours, or the folder cannot be used.
    """
    path = folder / FILE_NAME
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists():
            return _parse(path, path.read_text("ascii"))
        return _create(path)
    except UnicodeDecodeError as error:
        raise ConfigError("expected lines of KEY-ID:KEY in hex, got binary data", file=str(path)) from error
    except OSError as error:
        raise ConfigError(
            f"sealing keys cannot be kept here: {error.strerror}; set PENSTOCK_STATE_DIR to a folder that can be written",
            file=str(folder),
        ) from error


def _create(path: Path) -> list[SealingKey]:
    """Write a first key; when another process was faster, take its key."""
    key = SealingKey.generate()
    draft = path.with_name(f"{FILE_NAME}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{key.key_id.hex()}:{key.secret.hex()}\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # fails when it exists: two starting gateways agree on one key
    except FileExistsError:
        return _parse(path, path.read_text("ascii"))
    finally:
        draft.unlink()
    return [key]


def _parse(path: Path, text: str) -> list[SealingKey]:
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        key_id, _, secret = line.strip().partition(":")
        try:
            key = SealingKey(binascii.unhexlify(key_id), binascii.unhexlify(secret))
        except (binascii.Error, ValueError) as error:
            raise ConfigError("expected KEY-ID:KEY in hex", file=str(path), line=number) from error
        if len(key.key_id) != _KEY_ID_BYTES or len(key.secret) != KEY_BYTES:
            raise ConfigError(f"expected 4 and {KEY_BYTES} bytes in hex", file=str(path), line=number)
        keys.append(key)
    if not 1 <= len(keys) <= _MAX_KEYS:
        raise ConfigError(
            f"expected 1 to {_MAX_KEYS} keys, got {len(keys)}; move the file away to start anew", file=str(path)
        )
    return keys
