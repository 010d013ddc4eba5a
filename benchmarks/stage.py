"""Everything that runs while measuring: raw servers, relays, nginx, the gateway.

Knows: how each is started and where it listens. Does not know: what is measured.
"""

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self
from urllib.parse import urlsplit

from benchmarks import nginx
from benchmarks.messages import Era
from benchmarks.processes import Failed, Process
from benchmarks.rows import Row

START_SECONDS: Final = 20.0
LISTENS: Final = "Penstock listens on "


class Place(NamedTuple):
    """Where a row's calls go, and whose CPU time counts."""

    process: Process
    port: int
    path: str
    tool_prefix: str = ""


class Stage:
    """The processes of one run; all end with the `with` block."""

    def __init__(self, folder: Path, *, delay_ms: float = 0.0) -> None:
        self.folder = folder
        self._delay_ms = delay_ms
        self._open = ExitStack()
        self._places: dict[tuple[str, Era], Place] = {}
        self.raw_ports: dict[str, int] = {}
        self.processes: list[Process] = []

    def __repr__(self) -> str:
        return f"<Stage {self.folder} {self.processes!r}>"

    def __enter__(self) -> Self:
        with ExitStack() as unless_complete:
            unless_complete.callback(self._open.close)
            self._start()
            unless_complete.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def place(self, row: Row) -> Place:
        """Where the calls of a row go."""
        return self._places[row.through, row.server]

    def add(self, through: str, server: Era, place: Place) -> None:
        """One more thing to measure, already running; it ends with the others."""
        self.keep(place.process)
        self._places[through, server] = place

    def keep(self, process: Process) -> Process:
        """End a process with the others."""
        self._open.callback(process.stop)
        self.processes.append(process)
        return process

    def start_gateway(self, *, command: tuple[str | Path, ...] | None = None) -> tuple[Process, int]:
        """A gateway in front of the raw servers, and its data port."""
        return start_gateway(self.folder, self.raw_ports, command=command)

    def start_gateway_for(self, row: Row, command: tuple[str | Path, ...]) -> Process:
        """A gateway that runs in another way than by its name, in the place of the one that the row goes through.

        Raises:
            Failed: the row goes through none, or through several processes.
        """
        if row.through != "gateway":
            raise Failed(f"{row.name} does not go through one process of the gateway; there is nothing to look into")
        process, port = self.start_gateway(command=command)
        self.add("gateway", row.server, Place(process, port, self.place(row).path))
        return process

    def _start(self) -> None:
        for era in _ERAS:
            raw = self._python(f"raw-{era}", "benchmarks.raw_server", era, "--delay-ms", str(self._delay_ms))
            self.raw_ports[era] = raw.port
            self._places["raw", era] = raw
            self._places["floor", era] = self._python(f"floor-{era}", "benchmarks.relay", str(raw.port))
        process, port = nginx.start(self.folder / "nginx", self.raw_ports)
        self.keep(process)
        gateway, gateway_port = self.start_gateway()
        self.keep(gateway)
        several = self.folder / "workers"
        several.mkdir()
        workers, workers_port = start_gateway(several, self.raw_ports, workers=2)
        self.keep(workers)
        for era in _ERAS:
            self._places["nginx", era] = Place(process, port, f"/{era}")
            self._places["gateway", era] = Place(gateway, gateway_port, f"/mcp/{era}")
            self._places["workers", era] = Place(workers, workers_port, f"/mcp/{era}")

    def _python(self, name: str, module: str, *words: str) -> Place:
        process = self.keep(Process(name, [sys.executable, "-m", module, *words], self.folder / f"{name}.log"))
        return Place(process, int(process.wait_for_line("listening ", START_SECONDS)), "/mcp")


_ERAS: Final[tuple[Era, Era]] = ("modern", "legacy")


def penstock() -> Path:
    """The program, as it was installed beside the Python that runs this."""
    return Path(sys.executable).with_name("penstock")


def write_configuration(folder: Path, raw_ports: dict[str, int]) -> Path:
    """A configuration file that names the raw servers and leaves everything else as it is by default."""
    file = folder / "penstock.toml"
    file.write_text(
        "".join(f'[servers.{name}]\nurl = "http://127.0.0.1:{port}/mcp"\n\n' for name, port in raw_ports.items()),
        "utf-8",
    )
    file.chmod(0o600)
    return file


def serve_command(configuration: Path) -> list[str | Path]:
    """What comes after the program's name to serve that configuration on free ports."""
    return ["serve", "--config", configuration, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]


def clean_environment(state: Path) -> dict[str, str]:
    """This environment, with nothing in it that changes a gateway, and its state in a folder of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    return kept | {"PENSTOCK_STATE_DIR": str(state)}


def start_gateway(
    folder: Path, raw_ports: dict[str, int], *, command: tuple[str | Path, ...] | None = None, workers: int = 1
) -> tuple[Process, int]:
    """A gateway in front of raw servers, and its data port. `command` runs `penstock` in another way than by its name."""
    configuration = write_configuration(folder, raw_ports)
    words = [*(command or (penstock(),)), *serve_command(configuration), "--workers", str(workers)]
    process = Process("gateway", words, folder / "gateway.log", clean_environment(folder / "state"))
    try:
        url = process.wait_for_line(LISTENS, START_SECONDS)
        return process, urlsplit(url).port or 0
    except BaseException:
        process.stop()
        raise
