"""Several processes that serve one configuration on the same ports.

Knows: the supervisor, what a worker runs. Does not know: how either works.
"""

import contextlib
import logging
import os
import time
from typing import Any, Final

import msgspec

from penstock.assemble import process
from penstock.assemble.process import RunOptions
from penstock.config.reader import Reader
from penstock.config.settings import Settings
from penstock.control.supervisor import CANNOT_START, Supervisor, WorkerPlace, free_ports
from penstock.control.worker_pages import Refusal
from penstock.errors import ConfigError, ListenError, PenstockError

_log = logging.getLogger(__name__)
_MAX_TOLD: Final = 4096
"""Bytes of one error: what a pipe takes whole."""


def run_workers(settings: Settings, reload: Reader, options: RunOptions) -> int:
    """Serve with `options.workers` processes until SIGTERM or SIGINT; returns the exit code.

    Raises:
        PenstockError: they could not start; the message says why.
    """
    data, kept_data = free_ports(settings.listen.data)
    admin, kept_admin = free_ports(settings.listen.admin)
    configured = settings.listen

    def with_ports(read: Settings) -> Settings:
        """All workers on the same ports, also where any will do."""
        listen = read.listen
        if listen.data == configured.data:
            listen = msgspec.structs.replace(listen, data=tuple(data))
        if listen.admin == configured.admin:
            listen = msgspec.structs.replace(listen, admin=tuple(admin))
        return msgspec.structs.replace(read, listen=listen)

    def work(place: WorkerPlace) -> int:
        _log_as(place.index)
        for sock in (*kept_data, *kept_admin):
            sock.close()
        mine = msgspec.structs.replace(options, place=place)
        if not place.is_first or place.is_restart:
            mine = msgspec.structs.replace(mine, on_ready=lambda _report: None)
        has_started = False

        def listening(url: str, admin: str) -> None:
            nonlocal has_started
            has_started = True
            if place.is_first:
                options.on_listening(url, admin)

        mine = msgspec.structs.replace(mine, on_listening=listening)
        try:
            newest, refusal = _newest(settings, reload, place)
            mine = msgspec.structs.replace(mine, refusal=refusal)
            return process.run(with_ports(newest), lambda: with_ports(reload()), mine)
        except PenstockError as error:
            if has_started:
                raise
            failures.tell(error)
            if place.is_restart:
                _log.error("worker %d cannot start: %s", place.index, error.message)
            return CANNOT_START

    failures = _Failures()
    reload.share()
    try:
        code = Supervisor(options.workers, work).run()
        if code == CANNOT_START:
            raise failures.first()
        return code
    finally:
        reload.close()
        failures.close()
        for sock in (*kept_data, *kept_admin):
            sock.close()


def _newest(settings: Settings, reload: Reader, place: WorkerPlace) -> tuple[Settings, Refusal | None]:
    """What a worker starts with: one that takes a dead one's place must know what the others have taken up meanwhile."""
    if not place.is_restart:
        return settings, None
    try:
        return reload(), None
    except PenstockError as error:
        _log.error("configuration not taken up, worker %d has the one before: %s", place.index, error.message)
        return reload.last_good() or settings, Refusal(error.message, time.time())


def _log_as(worker: int) -> None:
    """From now on every log line of this process says which worker it is of."""
    make = logging.getLogRecordFactory()

    def made(*args: Any, **more: Any) -> logging.LogRecord:
        record = make(*args, **more)
        record.worker = worker
        return record

    logging.setLogRecordFactory(made)


class _Failures:
    """Why workers could not start: said in their processes, raised in ours, so that it reads as from a single process."""

    def __init__(self) -> None:
        self._told, self._tell = os.pipe()
        os.set_blocking(self._told, False)
        os.set_blocking(self._tell, False)

    def __repr__(self) -> str:
        return f"<_Failures {self._told}>"

    def tell(self, error: PenstockError) -> None:
        kind = b"config" if isinstance(error, ConfigError) else b"listen"
        line = b"%b %b" % (kind, error.message.replace("\n", " ").encode()[: _MAX_TOLD - 10])
        with contextlib.suppress(BlockingIOError):  # many have told already
            os.write(self._tell, line + b"\n")

    def first(self) -> PenstockError:
        try:
            line = os.read(self._told, _MAX_TOLD).partition(b"\n")[0]
        except BlockingIOError:
            line = b""
        kind, _, message = line.decode(errors="replace").partition(" ")
        return (ConfigError if kind == "config" else ListenError)(message)

    def close(self) -> None:
        os.close(self._told)
        os.close(self._tell)
