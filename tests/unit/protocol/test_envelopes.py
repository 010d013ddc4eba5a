"""Envelopes: what is a message, what is refused and with which code, and that writing gives back what was read."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from penstock.protocol.envelopes import (
    MAX_BATCH,
    MAX_DEPTH,
    MAX_ID_BYTES,
    decode,
    decode_batch,
    encode_batch,
    encode_error,
    encode_notification,
    encode_request,
    encode_result,
    is_batch,
    nests_too_deep,
    one_line,
    read_id,
    replace_lone_surrogates,
)
from penstock.protocol.messages import Fault, Notification, Reply, Request, RpcError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
IDS = st.integers(-(2**53), 2**53) | st.text(max_size=60)


def request(**changes: Any) -> bytes:
    """A valid request with some members changed; None as a string 'absent' removes one."""
    members: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "ping"} | changes
    return json.dumps({key: value for key, value in members.items() if value != "absent"}).encode()


def fault(body: bytes) -> Fault:
    found = decode(body)
    assert isinstance(found, Fault), found
    return found


def params_of(message: object) -> dict[str, Any]:
    assert isinstance(message, Request | Notification)
    return {key: json.loads(bytes(value)) for key, value in message.params.items()}


# --- requests and notifications ---


def test_a_request_is_read_into_id_method_and_params() -> None:
    message = decode(b' {"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"x","arguments":{"a":[1]}}}\n')
    assert isinstance(message, Request)
    assert (message.id, message.method) == (b"7", "tools/call")
    assert params_of(message) == {"name": "x", "arguments": {"a": [1]}}


def test_a_request_without_params_has_none_to_read() -> None:
    message = decode(request())
    assert message == Request(b"1", "ping", {})


def test_a_message_without_id_is_a_notification() -> None:
    message = decode(request(id="absent", params={"x": 1}))
    assert isinstance(message, Notification)
    assert params_of(message) == {"x": 1}
    assert decode(request(id="absent")) == Notification("ping", {})


def test_unknown_members_of_an_envelope_are_not_kept() -> None:
    message = decode(request(extra={"a": 1}))
    assert message == Request(b"1", "ping", {})


def test_the_last_of_two_equal_keys_wins_and_is_all_that_is_written() -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"a","method":"b","params":{"name":"x","name":"y"},"id":2}'
    message = decode(body)
    assert isinstance(message, Request)
    written = encode_request(message.id, message.method, message.params)
    assert written == b'{"jsonrpc":"2.0","id":2,"method":"b","params":{"name":"y"}}'


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        (b"0", b"0"),
        (b"-0", b"0"),
        (b"-1", b"-1"),
        (b"9007199254740992", b"9007199254740992"),
        (b"-9007199254740992", b"-9007199254740992"),
        (b'"a"', b'"a"'),
        (b'""', b'""'),
        (b'"\\u0061\\/"', b'"a/"'),
        ('"é"'.encode(), '"é"'.encode()),
    ],
)
def test_an_id_has_one_spelling_and_keeps_its_type(raw: bytes, canonical: bytes) -> None:
    message = decode(b'{"jsonrpc":"2.0","id":%b,"method":"m"}' % raw)
    assert isinstance(message, Request)
    assert message.id == canonical
    assert read_id(raw) == canonical


@pytest.mark.parametrize(
    "raw",
    [b"null", b"1.5", b"1.0", b"1e3", b"true", b"{}", b"[1]", b"9007199254740993", b"-9007199254740993", b"1" * 400],
)
def test_an_id_that_is_no_string_or_safe_integer_is_refused_without_an_id(raw: bytes) -> None:
    assert fault(b'{"jsonrpc":"2.0","id":%b,"method":"m"}' % raw) == Fault(
        -32600, "Invalid request: 'id' must be a string or an integer within ±2^53"
    )


def test_limits_of_ours_depth_and_id_size_use_our_own_codes() -> None:
    assert isinstance(decode(request(id="x" * (MAX_ID_BYTES - 2))), Request)
    long_id = fault(request(id="x" * (MAX_ID_BYTES - 1)))
    deep = fault(b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":' + b"[" * 63 + b"]" * 63 + b"}}")
    assert [(found.code, found.reason, found.id) for found in (long_id, deep)] == [
        (413, "id_too_long", None),
        (413, "too_deep", None),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"jsonrpc": "absent"},
        {"jsonrpc": "1.0"},
        {"jsonrpc": 2.0},
        {"jsonrpc": None},
        {"method": 1},
        {"method": None},
        {"params": []},
        {"params": None},
        {"params": "x"},
        {"method": "absent"},
        {"method": "m", "result": {}},
        {"method": "m", "error": {"code": 1, "message": ""}},
        {"method": "absent", "result": {}, "error": {"code": 1, "message": ""}},
        {"method": "absent", "result": []},
        {"method": "absent", "result": None},
        {"method": "absent", "error": None},
        {"method": "absent", "error": {"code": "1"}},
        {"method": "absent", "error": {"message": "no code"}},
        {"method": "absent", "error": "text"},
    ],
)
def test_an_envelope_against_the_rules_is_an_invalid_request_with_its_id(changes: dict[str, Any]) -> None:
    found = fault(request(**changes))
    assert (found.code, found.id) == (-32600, b"1")


def test_a_wrong_envelope_with_an_unreadable_id_carries_none() -> None:
    assert fault(request(jsonrpc="1.0", id=None)).id is None
    assert fault(request(jsonrpc="1.0", id="absent")).id is None
    assert fault(request(params=[], id="absent")).id is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"nonsense",
        b'{"jsonrpc":"2.0","id":1,"method":"m"} x',
        b'{"jsonrpc":"2.0","id":1,"method":"m"}{}',
        b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"m"}',
        b'{"jsonrpc":"2.0","id":1,"method":"m\xff"}',
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":"\xc3"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"m","unknown":"\xed\xa0\x80"}',
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":NaN}}',
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":Infinity}}',
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":"\n"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":01}}',
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":[1,]}}',
        b"{'jsonrpc':'2.0'}",
        b'{"jsonrpc":1} x',
        b"[1,",
    ],
)
def test_what_is_not_json_in_utf8_is_a_parse_error_without_an_id(body: bytes) -> None:
    found = fault(body)
    assert (found.code, found.id) == (-32700, None)


@pytest.mark.parametrize("body", [b"1", b'"text"', b"null", b"true"])
def test_json_that_is_no_object_is_an_invalid_request(body: bytes) -> None:
    assert fault(body).code == -32600


def test_a_batch_is_refused_by_all_revisions_that_do_not_ask_for_batches() -> None:
    body = b"[" + request() + b"]"
    assert is_batch(body)
    assert is_batch(b" \r\n\t[]")
    assert not is_batch(request())
    assert "batches" in fault(body).message


# --- replies ---


def test_a_reply_with_a_result_owns_its_bytes() -> None:
    message = decode(b'{"jsonrpc":"2.0","id":"a","result": {"x" : [1]} }')
    assert message == Reply(b'"a"', b'{"x" : [1]}')
    assert isinstance(message, Reply)
    assert type(message.result) is bytes


def test_a_reply_with_an_error_keeps_code_message_and_data() -> None:
    message = decode(b'{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no","data":{"a":1},"more":2}}')
    assert message == Reply(b"1", None, RpcError(-32602, "no", b'{"a":1}'))


def test_null_beside_the_other_member_of_a_reply_counts_as_absent() -> None:
    assert decode(request(method="absent", result={}, error=None)) == Reply(b"1", b"{}")
    assert decode(request(method="absent", result=None, error={"code": 1})) == Reply(b"1", None, RpcError(1, ""))


@pytest.mark.parametrize("identity", [None, "absent"])
def test_an_error_may_come_without_an_id_or_with_null(identity: str | None) -> None:
    body = request(method="absent", id=identity, error={"code": -32700, "message": "?"})
    assert decode(body) == Reply(None, None, RpcError(-32700, "?"))


@pytest.mark.parametrize("identity", [None, "absent"])
def test_a_result_needs_an_id(identity: str | None) -> None:
    assert fault(request(method="absent", id=identity, result={})).code == -32600


def test_a_reply_with_a_wrong_id_is_refused() -> None:
    assert fault(request(method="absent", id=1.5, result={})).id is None


# --- depth ---


def nested(depth: int) -> bytes:
    """A message whose deepest value lies at `depth`."""
    inner = b'{"a":' * (depth - 1) + b"1" + b"}" * (depth - 1)
    return b'{"jsonrpc":"2.0","id":1,"method":"m","params":%b}' % inner


def test_the_depth_limit_counts_the_envelope() -> None:
    assert isinstance(decode(nested(MAX_DEPTH)), Request)
    assert fault(nested(MAX_DEPTH + 1)).reason == "too_deep"
    assert decode_batch(b"[" + nested(MAX_DEPTH) + b"]") == fault(nested(MAX_DEPTH + 1))


@pytest.mark.parametrize("text", ['"' + "[" * 5000 + '"', '"\\"' + "{[" * 500 + '"', '"\\\\", "' + "[" * 500 + '"'])
def test_brackets_inside_strings_do_not_count(text: str) -> None:
    body = ('{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":[' + text + "]}}").encode()
    assert isinstance(decode(body), Request)


def test_many_brackets_side_by_side_are_not_deep() -> None:
    wide = b"[" + b",".join([b"[[],{}]"] * 2000) + b"]"
    assert not nests_too_deep(wide)
    combs = b"[" + b",".join([b"[" * 60 + b"]" * 60] * 50) + b"]"
    assert not nests_too_deep(combs)
    assert nests_too_deep(b"[" * 4 + combs + b"]" * 4)


def test_what_was_folded_away_still_counts() -> None:
    tree = b"[]"
    for _ in range(5):
        tree = b"[" + b",".join([tree] * 3) + b"]"
    assert not nests_too_deep(b"[" * 58 + tree + b"]" * 58)
    assert nests_too_deep(b"[" * 59 + tree + b"]" * 59)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 60 + b'\\"' + b"[" * 100_000,
        b'["' + b"[" * 100_000,
        b"]" * 1000 + b"[" * 100_000,
        b'"' + b'\\"' * 100_000,
        b"[]" * 100_000,
    ],
)
def test_no_body_makes_the_parser_recurse_or_raise(body: bytes) -> None:
    assert isinstance(decode(body), Fault)
    assert isinstance(decode_batch(body), Fault)


@given(JSON)
@settings(max_examples=200)
def test_the_depth_scan_agrees_with_a_recursive_count(value: Any) -> None:
    def depth(node: Any) -> int:
        inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else None
        return 0 if inner is None else 1 + max(map(depth, inner), default=0)

    padding = MAX_DEPTH - depth(value)
    text = json.dumps(value).encode()
    assert not nests_too_deep(b"[" * padding + text + b"]" * padding)
    assert nests_too_deep(b"[" * (padding + 1) + text + b"]" * (padding + 1)) is (padding + depth(value) == MAX_DEPTH)


# --- lone surrogates ---


def test_half_an_emoji_in_an_answer_becomes_a_replacement_character() -> None:
    body = b'{"jsonrpc":"2.0","id":1,"result":{"t":"\\ud83d x \\uDE00 \\ud83d\\ude00 \\\\ud83d \\u0041"}}'
    assert decode(body) == Reply(b"1", b'{"t":"\\ufffd x \\ufffd \\ud83d\\ude00 \\\\ud83d \\u0041"}')
    batch = decode_batch(b"[" + body + b"]")
    assert isinstance(batch, list)
    assert batch == [decode(body)]


@given(st.text(alphabet='\\ud83DCe0a"', max_size=40))
def test_repairing_surrogates_is_idempotent_and_leaves_other_json_alone(text: str) -> None:
    once = replace_lone_surrogates(text.encode())
    assert replace_lone_surrogates(once) == once
    valid = json.dumps(text).encode()
    assert replace_lone_surrogates(valid) == valid


# --- batches ---


def test_a_batch_gives_each_message_its_own_judgement() -> None:
    items = [request(id=1), request(id="absent"), b'{"jsonrpc":"2.0","id":2}', b"[]", b"1", request(id=3)]
    found = decode_batch(b" " + encode_batch(items))
    assert isinstance(found, list)
    assert [type(item) for item in found] == [Request, Notification, Fault, Fault, Fault, Request]


def test_initialize_is_refused_inside_a_batch() -> None:
    found = decode_batch(b"[" + request(method="initialize", id=5) + b"]")
    assert isinstance(found, list)
    assert isinstance(found[0], Fault)
    assert (found[0].code, found[0].id) == (-32600, b"5")


def test_an_id_used_twice_in_a_batch_is_refused_the_second_time() -> None:
    found = decode_batch(b"[" + request(id="a") + b"," + request(id="a") + b"]")
    assert isinstance(found, list)
    assert [type(item) for item in found] == [Request, Fault]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[]", -32600),
        (b"[" + b",".join([request()] * (MAX_BATCH + 1)) + b"]", -32600),
        (b"{}", -32600),
        (b"[1,", -32700),
        (b'["\xff"]', -32700),
    ],
)
def test_a_batch_that_is_none_is_refused_whole(body: bytes, code: int) -> None:
    found = decode_batch(body)
    assert isinstance(found, Fault)
    assert found.code == code


def test_a_batch_of_the_greatest_size_is_read() -> None:
    found = decode_batch(encode_batch([request(id=number) for number in range(MAX_BATCH)]))
    assert isinstance(found, list)
    assert len(found) == MAX_BATCH


# --- writing ---


@given(IDS, st.text(), st.dictionaries(st.text(), JSON, max_size=4))
def test_a_written_request_reads_back_as_itself(identity: int | str, method: str, params: dict[str, Any]) -> None:
    raw_id = msgspec.json.encode(identity)
    raw = {key: Raw(msgspec.json.encode(value)) for key, value in params.items()}
    message = decode(encode_request(raw_id, method, raw))
    assert isinstance(message, Request)
    assert (message.id, message.method) == (raw_id, method)
    assert {key: bytes(value) for key, value in message.params.items()} == {
        key: bytes(value) for key, value in raw.items()
    }
    again = decode(encode_notification(method, raw))
    assert isinstance(again, Notification)
    assert (again.method, again.params.keys()) == (method, raw.keys())


@given(st.binary(max_size=80) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_make_decode_raise(body: bytes) -> None:
    decode(body)
    decode_batch(body)


def test_a_result_is_written_as_it_stands() -> None:
    assert encode_result(b'"a"', b'{ "x":1 }') == b'{"jsonrpc":"2.0","id":"a","result":{ "x":1 }}'


def test_an_unreadable_id_is_left_out_or_null_as_the_revision_has_it() -> None:
    head = b'{"jsonrpc":"2.0",'
    assert encode_error(None, -32700, "no", null_id=False) == head + b'"error":{"code":-32700,"message":"no"}}'
    assert encode_error(None, -32700, "no", null_id=True) == head + b'"id":null,"error":{"code":-32700,"message":"no"}}'


def test_an_error_is_written_with_id_and_data() -> None:
    written = encode_error(b"3", 429, 'a "b"', b'{"reason":"rate"}', null_id=True)
    assert json.loads(written) == {
        "jsonrpc": "2.0",
        "id": 3,
        "error": {"code": 429, "message": 'a "b"', "data": {"reason": "rate"}},
    }


@given(JSON)
def test_one_line_keeps_the_value(value: Any) -> None:
    pretty = json.dumps(value, indent=2).replace("\n", "\r\n").encode()
    line = one_line(pretty)
    assert b"\n" not in line
    assert b"\r" not in line
    assert json.loads(line) == value
