"""The load generator: wrk, with a script written for each row.

Knows: wrk's Lua interface. Does not know: who answers.
The script looks at every response: its status, its id (each id must be answered once), and every byte of its body, or, where
bodies differ from call to call, that the id and the result's text are in it. That costs the generator time, and nobody else.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.client import Template
from benchmarks.messages import FIRST_ID, Shape
from benchmarks.processes import Failed

CONNECTIONS: Final = 16
GRACE_SECONDS: Final = 20.0
_SUMMARY: Final = re.compile(
    r"^summary calls=(\d+) microseconds=(\d+) right=(\d+) wrong=(\d+) socket=(\d+) p50=(\d+) p99=(\d+)$", re.MULTILINE
)

_SCRIPT: Final = r"""
local heads, tails = {@HEADS@}, {@TAILS@}
local is_right = @CHECK@
local sent, threads, waiting = @FIRST@, {}, {}
right, wrong, example = 0, 0, ""

function setup(thread) table.insert(threads, thread) end

function request()
  sent = sent + 1
  waiting[sent] = true
  local which = sent % #heads + 1
  return heads[which] .. sent .. tails[which]
end

function response(status, headers, body)
  local id = status == 200 and is_right(body)
  if id and waiting[id] then
    waiting[id] = nil
    right = right + 1
  else
    wrong = wrong + 1
    if wrong == 1 then example = status .. " " .. string.sub(body, 1, 300) end
  end
end

function done(summary, latency)
  local all_right, all_wrong, errors = 0, 0, summary.errors
  for _, thread in ipairs(threads) do
    all_right = all_right + thread:get("right")
    all_wrong = all_wrong + thread:get("wrong")
    if thread:get("example") ~= "" then io.write("example ", thread:get("example"), "\n") end
  end
  io.write(string.format("summary calls=%d microseconds=%d right=%d wrong=%d socket=%d p50=%d p99=%d\n",
    summary.requests, summary.duration, all_right, all_wrong, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""

_EXACT: Final = r"""(function()
  local prefix, suffix = @PREFIX@, @SUFFIX@
  local from, to = #prefix + 1, #prefix + 9
  local length = to + #suffix
  return function(body)
    if #body ~= length or string.sub(body, 1, #prefix) ~= prefix then return nil end
    if string.find(body, suffix, to + 1, true) ~= to + 1 then return nil end
    return tonumber(string.sub(body, from, to))
  end
end)()"""

_CONTAINS: Final = r"""(function()
  local text = @TEXT@
  return function(body)
    if not string.find(body, text, 1, true) then return nil end
    return tonumber(string.match(body, '"id" ?: ?(%d+)'))
  end
end)()"""


class Run(NamedTuple):
    """One run of the generator; all its calls were answered rightly."""

    calls: int
    seconds: float
    p50_ms: float
    p99_ms: float


def installed() -> str:
    """The program.

    Raises:
        Failed: it is missing; the message holds the line that installs it.
    """
    found = shutil.which("wrk")
    if found is None:
        raise Failed("wrk is missing; install it: sudo apt-get install wrk (macOS: brew install wrk)")
    return found


def script(shapes: Sequence[Shape], template: Template | None, text: str) -> str:
    """The Lua script of a row whose calls are of `shapes` in turn.

    Args:
        text: what the result's text looks like in JSON; used where there is no template.
    """
    if template is None:
        check = _filled(_CONTAINS, {"@TEXT@": quoted(text.encode())})
    else:
        check = _filled(_EXACT, {"@PREFIX@": quoted(template.prefix), "@SUFFIX@": quoted(template.suffix)})
    heads, tails = (", ".join(quoted(part) for part in parts) for parts in zip(*shapes, strict=True))
    return _filled(_SCRIPT, {"@CHECK@": check, "@HEADS@": heads, "@TAILS@": tails, "@FIRST@": str(FIRST_ID)})


def _filled(text: str, parts: Mapping[str, str]) -> str:
    """All at once, so that what is filled in is not searched for marks."""
    return re.sub("|".join(parts), lambda found: parts[found[0]], text)


def quoted(data: bytes) -> str:
    """A Lua string literal of any bytes."""
    return (
        '"' + "".join(chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03d}" for byte in data) + '"'
    )


def run(script_file: Path, port: int, seconds: float) -> Run:
    """Drive one target for a while over `CONNECTIONS` connections.

    Raises:
        Failed: an answer was wrong, or a connection failed.
    """
    command = [
        installed(), "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "-s", str(script_file), f"http://127.0.0.1:{port}/",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + GRACE_SECONDS, check=False)
    return parse(done.stdout, done.stderr)


def parse(output: str, errors: str = "") -> Run:
    """What a run printed.

    Raises:
        Failed: it printed no summary, or speaks of anything but right answers.
    """
    found = _SUMMARY.search(output)
    if found is None:
        raise Failed(f"wrk printed no summary: {(errors or output)[-500:].strip()}")
    calls, microseconds, right, wrong, socket_errors, p50, p99 = (int(word) for word in found.groups())
    if wrong or socket_errors or right != calls or not calls:
        example = re.search(r"^example (.*)$", output, re.MULTILINE)
        raise Failed(
            f"of {calls} answers {right} were right, {wrong} wrong, with {socket_errors} failed connections"
            + (f"; the first wrong one: {example[1]}" if example else "")
        )
    return Run(calls, microseconds / 1e6, p50 / 1e3, p99 / 1e3)
