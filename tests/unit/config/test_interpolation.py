"""Placeholders: what they stand for, and what never shows."""

from pathlib import Path

import pytest

from penstock.config.interpolation import FILE_BYTES, Interpolator, unresolved
from penstock.config.kinds import Duration, Kind, Size
from penstock.config.settings import Secret
from tests.unit.config.loading import SERVER, loaded, refusal


def test_any_value_may_come_from_the_environment(tmp_path: Path) -> None:
    text = '[limits]\nwaiting = "${env:N}"\nidle = "${env:D}"\n[servers.a]\nurl = "${env:U}"\nenabled = "${env:E}"\n'
    settings = loaded(tmp_path, text, N="7", D="3s", U="http://x/", E="yes").settings
    assert (settings.limits.waiting, settings.limits.idle) == (7, 3.0)
    assert settings.servers["a"].url == Secret("http://x/")
    assert settings.servers["a"].enabled is True


def test_a_bad_value_from_the_environment_is_not_shown(tmp_path: Path) -> None:
    refused = refusal(tmp_path, '[limits]\nwaiting = "${env:N}"\n', N="planted")
    assert refused.endswith("limits.waiting: expected a whole number from 1 to 1000000, got *** from ${env:N}")
    refused = refusal(tmp_path, '[servers.a]\nurl = "${env:N}"\n', N="planted")
    assert refused.endswith("servers.a.url: *** is not an http(s) URL")


PLACEHOLDERS = [
    ("${env:A", "'${env:A' is no placeholder; expected ${env:NAME} or ${file:PATH}, or '$${' for a plain '${'"),
    ("${HOME}", "'${HOME}' is no placeholder; expected ${env:NAME} or ${file:PATH}, or '$${' for a plain '${'"),
    ("${file:no}", "the file {0}/no cannot be read: No such file or directory"),
    ("${file:big}", "the file {0}/big is larger than 64 KiB"),
    ("${file:latin}", "the file {0}/latin is not UTF-8 text"),
]


@pytest.mark.parametrize(("text", "message"), PLACEHOLDERS)
def test_a_placeholder_that_cannot_be_filled_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * (FILE_BYTES + 1))
    (tmp_path / "latin").write_bytes(b"\xe9")
    refused = refusal(tmp_path, f"{SERVER}headers = {{ X = '{text}' }}\n")
    assert refused == f"penstock.toml:3: servers.a.headers.X: {message.replace('{0}', str(tmp_path))}"


def test_a_doubled_dollar_writes_a_plain_one(tmp_path: Path) -> None:
    command = loaded(tmp_path, "[servers.a]\ncommand = ['sh', '-c', 'echo $${HOME}']\n").settings.servers["a"].command
    assert command == ("sh", "-c", "echo ${HOME}")


def test_a_disabled_server_needs_no_values_yet(tmp_path: Path) -> None:
    text = SERVER + "headers = { X = '${env:NONE}' }\nenabled = false\n"
    assert loaded(tmp_path, text).settings.servers["a"].headers["X"].reveal() == "${env:NONE}"


def test_placeholders_can_be_left_alone(tmp_path: Path) -> None:
    text = '[limits]\nidle = "${env:D}"\n[listen]\nallowed_hosts = ["${env:H}", "b"]\n[servers.a]\nurl = "${env:U}"\n'
    read = loaded(tmp_path, text, resolve=False)
    assert read.settings.limits.idle == 75.0
    assert read.unresolved == {("limits", "idle"): "${env:D}"}
    assert read.settings.listen.allowed_hosts == ("b",)
    assert read.settings.servers["a"].target == "***"


def test_a_text_without_placeholders_stays_as_it_is(tmp_path: Path) -> None:
    interpolator = Interpolator({}, tmp_path)
    assert interpolator.fill("plain") == "plain"
    assert unresolved("$${x}") == "${x}"
    assert repr(interpolator) == f"<Interpolator {tmp_path}>"


def test_a_secret_shows_only_what_it_may() -> None:
    secret = Secret("planted", shown="x***")
    assert f"{secret} {secret!r} {[secret]}" == "x*** x*** [x***]"
    assert secret == Secret("planted")
    assert secret != "planted"
    assert len({secret, Secret("planted")}) == 1


def test_kinds_show_what_they_expect() -> None:
    assert repr(Duration()) == '<Duration: a duration such as "30s", "15m" or "250ms">'
    assert (Duration().show(0.0005), Size().show(3)) == ('"0.5ms"', '"3B"')
    with pytest.raises(NotImplementedError):
        Kind().judge(1, Path())
    with pytest.raises(NotImplementedError):
        Kind().schema()
