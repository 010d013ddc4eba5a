"""Runs the console blocks of the documents as their reader would, in an empty home, and says what came out.

Knows: the shell, a running gateway, which parts of an output are never twice the same. Does not know: Markdown.
A document says 127.0.0.1:8080; here every gateway and server gets a free port, and both are exchanged on the way in and out.
`uvx` and `npx` run the locked packages of `.cache/peers` instead of fetching them, and `curl` is a few lines of Python, so that
what is printed depends on nothing but this checkout.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

ROOT: Final = Path(__file__).resolve().parent.parent
PEERS: Final = ROOT / ".cache" / "peers"
ADDRESSES: Final = ("127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:3001")
"""What documents call the data port, the admin port, and a server over HTTP."""
START_SECONDS: Final = 30.0
RUN_SECONDS: Final = 30.0
_UVX: Final = '#!/bin/sh\nname=$1\nshift\nexec "{peers}/modern/bin/$name" "$@"\n'
_NPX: Final = """#!/bin/sh
[ "$1" != -y ] || shift
name=$1
shift
exec "{node}" "{peers}/node/node_modules/$name/dist/index.js" "$@"
"""
_CURL: Final = """#!{python}
import sys, urllib.error, urllib.request
words, headers, body, url = sys.argv[1:], {{}}, None, ""
while words:
    word = words.pop(0)
    if word == "-H":
        name, _, value = words.pop(0).partition(": ")
        headers[name] = value
    elif word == "-d":
        body = words.pop(0).encode()
    elif word != "-s":
        url = word
try:
    answer = urllib.request.urlopen(urllib.request.Request(url, body, headers))
except urllib.error.HTTPError as error:
    answer = error
sys.stdout.buffer.write(answer.read())
"""
_VOLATILE: Final = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?"), "TIME"),
    (re.compile(r"\b(Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day\b"), "DAY"),
    (re.compile(r"(?<=generation )\d+|(?<=\"generation\":)\d+|(?<=penstock_generation )[\d.]+"), "N"),
    (re.compile(r"(?<=pid )\d+|(?<=kill )\d+|(?<=pid: )\d+"), "PID"),
    (re.compile(r"(?<=open files: at most )\d+"), "N"),
    (re.compile(r"(?<=p50: |p95: |p99: )[\d.]+|(?<=dur=)[\d.]+|(?<=seconds: )\d+\.\d+|(?<=stderr bytes: )\d+"), "N"),
    (re.compile(r"[0-9a-f]{16,}"), "HEX"),
)


class Failed(Exception):
    """A command of a document could not be run."""


class Console:
    """An empty home and what runs in it. Use as a context manager: nothing is left behind."""

    def __init__(self) -> None:
        self._folder: Final = Path(tempfile.mkdtemp(prefix="penstock-docs-"))
        self._started: list[subprocess.Popen[str]] = []
        self._has_gateway = False
        self._actual: Final = dict(zip(ADDRESSES, _free_addresses(len(ADDRESSES)), strict=True))
        self._environment: Final = {
            "HOME": str(self._folder / "home"),
            "PATH": f"{self._folder / 'bin'}:{os.environ.get('PATH', os.defpath)}",
            "PENSTOCK_LISTEN": self._actual[ADDRESSES[0]],
            "PENSTOCK_ADMIN": self._actual[ADDRESSES[1]],
            "LANG": "C.UTF-8",
            "COLUMNS": "120",
            "NO_COLOR": "1",
        }
        (self._folder / "home").mkdir()
        self._write_programs()

    def __repr__(self) -> str:
        return f"<Console {self._folder} [{len(self._started)} started]>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._started):
            _end(process)
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, command: str) -> str:
        """What the command prints, stderr included, without a newline at the end, without what `scripts/prepare` says.

        A `serve` and what ends in ` &` go on running until the end.

        Raises:
            Failed: it did not start or did not end in time.
        """
        said = self._to_document(self._run(self._from_document(command)))
        return "\n".join(line.rstrip() for line in said.rstrip("\n").split("\n") if not line.startswith("prepare: "))

    def _run(self, command: str) -> str:
        if command.startswith("scripts/serve") and not self._has_gateway:
            return self._start_gateway(command)
        if command.endswith(" &"):
            return self._start_server(command)
        words = ["bash", "-c", command]
        try:
            done = subprocess.run(
                words, cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, timeout=RUN_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Failed(f"'{command}' did not end within {RUN_SECONDS:g} s") from None
        return done.stdout

    def _start_gateway(self, command: str) -> str:
        """Everything on stdout up to the last line of the greeting; the log is not part of it."""
        log = self._folder / "gateway.log"
        with log.open("w") as file:
            process = self._start(command, file.fileno())
        said = ""
        assert process.stdout is not None
        for line in process.stdout:
            said += line
            if line.startswith("Admin: "):
                self._has_gateway = True
                return said
        raise Failed(f"'{command}' ended: {said}{log.read_text()}")

    def _start_server(self, command: str) -> str:
        address = self._actual[ADDRESSES[2]]
        self._start(command.removesuffix(" &"), subprocess.DEVNULL)
        host, _, port = address.rpartition(":")
        give_up_at = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up_at:
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return ""
        raise Failed(f"'{command}' did not listen on {address} within {START_SECONDS:g} s")

    def _start(self, command: str, stderr: int) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["bash", "-c", f"exec env {command}"], cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True,
        )  # fmt: skip
        self._started.append(process)
        return process

    def _from_document(self, text: str) -> str:
        for written, actual in self._actual.items():
            text = text.replace(written, actual).replace(f"PORT={_port(written)} ", f"PORT={_port(actual)} ")
        return text

    def _to_document(self, text: str) -> str:
        for written, actual in self._actual.items():
            text = text.replace(actual, written)
        return text.replace(str(self._folder / "home"), "~").replace(f"{ROOT}/", "")

    def _write_programs(self) -> None:
        node = ROOT / ".venv" / "bin" / "node"
        programs = {
            "uvx": _UVX.format(peers=PEERS),
            "npx": _NPX.format(node=node, peers=PEERS),
            "curl": _CURL.format(python=sys.executable),
        }
        (self._folder / "bin").mkdir()
        for name, text in programs.items():
            path = self._folder / "bin" / name
            path.write_text(text)
            path.chmod(0o755)


def normalised(text: str) -> str:
    """The text with everything that differs from run to run replaced by one word."""
    for pattern, word in _VOLATILE:
        text = pattern.sub(word, text)
    return text


def _port(address: str) -> str:
    return address.rpartition(":")[2]


def _free_addresses(count: int) -> list[str]:
    """Addresses nobody listens on; held open together, so that all differ."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    found = [f"127.0.0.1:{one.getsockname()[1]}" for one in held]
    for one in held:
        one.close()
    return found


def _end(process: subprocess.Popen[str]) -> None:
    """SIGTERM to its group, and SIGKILL where that does not help."""
    for sent, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        break
    if process.stdout is not None:
        process.stdout.close()
