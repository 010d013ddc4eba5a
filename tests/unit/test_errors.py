"""One tree of errors, each with a message a person can use."""

import pytest

from penstock import errors
from penstock.errors import ConfigError, PenstockError, SealError, ServerError, ServerTimedOut

ALL = [found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, PenstockError)]
OF_SERVERS = [found for found in ALL if issubclass(found, ServerError)]


@pytest.mark.parametrize("kind", [found for found in ALL if found not in OF_SERVERS and found is not ConfigError])
def test_the_docstring_is_the_default_message(kind: type[PenstockError]) -> None:
    assert kind().message == (kind.__doc__ or "").strip() != ""
    assert kind("other words").message == str(kind("other words")) == "other words"


@pytest.mark.parametrize("kind", OF_SERVERS)
def test_a_servers_error_names_the_server_and_has_a_code_outside_json_rpcs_range(kind: type[ServerError]) -> None:
    error = kind("weather")
    assert error.server == "weather"
    assert error.message == f"server 'weather': {(kind.__doc__ or '').strip()}"
    assert kind("weather", "it fell over").message == "server 'weather': it fell over"
    assert 500 <= kind.status <= 504
    assert kind.reason.replace("_", "").isalpha()
    assert kind.retry_helps is (kind.status in {503, 504})


def test_every_class_stands_in_the_tree_that_is_drawn() -> None:
    drawn = errors.__doc__ or ""
    assert all(found.__name__ in drawn for found in ALL)
    for kind in OF_SERVERS:
        if kind is not ServerError:
            line = next(line for line in drawn.splitlines() if kind.__name__ in line)
            assert line.rstrip().endswith(str(kind.status))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({}, "odd"),
        ({"file": "a.toml"}, "a.toml: odd"),
        ({"file": "a.toml", "line": 3}, "a.toml:3: odd"),
        ({"file": "a.toml", "line": 3, "key": "servers.x.url"}, "a.toml:3: servers.x.url: odd"),
        ({"key": "servers.x.url"}, "servers.x.url: odd"),
    ],
)
def test_an_error_of_configuration_says_where(place: dict[str, object], message: str) -> None:
    error = ConfigError("odd", **place)  # type: ignore[arg-type]
    assert error.message == message
    assert (error.file, error.line, error.key) == (place.get("file", ""), place.get("line", 0), place.get("key", ""))


def test_a_sealed_token_is_refused_without_saying_why() -> None:
    assert SealError().message == "The token is not one of ours, or has expired."
    assert ServerTimedOut("a").status == 504
