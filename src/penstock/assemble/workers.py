"""Several processes that serve one configuration on the same ports.

Knows: the supervisor, what a worker runs. Does not know: how either works.
"""

from collections.abc import Callable

import msgspec

from penstock.assemble import process
from penstock.assemble.process import RunOptions
from penstock.config.settings import Settings
from penstock.control.supervisor import CANNOT_START, Supervisor, WorkerPlace, free_ports
from penstock.errors import PenstockError


def run_workers(settings: Settings, reload: Callable[[], Settings], options: RunOptions) -> int:
    """Serve with `options.workers` processes until SIGTERM or SIGINT; returns the exit code."""
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
        mine = msgspec.structs.replace(options, place=place)
        if not place.is_first or place.is_restart:
            mine = msgspec.structs.replace(mine, on_ready=lambda _report: None)
        if not place.is_first:
            mine = msgspec.structs.replace(mine, on_listening=lambda _url, _admin: None)
        try:
            return process.run(with_ports(settings), lambda: with_ports(reload()), mine)
        except PenstockError as error:
            options.on_failure(error)
            return CANNOT_START

    try:
        return Supervisor(options.workers, work).run()
    finally:
        for sock in (*kept_data, *kept_admin):
            sock.close()
