"""Reading a configuration from a text, for tests of the loader."""

from pathlib import Path

import pytest

from penstock.config.load import Flags, Loaded, load
from penstock.errors import ConfigError

SERVER = '[servers.a]\nurl = "https://a.example/mcp"\n'


def write(directory: Path, text: str) -> Path:
    path = directory / "penstock.toml"
    path.write_text(text, "utf-8")
    return path


def loaded(
    directory: Path, text: str, *, flags: Flags | None = None, resolve: bool = True, **environment: str
) -> Loaded:
    path = write(directory, text)
    return load(path, name="penstock.toml", environment=environment, flags=flags, resolve=resolve)


def refusal(directory: Path, text: str, **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(write(directory, text), name="penstock.toml", environment=environment)
    return caught.value.message
