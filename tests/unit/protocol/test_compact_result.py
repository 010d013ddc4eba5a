"""Replies taken without decoding them twice, and results cut instead of encoded anew."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.protocol.envelopes import compact_result, decode
from penstock.protocol.messages import Reply
from penstock.protocol.results import to_legacy, to_modern

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
EXTRAS = st.dictionaries(
    st.sampled_from(["isError", "structuredContent", "_meta", "ttlMs", "x", "resultType"]), JSON, max_size=4
)


def written(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":7,"result":{"content":[],"isError":true}}',
        b'{"result":{"content":[],"isError":true},"jsonrpc":"2.0","id":7}',
    ],
    ids=["id first", "id last"],
)
def test_a_compact_reply_is_taken_in_both_orders(body: bytes) -> None:
    found = compact_result(body, b"7")
    assert found is not None
    raw, marks = found
    assert raw == b'{"content":[],"isError":true}'
    assert marks.is_error
    view = compact_result(memoryview(b"xx" + body)[2:], b"7")
    assert view is not None
    assert (type(view[0]), bytes(view[0]), view[1].is_error) == (memoryview, raw, True)


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":8,"result":{}}',
        b'{"result":{},"jsonrpc":"2.0","id":8}',
        b'{"jsonrpc":"2.0","id":7,"result":{},"id":8}',
        b'{"jsonrpc":"2.0","id":7,"result":{}} ',
        b'{"jsonrpc":"2.0","id":7,"result":[]}',
        b'{"jsonrpc":"2.0","id":7,"result":{"a":}}',
        b'{"jsonrpc":"2.0","id":7,"result":{"a":"\xff"}}',
        b'{"jsonrpc":"2.0","id":7,"result":{"isError":"maybe"}}',
        b'{"jsonrpc":"2.0","id":7,"result":{}}{}',
        b'{"result":{},"id":7,"jsonrpc":"2.0"}',
        b'{"jsonrpc":"2.0","id":7,"result":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_001,
        b'{"error":{}}',
    ],
)
def test_what_is_not_exactly_that_is_left_to_the_decoder(body: bytes) -> None:
    assert compact_result(body, b"7") is None
    assert compact_result(memoryview(b"xx" + body + b"}")[2:-1], b"7") is None


def test_text_beyond_ascii_is_taken_as_it_is() -> None:
    body = '{"jsonrpc":"2.0","id":7,"result":{"content":"Zürich"}}'.encode()
    found = compact_result(body, b"7")
    assert found is not None
    assert found[0] == '{"content":"Zürich"}'.encode()
    assert compact_result(memoryview(body), b"7") is not None
    assert compact_result(memoryview(bytearray(body)), b"7") is not None


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=4))
def test_it_says_what_the_decoder_says(result: dict[str, Any]) -> None:
    body = written({"jsonrpc": "2.0", "id": 7, "result": result})
    found = compact_result(body, b"7")
    reply = decode(body)
    if found is None:
        assert not isinstance(result.get("isError", False), bool)
    else:
        assert isinstance(reply, Reply)
        assert reply.result == found[0]


@given(EXTRAS, st.permutations(["content", "resultType", "isError"]), st.sampled_from(["2025-11-25", "2025-03-26"]))
def test_a_result_that_is_cut_reads_like_one_that_was_encoded_anew(
    extras: dict[str, Any], order: list[str], revision: str
) -> None:
    known = {
        "content": [{"type": "text", "text": '"resultType":"complete"'}],
        "resultType": "complete",
        "isError": False,
    }
    raw = written({name: known[name] for name in order} | extras)
    found = compact_result(b'{"jsonrpc":"2.0","id":7,"result":%b}' % raw, b"7")
    if found is None:
        return
    slowly = to_legacy(raw, "tools/call", revision)
    quickly = to_legacy(raw, "tools/call", revision, found[1])
    if isinstance(slowly, bytes) and isinstance(quickly, bytes):
        assert json.loads(quickly) == json.loads(slowly)
    else:
        assert quickly == slowly


@pytest.mark.parametrize(
    ("raw", "cut"),
    [
        (b'{"resultType":"complete","content":[]}', b'{"content":[]}'),
        (b'{"content":[],"resultType":"complete"}', b'{"content":[]}'),
        (b'{"content":[],"resultType":"complete","isError":false}', b'{"content":[],"isError":false}'),
        (
            b'{"resultType" :"complete","content":[],"structuredContent":{"a":1,"resultType":"complete"}}',
            b'{"content":[],"structuredContent":{"a":1,"resultType":"complete"}}',
        ),
        (b'{"resultType" : "complete","content":[]}', b'{"content":[]}'),
        (
            b'{"resultType":"complete","content":[],"structuredContent":[1]}',
            b'{"content":[{"type":"text","text":"[1]"}]}',
        ),
    ],
    ids=["at the start", "at the end", "near the end", "one inside as well", "spelt with spaces", "more must change"],
)
def test_only_the_results_own_type_is_cut(raw: bytes, cut: bytes) -> None:
    found = compact_result(b'{"jsonrpc":"2.0","id":7,"result":%b}' % raw, b"7")
    assert found is not None
    changed = to_legacy(raw, "tools/call", "2025-11-25", found[1])
    assert isinstance(changed, bytes)
    assert json.loads(changed) == json.loads(cut)


def test_a_legacy_result_gains_its_type_from_what_is_known_of_it() -> None:
    raw = b'{"content":[]}'
    found = compact_result(b'{"jsonrpc":"2.0","id":7,"result":%b}' % raw, b"7")
    assert found is not None
    assert to_modern(raw, "tools/call", marks=found[1]) == b'{"resultType":"complete","content":[]}'
