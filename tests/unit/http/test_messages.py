from penstock.http.messages import Request


def test_a_request_shows_its_size_but_not_its_content() -> None:
    request = Request(b"POST", "/mcp", b"token=secret", {b"authorization": b"Bearer secret"}, b"secret")
    assert repr(request) == "<Request POST /mcp [1 fields | body 6 B]>"
