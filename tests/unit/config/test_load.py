"""What the loader takes, what it refuses and in which words."""

from pathlib import Path

import pytest

from penstock.config.load import Flags, find_file, judge, load, mode_warnings, read_source
from penstock.config.settings import Settings, reveal
from penstock.errors import ConfigError
from tests.unit.config.loading import SERVER, loaded, refusal, write

DURATION = 'expected a duration such as "30s", "15m" or "250ms"'
SIZE = 'expected a size such as "4MiB", "16KiB" or "512B"'
ADDRESS = 'expected an address such as "127.0.0.1:8080", "[::1]:8080" or "localhost:8080"'
COMMAND = "expected a list of a program and its arguments"
NAME = "expected a name of at most 32 of a-z, 0-9 and '-', not starting with '-'"
EXPOSED = (
    "can be reached from other machines, and there is no sign-in yet: anybody there could call every tool; "
    "listen on 127.0.0.1, or pass --insecure-listen if that is what you want"
)
REFUSALS = [
    # text, line, key, message
    ("[lsten]\n", 1, "lsten", "unknown key; did you mean 'listen'?"),
    ("zzz = 1\n", 1, "zzz", "unknown key; the file takes listen, limits, servers, views"),
    ("[mcpServers.x]\n", 1, "mcpServers", "unknown key; 'penstock import FILE' reads such entries"),
    ("\n[limits]\nheeder_bytes = 1\n", 3, "limits.heeder_bytes", "unknown key; did you mean 'header_bytes'?"),
    ("limits = 3\n", 1, "limits", "expected a table, got 3"),
    ("[limits]\nidle = 30\n", 2, "limits.idle", f'{DURATION}, got 30 (did you mean "30s"?)'),
    ('[limits]\nidle = "30"\n', 2, "limits.idle", f"{DURATION}, got '30'"),
    ('[limits]\nidle = "0s"\n', 2, "limits.idle", f"{DURATION}, got '0s'"),
    ('[limits]\nidle = "30s\\n"\n', 2, "limits.idle", f"{DURATION}, got '30s\\n'"),
    ("[limits]\nidle = true\n", 2, "limits.idle", f"{DURATION}, got true"),
    ('[limits]\nidle = "8d"\n', 2, "limits.idle", "expected at most 7 days, got '8d'"),
    ("[limits]\nbody_bytes = 4096\n", 2, "limits.body_bytes", f'{SIZE}, got 4096 (did you mean "4KiB"?)'),
    ("[limits]\nbody_bytes = 4097\n", 2, "limits.body_bytes", f'{SIZE}, got 4097 (did you mean "4097B"?)'),
    ("[limits]\nbody_bytes = -1\n", 2, "limits.body_bytes", f"{SIZE}, got -1"),
    ('[limits]\nbody_bytes = "4 MiB"\n', 2, "limits.body_bytes", f"{SIZE}, got '4 MiB'"),
    ('[limits]\nbody_bytes = "64GiB"\n', 2, "limits.body_bytes", "expected at most 16GiB, got '64GiB'"),
    ("[limits]\nwaiting = 0\n", 2, "limits.waiting", "expected a whole number from 1 to 1000000, got 0"),
    ('[limits]\nwaiting = "9"\n', 2, "limits.waiting", "expected a whole number from 1 to 1000000, got '9'"),
    ("[limits]\nwaiting = 1.5\n", 2, "limits.waiting", "expected a whole number from 1 to 1000000, got 1.5"),
    ('[listen]\ndata = "8080"\n', 2, "listen.data", f"{ADDRESS}, got '8080' (did you mean \"127.0.0.1:8080\"?)"),
    ("[listen]\ndata = 8080\n", 2, "listen.data", f'{ADDRESS}, got 8080 (did you mean "127.0.0.1:8080"?)'),
    ('[listen]\ndata = "::1"\n', 2, "listen.data", f"{ADDRESS}, got '::1' (did you mean \"[::1]:8080\"?)"),
    ('[listen]\ndata = "*:80"\n', 2, "listen.data", f"{ADDRESS}, got '*:80' (did you mean \"0.0.0.0:80\"?)"),
    (
        '[listen]\ndata = "http://[::1]:80/"\n',
        2,
        "listen.data",
        f"{ADDRESS}, got 'http://[::1]:80/' (did you mean \"[::1]:80\"?)",
    ),
    ('[listen]\ndata = "[zz]:80"\n', 2, "listen.data", f"{ADDRESS}, got '[zz]:80'"),
    ('[listen]\ndata = "[1::2::3]:80"\n', 2, "listen.data", f"{ADDRESS}, got '[1::2::3]:80'"),
    ('[listen]\ndata = ""\n', 2, "listen.data", f"{ADDRESS}, got ''"),
    ("[listen]\ndata = []\n", 2, "listen.data", f"{ADDRESS}, got an empty list"),
    (
        '[listen]\ndata = "localhost:70000"\n',
        2,
        "listen.data",
        "expected a port from 0 to 65535, got 'localhost:70000'",
    ),
    ('[listen]\ndata = ":8080"\n', 2, "listen.data", f"0.0.0.0:8080 {EXPOSED}"),
    ('[listen]\nadmin = "[::]:8081"\n', 2, "listen.admin", f"[::]:8081 {EXPOSED}"),
    ('[listen]\ndata = "gate.example:80"\n', 2, "listen.data", f"gate.example:80 {EXPOSED}"),
    (
        '[listen]\nadmin = "127.0.0.1:8080"\n',
        2,
        "listen.admin",
        "127.0.0.1:8080 is the address of 'data' too; give each its own",
    ),
    ('[listen]\ntls_cert = "c"\n', 2, "listen.tls_cert", "needs 'tls_key' beside it"),
    ('[listen]\ntls_key = "c"\n', 2, "listen.tls_key", "needs 'tls_cert' beside it"),
    ('[listen]\ntls_key = ""\n', 2, "listen.tls_key", "expected a path, got ''"),
    (
        '[listen]\ninsecure_listen = "yes"\n',
        2,
        "listen.insecure_listen",
        "expected true or false, got 'yes' (did you mean true?)",
    ),
    ("[listen]\ninsecure_listen = 1\n", 2, "listen.insecure_listen", "expected true or false, got 1"),
    (
        '[listen]\nallowed_hosts = "a"\n',
        2,
        "listen.allowed_hosts",
        "expected a list of a host name, got 'a' (did you mean [\"a\"]?)",
    ),
    ('[listen]\nallowed_hosts = [\n "a",\n 3 ]\n', 4, "listen.allowed_hosts.1", "expected a host name, got 3"),
    (
        '[listen]\ntrusted_proxies = ["10.0.0.0/99"]\n',
        2,
        "listen.trusted_proxies.0",
        "expected an address or network such as \"10.0.0.0/8\", got '10.0.0.0/99'",
    ),
    ("servers = 3\n", 1, "servers", "expected a table, got 3"),
    ('[servers]\nurl = "x"\n', 2, "servers.url", "expected a table, got 'x'; 'url' belongs into [servers.NAME]"),
    ("[servers.a]\n", 1, "servers.a", 'expected url = "https://…" or command = ["…"], got neither'),
    ('[servers.A_b]\nurl = "http://x"\n', 1, "servers.A_b", f"{NAME}, got 'A_b'"),
    (SERVER + 'command = ["x"]\n', 3, "servers.a.command", "expected either 'url' or 'command', got both; keep one"),
    (SERVER + "env = { A = '1' }\n", 3, "servers.a.env", "has no meaning for a server with a 'url'; remove it"),
    (SERVER + "instances = 2\n", 3, "servers.a.instances", "has no meaning for a server with a 'url'; remove it"),
    (
        "[servers.a]\ncommand = ['x']\nca_file = 'c'\n",
        3,
        "servers.a.ca_file",
        "has no meaning for a server with a 'command'; remove it",
    ),
    (SERVER + "args = []\n", 3, "servers.a.args", "unknown key; append them to 'command'"),
    (SERVER + "protocol = '2025-06-19'\n", 3, "servers.a.protocol", None),
    (
        '[servers.a]\nurl = "htp://x/y"\n',
        2,
        "servers.a.url",
        "'htp://x/y' is not an http(s) URL (did you mean 'http://x/y'?)",
    ),
    (
        '[servers.a]\nurl = "x.example/m"\n',
        2,
        "servers.a.url",
        "'x.example/m' is not an http(s) URL (did you mean 'https://x.example/m'?)",
    ),
    ('[servers.a]\nurl = "!"\n', 2, "servers.a.url", "'!' is not an http(s) URL"),
    ('[servers.a]\nurl = "ftp://x"\n', 2, "servers.a.url", "'ftp://x' is not an http(s) URL"),
    ("[servers.a]\nurl = 3\n", 2, "servers.a.url", "expected an http(s) URL, got 3"),
    ('[servers.a]\nurl = "http://x:99999/"\n', 2, "servers.a.url", "'http://x:99999/' has no usable host or port"),
    ('[servers.a]\nurl = "http://:80/"\n', 2, "servers.a.url", "'http://:80/' has no usable host or port"),
    (
        '[servers.a]\nurl = "http://me:planted@x/"\n',
        2,
        "servers.a.url",
        "'http://***@x/' holds a user name or password; put them into 'headers' (Authorization)",
    ),
    (
        '[servers.a]\ncommand = "npx -y x"\n',
        2,
        "servers.a.command",
        f'{COMMAND}, got \'npx -y x\' (did you mean ["npx", "-y", "x"]?)',
    ),
    (
        '[servers.a]\ncommand = "it\'s x"\n',
        2,
        "servers.a.command",
        f'{COMMAND}, got "it\'s x" (did you mean ["it\'s", "x"]?)',
    ),
    ("[servers.a]\ncommand = []\n", 2, "servers.a.command", f"{COMMAND}, got an empty list"),
    ("[servers.a]\ncommand = ['x', 3]\n", 2, "servers.a.command.1", "expected a text, got 3"),
    ("[servers.a]\ncommand = ['']\n", 2, "servers.a.command.0", "expected a text, got ''"),
    ("[servers.a]\ncommand = ['x']\nenv = { P = 1 }\n", 3, "servers.a.env.P", "expected a text, got 1"),
    (
        "[servers.a]\ncommand = ['x']\nenv = { 'a-b' = '1' }\n",
        3,
        "servers.a.env.a-b",
        "expected a variable name, got 'a-b'",
    ),
    (
        "[servers.a]\ncommand = ['x']\nenv = { P = \"a\\u0000b\" }\n",
        3,
        "servers.a.env.P",
        "the value of P holds a NUL character",
    ),
    (
        "[servers.a]\ncommand = ['x']\nenv = ['P=1']\n",
        3,
        "servers.a.env",
        'expected a table such as { TOKEN = "…" }, got a list',
    ),
    ("[servers.a]\ncommand = ['x']\ninstances = 0\n", 3, "servers.a.instances", None),
    ("[servers.a]\ncommand = ['x']\ncwd = 3\n", 3, "servers.a.cwd", "expected a path, got 3"),
    (SERVER + "headers = { 'a b' = '1' }\n", 3, "servers.a.headers.a b", "expected a header name, got 'a b'"),
    (
        SERVER + "headers = { Host = 'x' }\n",
        3,
        "servers.a.headers.Host",
        "'Host' is written by Penstock itself; leave it out",
    ),
    (
        SERVER + "headers = { Mcp-Name = 'x' }\n",
        3,
        "servers.a.headers.Mcp-Name",
        "'Mcp-Name' is written by Penstock itself; leave it out",
    ),
    (
        SERVER + 'headers = { X = "planted\\n" }\n',
        3,
        "servers.a.headers.X",
        "character 8 of the value cannot stand in a header; expected printable ASCII",
    ),
    (
        SERVER + "forward_headers = ['Authorization']\n",
        3,
        "servers.a.forward_headers.0",
        "a client's 'Authorization' is never passed on; give the server its own in 'headers'",
    ),
    (
        SERVER + "forward_headers = ['Te']\n",
        3,
        "servers.a.forward_headers.0",
        "'Te' is written by Penstock itself; leave it out",
    ),
    (
        SERVER + "headers = { X = '${env:NONE}' }\n",
        3,
        "servers.a.headers.X",
        "the environment variable NONE is not set; set it where the gateway starts",
    ),
    (SERVER + "[views.v]\nservers = ['b']\n", 4, "views.v.servers.0", "there is no server 'b'; known servers: a"),
    ("[views.v]\nservers = ['b']\n", 2, "views.v.servers.0", "there is no server 'b'; known servers: none"),
    (
        "[servers.time]\ncommand = ['x']\n[views.v]\nservers = ['tim']\n",
        4,
        "views.v.servers.0",
        "there is no server 'tim'; did you mean 'time'?",
    ),
    (
        SERVER + "[views.a]\nservers = ['a']\n",
        3,
        "views.a",
        "server 'a' has a view of that name already; choose another",
    ),
    (SERVER + "[views.v]\n", 3, "views.v", "expected servers = […], got none"),
    (
        SERVER + "[views.v]\nservers = []\n",
        4,
        "views.v.servers",
        f"expected a list of at least 1: {NAME.removeprefix('expected ')}, got an empty list",
    ),
]


@pytest.mark.parametrize(("text", "line", "key", "message"), REFUSALS)
def test_a_bad_file_is_refused_with_place_and_reason(
    text: str, line: int, key: str, message: str | None, tmp_path: Path
) -> None:
    refused = refusal(tmp_path, text)
    if message is None:
        assert refused.startswith(f"penstock.toml:{line}: {key}: expected one of ")
    else:
        assert refused == f"penstock.toml:{line}: {key}: {message}"
    assert "planted" not in refused


SYNTAX = [
    ("[listen\n", 1, "not TOML: Expected ']' at the end of a table declaration in column 8"),
    ("\na = \n", 2, "not TOML: Invalid value in column 5"),
    ("a = 1\na = 2\n", 2, "not TOML: Cannot overwrite a value in column 6"),
    ("[servers.a]\n[servers.a]\n", 2, "not TOML: Cannot declare 'servers.a' twice in column 11"),
    ("[views]\n[views]\n", 2, "not TOML: Cannot declare 'views' twice in column 7"),
    ('a = """\nxx\n', 2, "not TOML: Unterminated string at the end"),
    ("a = " + "[" * 5000, 1, "values are nested too deeply"),
]


@pytest.mark.parametrize(("text", "line", "message"), SYNTAX)
def test_what_is_no_toml_is_refused_with_line_and_column(text: str, line: int, message: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, text) == f"penstock.toml:{line}: {message}"


def test_every_problem_is_found_in_one_pass_and_ordered_by_line(tmp_path: Path) -> None:
    path = write(tmp_path, '[servers.a]\nurl = "x"\n[limits]\nidel = 1\n[listen]\ndata = 1\n')
    _, problems = judge(read_source(path), path=path, environment={}, flags=Flags(), resolve=True)
    assert [problem.line for problem in problems] == [2, 4, 6]
    with pytest.raises(
        ConfigError, match=r"toml:2: servers.a.url: .*\(and 2 more: 'penstock config check' lists them all\)$"
    ):
        load(path, environment={})


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no such file; 'penstock add' makes one"):
        load(tmp_path / "none.toml", environment={})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, environment={})
    (tmp_path / "latin.toml").write_bytes(b"a = 1\nb = '\xe9'\n")
    with pytest.raises(ConfigError, match=r"latin.toml:2: the file is not UTF-8 text"):
        load(tmp_path / "latin.toml", environment={})
    (tmp_path / "large.toml").write_bytes(b"#" * (4 * 1024 * 1024 + 1))
    with pytest.raises(ConfigError, match="larger than 4 MiB"):
        load(tmp_path / "large.toml", environment={})


def test_a_file_that_need_not_exist_counts_as_empty_and_is_named_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "penstock.toml"
    read = load(path, environment={}, must_exist=False)
    assert read.settings == Settings(file=str(path))
    assert load(None, environment={}).settings == Settings()


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert loaded(tmp_path, "").settings == Settings(file=str(tmp_path / "penstock.toml"))


ADDRESSES = [
    ('"127.0.0.1:9000"', (("127.0.0.1", 9000),)),
    ('"[::1]:8080"', (("::1", 8080),)),
    ('"[::1]"', (("::1", 8080),)),
    ('"localhost"', (("localhost", 8080),)),
    ('"localhost:0"', (("localhost", 0),)),
    ('["127.0.0.1:1", "[::1]:1"]', (("127.0.0.1", 1), ("::1", 1))),
]


@pytest.mark.parametrize(("text", "addresses"), ADDRESSES)
def test_addresses_are_understood(text: str, addresses: tuple[tuple[str, int], ...], tmp_path: Path) -> None:
    assert loaded(tmp_path, f"[listen]\ndata = {text}\n").settings.listen.data == addresses


def test_listening_beyond_loopback_is_allowed_when_said_so(tmp_path: Path) -> None:
    settings = loaded(tmp_path, '[listen]\ndata = ":8080"\n', PENSTOCK_LISTEN_INSECURE_LISTEN="true").settings
    assert settings.listen.data == (("0.0.0.0", 8080),)


def test_values_come_in_seconds_and_bytes(tmp_path: Path) -> None:
    text = '[limits]\nidle = "1m30s"\ndrain = "250ms"\ncall_total = "1.5h"\nbody_bytes = "2MB"\nevent_bytes = "1GiB"\n'
    limits = loaded(tmp_path, text).settings.limits
    assert (limits.idle, limits.drain, limits.call_total) == (90.0, 0.25, 5400.0)
    assert (limits.body_bytes, limits.event_bytes) == (2_000_000, 2**30)


def test_a_server_is_read_whole(tmp_path: Path) -> None:
    text = """
[servers.web]
url = "https://web.example/mcp"
headers = { Authorization = "Bearer ${env:TOKEN}" }
protocol = "2025-06-18"
timeout = "2m"
sessions = "shared"
forward_headers = ["X-Request-Id"]
ca_file = "ca.pem"
[servers.local]
command = ["uvx", "mcp-server-time"]
env = { KEY = "${file:key.txt}" }
cwd = "work"
instances = 3
enabled = false
[views.all]
servers = ["web", "local"]
include = ["web_*"]
exclude = ["web_drop*"]
"""
    (tmp_path / "key.txt").write_text("planted\n")
    servers = loaded(tmp_path, text, TOKEN="planted").settings.servers
    assert list(servers) == ["web", "local"]
    web, local = servers["web"], servers["local"]
    assert web.headers["Authorization"].reveal() == "Bearer planted"
    assert (web.protocol, web.timeout, web.sessions) == ("2025-06-18", 120.0, "shared")
    assert web.forward_headers == ("x-request-id",)
    assert web.ca_file == str(tmp_path / "ca.pem")
    assert web.target == "https://web.example/mcp"
    assert (local.command, local.cwd, local.instances) == (("uvx", "mcp-server-time"), str(tmp_path / "work"), 3)
    assert local.target == "uvx mcp-server-time"
    assert "planted" not in repr(servers)


def test_secrets_in_urls_and_commands_do_not_show(tmp_path: Path) -> None:
    text = """
[servers.a]
url = "https://a.example/mcp?key=planted&mode=x"
[servers.b]
command = ["run", "--api-key", "planted", "--token=planted", "Authorization: planted", "http://planted@h/", "${env:T}", "-v", "x"]
"""
    servers = loaded(tmp_path, text, T="planted").settings.servers
    assert servers["a"].target == "https://a.example/mcp?key=***&mode=***"
    assert servers["b"].target == "run --api-key *** --token=*** *** http://***@h/ *** -v x"
    assert "planted" not in repr(servers)
    assert reveal(servers["a"].url or "").endswith("key=planted&mode=x")
    assert [reveal(part) for part in servers["b"].command or ()].count("planted") == 2


def test_flags_beat_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    text = '# c\n[listen]\ndata = "127.0.0.1:1"\nadmin = "127.0.0.1:2"\n[limits]\nidle = "1s"\n[servers.a]\nurl = "http://x/"\n'
    flags = Flags({("listen", "data"): ("--listen", "127.0.0.1:5")}, {"b": {"command": ["x"]}})
    read = loaded(
        tmp_path,
        text,
        flags=flags,
        PENSTOCK_LISTEN="127.0.0.1:3",
        PENSTOCK_ADMIN="127.0.0.1:4",
        PENSTOCK_LIMITS_DRAIN="9s",
    )
    settings = read.settings
    assert (settings.listen.data, settings.listen.admin) == ((("127.0.0.1", 5),), (("127.0.0.1", 4),))
    assert (settings.limits.idle, settings.limits.drain) == (1.0, 9.0)
    assert list(settings.servers) == ["a", "b"]
    origins = {
        key: read.origin(*key)
        for key in [("listen", "data"), ("listen", "admin"), ("limits", "idle"), ("limits", "drain")]
    }
    assert list(origins.values()) == [
        "flag --listen",
        "environment PENSTOCK_ADMIN",
        "penstock.toml:6",
        "environment PENSTOCK_LIMITS_DRAIN",
    ]
    assert read.origin("limits", "connections") == "default"
    assert read.origin("servers", "a", "url") == "penstock.toml:8"
    assert read.origin("servers", "b", "command") == "flag --server"


def test_lists_in_the_environment_are_parted_by_commas(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path, "", PENSTOCK_LISTEN_ALLOWED_HOSTS="a, b", PENSTOCK_LISTEN="127.0.0.1:1,[::1]:1"
    ).settings
    assert settings.listen.allowed_hosts == ("a", "b")
    assert settings.listen.data == (("127.0.0.1", 1), ("::1", 1))


def test_bad_settings_from_elsewhere_name_their_source(tmp_path: Path) -> None:
    assert refusal(tmp_path, "", PENSTOCK_LIMITS_IDLEE="3s") == (
        "environment PENSTOCK_LIMITS_IDLEE: unknown setting; did you mean PENSTOCK_LIMITS_IDLE?"
    )
    assert refusal(tmp_path, "", PENSTOCK_LISTEN_QQQQQQQQQQQQQQQQQQQ="3s").endswith(
        "'penstock config show' lists the keys"
    )
    assert refusal(tmp_path, "", PENSTOCK_LIMITS_WAITING="x") == (
        "environment PENSTOCK_LIMITS_WAITING: limits.waiting: expected a whole number from 1 to 1000000, got 'x'"
    )


@pytest.mark.parametrize(
    ("flag", "environment", "here", "expected"),
    [
        ("x.toml", {"PENSTOCK_CONFIG": "y.toml"}, True, ("x.toml", True)),
        (None, {"PENSTOCK_CONFIG": "y.toml"}, True, ("y.toml", True)),
        (None, {"HOME": "/h"}, True, ("penstock.toml", False)),
        (None, {"HOME": "/h"}, False, ("/h/.config/penstock/penstock.toml", False)),
        (None, {"HOME": "/h", "XDG_CONFIG_HOME": "/x"}, False, ("/x/penstock/penstock.toml", False)),
    ],
)
def test_the_file_is_looked_for_in_order(
    flag: str | None, environment: dict[str, str], here: bool, expected: tuple[str, bool], tmp_path: Path
) -> None:
    if here:
        write(tmp_path, "")
    assert find_file(flag, environment, tmp_path) == (tmp_path / expected[0], expected[1])


def test_a_file_others_can_read_or_write_is_warned_of(tmp_path: Path) -> None:
    secret = write(tmp_path, SERVER + "headers = { X = 'planted' }\n")
    secret.chmod(0o644)
    assert mode_warnings(secret, read_source(secret)) == [
        f"{secret} can be read by other users (mode 0644) and holds values of headers or env; run: chmod 600 {secret}"
    ]
    plain = write(tmp_path, SERVER + "headers = { X = '${env:X}' }\n")
    assert mode_warnings(plain, read_source(plain)) == []
    plain.chmod(0o666)
    assert "can be written by other users (mode 0666)" in mode_warnings(plain, read_source(plain))[0]
    odd = write(tmp_path, "servers = 3\n")
    odd.chmod(0o600)
    assert mode_warnings(odd, read_source(odd)) == []


def test_everything_shows_what_it_holds(tmp_path: Path) -> None:
    read = loaded(tmp_path, SERVER)
    assert repr(read) == "<Loaded penstock.toml | servers 1>"
    assert repr(read_source(tmp_path / "penstock.toml", "p")) == "<Source p>"
