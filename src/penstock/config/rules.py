"""What must hold between values that are each well-formed.

Knows: settings. Does not know: files, lines, where a value came from.
"""

from collections.abc import Iterator

from penstock.config.kinds import nearest
from penstock.config.settings import ServerConfig, Settings
from penstock.config.text_kinds import address_text, is_loopback

Broken = tuple[tuple[str, ...], str]
"""The key at fault, and the sentence."""

_ONLY_HTTP = ("headers", "forward_headers", "ca_file", "client_cert")
_ONLY_STDIO = ("env", "cwd")


def broken_rules(settings: Settings) -> Iterator[Broken]:
    """Every rule that does not hold."""
    yield from _listen_rules(settings)
    for server in settings.servers.values():
        yield from _server_rules(server)
    yield from _view_rules(settings)


def _listen_rules(settings: Settings) -> Iterator[Broken]:
    listen = settings.listen
    if bool(listen.tls_cert) != bool(listen.tls_key):
        given, missing = ("tls_cert", "tls_key") if listen.tls_cert else ("tls_key", "tls_cert")
        yield ("listen", given), f"needs '{missing}' beside it"
    shared = [address for address in listen.data if address in listen.admin and address[1]]
    for address in shared:
        yield ("listen", "admin"), f"{address_text(*address)} is the address of 'data' too; give each its own"
    if listen.insecure_listen:
        return
    for key, addresses in (("data", listen.data), ("admin", listen.admin)):
        for address in addresses:
            if not is_loopback(address[0]):
                message = (
                    f"{address_text(*address)} can be reached from other machines, and there is no sign-in yet: anybody there "
                    "could call every tool; listen on 127.0.0.1, or pass --insecure-listen if that is what you want"
                )
                yield ("listen", key), message


def _server_rules(server: ServerConfig) -> Iterator[Broken]:
    path = ("servers", server.name)
    if server.url is None and server.command is None:
        yield path, 'expected url = "https://…" or command = ["…"], got neither'
        return
    if server.url is not None and server.command is not None:
        yield (*path, "command"), "expected either 'url' or 'command', got both; keep one"
        return
    kind, foreign = ("a 'url'", _ONLY_STDIO) if server.url is not None else ("a 'command'", _ONLY_HTTP)
    for key in foreign:
        if getattr(server, key):
            yield (*path, key), f"has no meaning for a server with {kind}; remove it"
    if server.url is not None and server.instances != "shared":
        yield (*path, "instances"), "has no meaning for a server with a 'url'; remove it"


def _view_rules(settings: Settings) -> Iterator[Broken]:
    for view in settings.views.values():
        path = ("views", view.name)
        if view.name in settings.servers:
            yield path, f"server '{view.name}' has a view of that name already; choose another"
        for index, name in enumerate(view.servers):
            if name not in settings.servers:
                near = nearest(name, tuple(settings.servers))
                known = f"did you mean '{near}'?" if near else f"known servers: {', '.join(settings.servers) or 'none'}"
                yield (*path, "servers", str(index)), f"there is no server '{name}'; {known}"
        if not view.servers:
            yield path, "expected servers = […], got none"
