"""Compares `json_members` with msgspec on damaged results, under the compiler's sanitizers: `python -m tests.fuzz.sanitized`.

Each input lies at the very end of its memory, so that reading one byte too far ends the run with a report. Needs gcc on Linux.
"""

import argparse
import ctypes
import json
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCE: Final = ROOT / "src/penstock/protocol/json_members.c"
FOLDER: Final = "PENSTOCK_SANITIZED"
PIECES: Final = (
    [bytes([byte]) for byte in b'"\\{}[],: \n\x00\x1f\x7f\x80\xff1']
    + ["é".encode(), "😀".encode(), b"\\u0041", b"\\ud83d\\ude00", b"\\ud800", b"\\n", b'\\"', b"\\\\"]
    + [b"-0.5e+3", b"true", b"null", b"a" * 70, b"x" * 63]
)
SEEDS: Final = (
    json.dumps(
        {"content": [{"type": "text", "text": 'a "line" \\ é\n' * 8}], "n": [1, 2.5e3, None, {"b": []}]}
    ).encode(),
    json.dumps({"content": [{"type": "text", "text": "😀é" * 40}], "isError": False}, ensure_ascii=False).encode(),
    b"{}",
    b'{"a":1}',
)
NAMES: Final = (b"content", b"isError", b"n", b"a", b"absent")
Find = Callable[[memoryview, tuple[bytes, ...]], tuple[int, ...] | None]
Count = Callable[[memoryview], int]
_decode: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def damaged(chance: random.Random) -> bytes:
    """A result with up to eight changes."""
    text = bytearray(chance.choice(SEEDS))
    for _ in range(chance.choice((0, 1, 1, 2, 3, 8))):
        place, kind = chance.randrange(len(text) + 1), chance.random()
        if kind < 0.4:
            text[place : place + 1] = chance.choice(PIECES)
        elif kind < 0.7:
            text[place:place] = chance.choice(PIECES)
        elif kind < 0.85:
            del text[place : place + chance.randrange(1, 20)]
        else:
            del text[place:]
    return bytes(text)


def expected(text: bytes) -> dict[bytes, bytes] | None:
    """What msgspec says of it."""
    try:
        text.decode()
        found = _decode(text)
        return {name: bytes(found[name.decode()]) for name in NAMES if name.decode() in found}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def compare(members_of: Find, count_openings: Count, seconds: float, seed: int) -> str:
    """Run for so long; raises AssertionError with the input at the first difference."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    chance, until = random.Random(seed), time.monotonic() + seconds
    count = judged = left = 0
    while time.monotonic() < until:
        text = damaged(chance)
        memory = libc.malloc(max(1, len(text)))
        ctypes.memmove(memory, text, len(text))
        view = memoryview((ctypes.c_char * len(text)).from_address(memory)).cast("B")
        found, openings = members_of(view, NAMES), count_openings(view)
        libc.free(memory)
        wanted = expected(text)
        if found is not None:
            places = zip(NAMES, found[::2], found[1::2], strict=True)
            assert {name: text[start:stop] for name, start, stop in places if start >= 0} == wanted, text
            judged += 1
        elif wanted is not None:
            left += 1
        assert openings == text.count(b"{") + text.count(b"["), text
        count += 1
    return f"{count} inputs: {judged} judged as msgspec does, {left} left to msgspec, the others are no JSON for either"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.sanitized", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    folder = os.environ.get(FOLDER)
    if folder is not None:
        sys.path.insert(0, folder)
        from json_members import count_openings, members_of  # type: ignore[import-not-found]

        print(compare(members_of, count_openings, asked.seconds, asked.seed))
        return
    with tempfile.TemporaryDirectory() as made:
        options = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fPIC", "-shared"]
        include = f"-I{sysconfig.get_path('include')}"
        subprocess.run(["gcc", *options, include, SOURCE, "-o", Path(made, "json_members.so")], check=True)
        libraries = [
            subprocess.run(
                ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
            ).stdout.strip()
            for name in ("libasan.so", "libubsan.so")
        ]
        sanitizers = {"LD_PRELOAD": " ".join(libraries), "PYTHONMALLOC": "malloc", "ASAN_OPTIONS": "detect_leaks=0"}
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.sanitized", *sys.argv[1:]],
            env=os.environ | sanitizers | {FOLDER: made},
            cwd=ROOT,
            check=False,
        )
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
