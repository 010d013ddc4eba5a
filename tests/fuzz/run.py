"""One target in a process of its own, instrumented: `python -m tests.fuzz.run TARGET FOLDER SECONDS`.

Knows: atheris. Everything of Penstock is imported through its instrumentation, so nothing else may have imported it before.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["penstock"]):
    from tests.fuzz import client_target, server_target, text_target
    from tests.fuzz.invariants import Guard
from tests.http_corpus.corpus import load

TARGETS = {"server": server_target.target, "client": client_target.target, "text": text_target.target}
MAX_INPUT_BYTES = 4096
LONGEST_SECONDS = 30
"""For one input before libFuzzer gives it up for endless; `Guard` is stricter, and counts processor time."""


def seeds(name: str) -> list[bytes]:
    """What a target starts from."""
    messages = [message.raw for message in load()]
    if name == "server":
        return [found for raw in messages for found in server_target.seed(raw)]
    if name == "client":
        return client_target.own_seeds() + [found for raw in messages for found in client_target.seed(raw)]
    return text_target.own_seeds()


def main() -> None:
    """Fuzz until the time is over or something is found; libFuzzer ends the process."""
    name, folder, seconds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds(name)):
        (corpus / f"seed-{number:04}").write_bytes(data)
    guard, target = Guard(), TARGETS[name]
    flags = [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={LONGEST_SECONDS}",
        "-rss_limit_mb=1024",
        "-print_final_stats=1",
        f"-artifact_prefix={folder}/",
    ]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], lambda data: target(guard, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
