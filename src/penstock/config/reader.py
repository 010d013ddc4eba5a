"""One configuration, read at the start and again; and what of it could be used last.

Knows: the file, the flags. Does not know: who takes it up.
Invariant: a file that was there and is gone is a mistake like any other, not a configuration without servers: else whoever
moves it away for a moment would end them all.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from penstock.config.load import Flags, Source, judge, load
from penstock.config.settings import Settings
from penstock.errors import ConfigError


class Reader:
    """Call it to read the configuration. Processes forked after `share` tell each other what they could use."""

    def __init__(
        self, path: Path, *, name: str, environment: Mapping[str, str], flags: Flags, must_exist: bool
    ) -> None:
        """`must_exist`: else a file that has never been there counts as empty. `name`: what messages call it."""
        self._path = path
        self._name = name
        self._environment = environment
        self._flags = flags
        self._must_exist = must_exist
        self._text: str | None = None
        """What was read last and could be used; None while no file was there."""
        self._shared: IO[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Reader {self._name}>"

    def __call__(self) -> Settings:
        """The configuration as it is now.

        Raises:
            ConfigError: it cannot be used.
        """
        if self._text is not None and not self._path.exists():
            raise ConfigError("the file is gone; put it back, or leave an empty one for no servers", file=self._name)
        loaded = load(
            self._path,
            name=self._name,
            environment=self._environment,
            flags=self._flags,
            must_exist=self._must_exist,
        )
        if self._path.exists():
            self._text = loaded.text
            self._write()
        return loaded.settings

    def share(self) -> None:
        """To be called before others are forked."""
        self._shared = tempfile.TemporaryFile()  # noqa: SIM115 - open for as long as the processes live
        self._write()

    def close(self) -> None:
        """Share no more."""
        if self._shared is not None:
            self._shared.close()
            self._shared = None

    def last_good(self) -> Settings | None:
        """What could be used last, here or by those we share with; None when that cannot be used any more, or was no file."""
        shared = self._shared
        if shared is not None:
            with _locked(shared, fcntl.LOCK_SH):
                text = os.pread(shared.fileno(), os.fstat(shared.fileno()).st_size, 0).decode()
            if text or self._text is not None:  # else no file was there when we began to share
                self._text = text
        if self._text is None:
            return None
        source = Source(self._text, self._name, self._path.absolute().parent)
        loaded, problems = judge(
            source, path=self._path, environment=self._environment, flags=self._flags, resolve=True
        )
        return None if problems else loaded.settings

    def _write(self) -> None:
        if self._shared is not None and self._text is not None:
            with _locked(self._shared, fcntl.LOCK_EX):
                os.truncate(self._shared.fileno(), 0)
                os.pwrite(self._shared.fileno(), self._text.encode(), 0)


@contextmanager
def _locked(file: IO[bytes], how: int) -> Iterator[None]:
    """Locks of a process, not of an open file: those who share have the same open file."""
    fcntl.lockf(file, how)
    try:
        yield
    finally:
        fcntl.lockf(file, fcntl.LOCK_UN)
