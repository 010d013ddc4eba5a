import json

import pytest

from penstock.http.request_head import Refusal
from penstock.http.responses import MESSAGES, ResponseHeads, refusal_body


@pytest.mark.parametrize("reason", MESSAGES)
def test_every_refusal_is_a_json_rpc_error_without_an_id(reason: str) -> None:
    body = json.loads(refusal_body(Refusal(400, reason)))
    assert body == {"jsonrpc": "2.0", "error": {"code": 400, "message": MESSAGES[reason], "data": {"reason": reason}}}


def test_a_refusal_says_that_the_connection_ends_and_what_its_status_demands() -> None:
    heads = ResponseHeads(0.0)
    assert b"\r\nallow: GET, POST, DELETE, OPTIONS\r\n" in heads.refusal(Refusal(405, "method_not_allowed"))
    assert b"\r\nretry-after: 1\r\n" in heads.refusal(Refusal(503, "too_many_connections"))
    assert b"\r\nconnection: close\r\n\r\n{" in heads.refusal(Refusal(400, "host_missing"))


def test_the_date_is_the_one_of_the_last_refresh() -> None:
    heads = ResponseHeads(784_111_777.0)
    assert heads.start(404) == b"HTTP/1.1 404 Not Found\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    heads.refresh(784_111_778.0)
    assert heads.start(404).endswith(b"08:49:38 GMT\r\n")
    assert heads.ok_json.startswith(b"HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:38 GMT\r\n")
    assert repr(heads) == "<ResponseHeads date: Sun, 06 Nov 1994 08:49:38 GMT>"


def test_a_status_without_a_name_still_has_a_status_line() -> None:
    assert ResponseHeads(0.0).start(299).startswith(b"HTTP/1.1 299 Unknown\r\n")
