"""Start a real `penstock serve` for tests, on free ports, with a home and a state directory of its own.

Knows: the command line and the runtime file. Does not know: anything inside Penstock.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from tests.peers.environments import gateway_environment, penstock_command
from tests.peers.processes import Child, ProcessFailed, make_home

START_SECONDS = 20.0


class Gateway(Child):
    """A running gateway."""

    def __init__(self, folder: Path, arguments: Sequence[str]) -> None:
        self._state = folder / "state"
        environment = gateway_environment(make_home(folder), PENSTOCK_STATE_DIR=str(self._state))
        command = [*penstock_command(), "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", *arguments]
        super().__init__("penstock serve", command, environment, ends_with_input=False)
        try:
            self.root = self._wait_for_url()
        except ProcessFailed:
            self.end()
            raise

    def _wait_for_url(self) -> str:
        give_up_at = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up_at and self.is_running():
            for path in (self._state / "runtime").glob("*.json"):
                url = str(json.loads(path.read_text("utf-8"))["url"])
                return url.rsplit("/mcp", 1)[0]
            time.sleep(0.02)
        raise ProcessFailed(f"penstock serve was not ready within {START_SECONDS} s\n{self.stderr_tail()}")

    def view(self, name: str | None = None) -> str:
        """The URL of one server's own view, or of the view of all."""
        return f"{self.root}/mcp/{name}" if name else f"{self.root}/mcp"
