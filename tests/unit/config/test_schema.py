"""The JSON Schema and the loader judge alike, and both know every setting."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.config.keys import LIMITS, LISTEN, NAME_PATTERN, SECTIONS
from penstock.config.load import load
from penstock.config.schema import config_schema
from penstock.errors import ConfigError
from penstock.protocol.names import is_server_name

A = "[servers.a]\nurl = 'http://x/'\n"
B = "[servers.b]\ncommand = ['x']\n"
GOOD = [
    "",
    A,
    A + B,
    A
    + "headers = { X-Y = 'z' }\n"
    + "protocol = 'auto'\nsessions = 'auto'\nforward_headers = ['x-y']\ntimeout = '1s'\nenabled = false\n",
    B + "env = { A = 'b' }\ncwd = '/'\ninstances = 4\n",
    B + "instances = 'per_session'\n",
    A + "[views.v]\nservers = ['a']\ninclude = ['a_*']\nexclude = []\n",
    "[listen]\ndata = 'localhost'\nadmin = ['[::1]:8081', '127.0.0.1:9']\nallowed_hosts = ['a.b:1']\nallowed_origins = ['https://x']\n",
    "[listen]\ntls_cert = 'a'\ntls_key = 'b'\npublic_url = 'https://x/mcp'\ntrusted_proxies = ['10.0.0.0/8', '::1']\n",
    "[listen]\ndata = ':1'\ninsecure_listen = true\n",
    "[limits]\nidle = '1m30s'\nbody_bytes = '4MiB'\nwaiting = 7\n",
    "[limits]\nidle = '${env:D}'\n",
]
BAD = [
    "x = 1",
    "[lsten]",
    "limits = 1",
    "[limits]\nidel = '1s'",
    "[limits]\nidle = 1",
    "[limits]\nidle = '0s'",
    "[limits]\nidle = '1 s'",
    "[limits]\nbody_bytes = '4 MiB'",
    "[limits]\nbody_bytes = '0B'",
    "[limits]\nwaiting = 0",
    "[limits]\nwaiting = true",
    "[limits]\nwaiting = '7'",
    "[listen]\ndata = '8080'",
    "[listen]\ndata = ''",
    "[listen]\ndata = []",
    "[listen]\ndata = 80",
    "[listen]\ninsecure_listen = 'true'",
    "[listen]\nallowed_hosts = 'a'",
    "[listen]\nallowed_hosts = ['a b']",
    "[listen]\nallowed_origins = ['a']",
    "[listen]\ntls_cert = ''",
    "[listen]\ntrusted_proxies = ['x']",
    "[servers.A]\nurl = 'http://x'",
    "[servers.a]",
    "[servers]\na = 1",
    A + "command = ['x']",
    A + "args = []",
    A + "protocol = 'x'",
    A + "forward_headers = ['a b']",
    A + "headers = { 'a b' = 'x' }",
    A + "headers = { a = 1 }",
    B + "env = { 'a-b' = '1' }",
    B + "instances = 0",
    B + "instances = 'many'",
    "[servers.a]\nurl = 'x'",
    "[servers.a]\ncommand = 'x'",
    "[servers.a]\ncommand = []",
    "[servers.a]\ncommand = [1]",
    A + "[views.v]",
    A + "[views.v]\nservers = []",
    A + "[views.v_w]\nservers = ['a']",
]


@pytest.mark.parametrize("text", GOOD)
def test_schema_and_loader_take_the_same(text: str, tmp_path: Path) -> None:
    (tmp_path / "penstock.toml").write_text(text)
    load(tmp_path / "penstock.toml", environment={"D": "1s"})
    assert list(broken(tomllib.loads(text), config_schema())) == []


@pytest.mark.parametrize("text", BAD)
def test_schema_and_loader_refuse_the_same(text: str, tmp_path: Path) -> None:
    (tmp_path / "penstock.toml").write_text(text)
    with pytest.raises(ConfigError):
        load(tmp_path / "penstock.toml", environment={})
    assert list(broken(tomllib.loads(text), config_schema())) != []


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_every_setting_has_a_key_and_every_key_a_setting(section: Any) -> None:
    settings = {field.name for field in msgspec.structs.fields(section.struct)} - {"name"}
    assert set(section.keys) == settings


@pytest.mark.parametrize("section", [LISTEN, LIMITS], ids=["listen", "limits"])
def test_every_default_can_be_written_in_the_file(section: Any, tmp_path: Path) -> None:
    for name, default in section.defaults().items():
        if default is not None:
            text = f"{name} = {section.keys[name].kind.show(default)}"
            value = tomllib.loads(text)[name]
            assert section.keys[name].kind.read(value, tmp_path) == default
            assert list(broken(value, section.keys[name].kind.schema())) == []


@pytest.mark.parametrize("name", ["a", "a-b", "a" * 32, "a" * 33, "-a", "A", "a_b", "", "a\n", "é", "0"])
def test_names_are_those_of_the_protocol(name: str) -> None:
    assert (re.fullmatch(NAME_PATTERN, name) is not None) == is_server_name(name)


def test_defaults_stand_in_the_descriptions() -> None:
    limits = config_schema()["properties"]["limits"]["properties"]
    assert limits["idle"]["description"].endswith('(default "75s")')
    assert limits["body_bytes"]["description"].endswith('(default "4MiB")')
    assert limits["session_idle"]["description"].endswith('(default "30m")')


def broken(value: Any, schema: dict[str, Any]) -> list[str]:
    """The keywords of the schema that the value does not meet: as much of JSON Schema as ours uses."""
    checks: dict[str, Callable[[Any], Any]] = {
        "type": lambda kind: _is(value, kind),
        "enum": lambda allowed: value in allowed,
        "pattern": lambda pattern: not isinstance(value, str) or re.search(re.sub(r"\$$", r"\\Z", pattern), value),
        "minimum": lambda least: not _is(value, "integer") or value >= least,
        "maximum": lambda most: not _is(value, "integer") or value <= most,
        "minLength": lambda least: not isinstance(value, str) or len(value) >= least,
        "minItems": lambda least: not isinstance(value, list) or len(value) >= least,
        "items": lambda item: not isinstance(value, list) or not any(broken(one, item) for one in value),
        "required": lambda keys: not isinstance(value, dict) or set(keys) <= set(value),
        "propertyNames": lambda rule: not isinstance(value, dict) or not any(broken(key, rule) for key in value),
        "properties": lambda rules: (
            not isinstance(value, dict)
            or not any(broken(value[key], rule) for key, rule in rules.items() if key in value)
        ),
        "additionalProperties": lambda rule: not isinstance(value, dict) or not _extra(value, schema, rule),
        "anyOf": lambda rules: any(not broken(value, rule) for rule in rules),
        "oneOf": lambda rules: sum(not broken(value, rule) for rule in rules) == 1,
        "title": bool,
        "description": bool,
        "$schema": bool,
    }
    return [word for word, rule in schema.items() if not checks[word](rule)]


def _extra(value: dict[str, Any], schema: dict[str, Any], rule: Any) -> bool:
    extra = [value[key] for key in value if key not in schema.get("properties", {})]
    return bool(extra) if rule is False else any(broken(one, rule) for one in extra)


def _is(value: Any, kind: str) -> bool:
    kinds: dict[str, type] = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}
    return isinstance(value, kinds[kind]) and (kind == "boolean" or not isinstance(value, bool))
