"""`input_required` results and their retries, as bytes; what a legacy server asks put into modern words."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from penstock.protocol.input_required import (
    MAX_REQUESTS,
    InputRequest,
    InputRequired,
    asks_for_input,
    for_modern_client,
    read_input_required,
    read_responses,
    read_state,
    request_fingerprint,
    url_elicitations,
    write_input_required,
)
from penstock.protocol.messages import Fault

FORM = {"method": "elicitation/create", "params": {"message": "Who?"}}


def raw(value: Any) -> Raw:
    return Raw(msgspec.json.encode(value))


def result(**members: Any) -> bytes:
    return msgspec.json.encode({"resultType": "input_required", **members})


def members_of(json: bytes) -> dict[str, Raw]:
    return msgspec.json.decode(json, type=dict[str, Raw])


@pytest.mark.parametrize(
    ("json", "asks"),
    [
        (b'{"resultType":"input_required"}', True),
        (b'{ "requestState" : "x" , "resultType" : "input_required" }', True),
        (b'{"resultType":"complete","content":[]}', False),
        (b'{"resultType":"complete","content":[{"text":"\\"input_required\\"","type":"text"}]}', False),
        (b'{"resultType":"complete","structuredContent":{"resultType":"input_required"}}', False),
        (b'{"content":["input_required"]}', False),
        (b'["input_required"]', False),
        (b'{"resultType":"input_required"', False),
        (b"{}", False),
    ],
)
def test_only_the_results_own_type_says_that_it_asks(json: bytes, asks: bool) -> None:
    assert asks_for_input(json) is asks


def test_what_a_server_asks_is_read() -> None:
    found = read_input_required(
        result(inputRequests={"a": FORM, "b": {"method": "roots/list"}}, requestState="s/\u00e9")
    )
    assert isinstance(found, InputRequired)
    assert found.state == "s/\u00e9"
    assert list(found.requests) == ["a", "b"]
    assert found.requests["a"] == InputRequest("elicitation/create", {"message": raw("Who?")})
    assert found.requests["b"] == InputRequest("roots/list", {})


def test_either_member_is_enough() -> None:
    assert read_input_required(result(requestState="")) == InputRequired({}, "")
    found = read_input_required(result(inputRequests={"a": FORM}))
    assert isinstance(found, InputRequired)
    assert found.state is None


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({}, "without saying for which"),
        ({"inputRequests": {}}, "without saying for which"),
        ({"inputRequests": []}, "cannot be read"),
        ({"inputRequests": {"a": 5}}, "cannot be read"),
        ({"inputRequests": {"a": {"params": {}}}}, "cannot be read"),
        ({"inputRequests": {"a": {"method": "roots/list", "params": []}}}, "cannot be read"),
        ({"requestState": 5}, "cannot be read"),
        ({"inputRequests": {"a": {"method": "tools/call"}}}, "'tools/call', which no client"),
        ({"inputRequests": {"a": FORM, "b": {"method": "x" * 500}}}, f"'{'x' * 64}', which"),
        ({"inputRequests": {str(n): FORM for n in range(MAX_REQUESTS + 1)}}, f"{MAX_REQUESTS + 1} inputs at once"),
    ],
)
def test_what_no_client_could_answer_is_a_fault_of_the_server(members: dict[str, Any], says: str) -> None:
    fault = read_input_required(result(**members))
    assert isinstance(fault, Fault)
    assert fault.code == -32603
    assert says in fault.message


def test_as_many_requests_as_are_allowed_are_read() -> None:
    found = read_input_required(result(inputRequests={str(n): FORM for n in range(MAX_REQUESTS)}))
    assert isinstance(found, InputRequired)
    assert len(found.requests) == MAX_REQUESTS


def test_what_is_written_is_read_again() -> None:
    requests = {"a": InputRequest("elicitation/create", {"message": raw("Who?")}), "b": InputRequest("roots/list", {})}
    for state in ("state", None):
        written = write_input_required(requests, state)
        assert asks_for_input(written)
        assert read_input_required(written) == InputRequired(requests, state)
    plain = msgspec.json.decode(write_input_required({}, "only"))
    assert plain == {"resultType": "input_required", "requestState": "only"}
    assert msgspec.json.decode(write_input_required(requests, None)) == {
        "resultType": "input_required",
        "inputRequests": {"a": FORM, "b": {"method": "roots/list"}},
    }


def test_answers_are_read_by_name() -> None:
    assert read_responses({}) == {}
    assert read_responses({"inputResponses": raw({})}) == {}
    read = read_responses({"inputResponses": raw({"a": {"action": "accept"}, "b": {}})})
    assert read == {"a": raw({"action": "accept"}), "b": raw({})}


@pytest.mark.parametrize("value", [None, 5, "x", [], {"a": None}, {"a": {}, "b": "yes"}, {"a": [{}]}])
def test_malformed_answers_are_invalid_params(value: Any) -> None:
    fault = read_responses({"inputResponses": raw(value)})
    assert isinstance(fault, Fault)
    assert fault.code == -32602
    assert "inputResponses" in fault.message


def test_a_long_name_is_not_repeated_whole() -> None:
    fault = read_responses({"inputResponses": raw({"n" * 500: 1})})
    assert isinstance(fault, Fault)
    assert len(fault.message) < 150


def test_the_state_is_a_string() -> None:
    assert read_state({}) is None
    assert read_state({"requestState": raw("")}) == ""
    assert read_state({"requestState": Raw(b'"a\\/b\\u00e9"')}) == "a/b\u00e9"
    wrong: list[Any] = [None, 5, {}, ["x"]]
    for value in wrong:
        fault = read_state({"requestState": raw(value)})
        assert isinstance(fault, Fault)
        assert (fault.code, "requestState" in fault.message) == (-32602, True)


PARAMS = members_of(b'{"name":"book","arguments":{"a":[1,{"x":1,"y":2}],"b":"\xc3\xa9"}}')
SAME = [
    b'{"arguments":{"b":"\\u00e9","a":[1,{"y":2,"x":1}]},"name":"book"}',
    b'{ "name" : "book" ,\n "arguments" : { "a" : [ 1 , { "x" : 1 , "y" : 2 } ] , "b" : "\xc3\xa9" } }',
    b'{"name":"b\\u006fok","arguments":{"a":[1,{"x":1,"y":2}],"b":"\xc3\xa9"},"_meta":{"progressToken":1}}',
    b'{"name":"book","arguments":{"a":[1,{"x":1,"y":2}],"b":"\xc3\xa9"},"requestState":"s","inputResponses":{"a":{}}}',
]
OTHERS = [
    b'{"name":"book"}',
    b'{"name":"cook","arguments":{"a":[1,{"x":1,"y":2}],"b":"\xc3\xa9"}}',
    b'{"name":"book","arguments":{"a":[1,{"x":1,"y":3}],"b":"\xc3\xa9"}}',
    b'{"name":"book","arguments":{"a":["1",{"x":1,"y":2}],"b":"\xc3\xa9"}}',
    b'{"name":"book","arguments":{"a":[{"x":1,"y":2},1],"b":"\xc3\xa9"}}',
    b'{"name":"book","arguments":{"a":[1,{"x":1,"y":2}],"b":"\xc3\xa9"},"more":1}',
]


@pytest.mark.parametrize("json", SAME)
def test_a_retry_has_the_fingerprint_of_its_request_however_it_is_written(json: bytes) -> None:
    assert request_fingerprint("tools/call", members_of(json)) == request_fingerprint("tools/call", PARAMS)


@pytest.mark.parametrize("json", OTHERS)
def test_other_parameters_have_another_fingerprint(json: bytes) -> None:
    assert request_fingerprint("tools/call", members_of(json)) != request_fingerprint("tools/call", PARAMS)


def test_another_method_has_another_fingerprint() -> None:
    assert request_fingerprint("prompts/get", PARAMS) != request_fingerprint("tools/call", PARAMS)


@pytest.mark.parametrize(
    "number", [b"1e999", b"9" * 5_000, b"9" * 30, b"-" + b"9" * 30, b"0.1", b"-0.0"], ids=lambda number: number[:6]
)
def test_numbers_no_machine_can_hold_have_a_fingerprint_too(number: bytes) -> None:
    """They are valid JSON, and the server may take them for what they are."""

    def fingerprint(text: bytes) -> bytes:
        return request_fingerprint("tools/call", members_of(text))

    first = fingerprint(b'{"name":"x","arguments":{"n":%b}}' % number)
    assert first == fingerprint(b'{"arguments":{"n":%b},"name":"x"}' % number)
    assert first != fingerprint(b'{"name":"x","arguments":{"n":%b1}}' % number)
    assert first != fingerprint(b'{"name":"y","arguments":{"n":%b}}' % number)


def test_a_modern_client_sees_nothing_of_another_conversation() -> None:
    asked = InputRequest(
        "elicitation/create",
        {
            "mode": raw("url"),
            "url": raw("https://x.example"),
            "message": raw("Go"),
            "elicitationId": raw("e-1"),
            "_meta": raw({"progressToken": 5}),
            "task": raw({"ttl": 1}),
        },
    )
    assert for_modern_client(asked) == InputRequest(
        "elicitation/create", {"mode": raw("url"), "url": raw("https://x.example"), "message": raw("Go")}
    )
    assert "elicitationId" in asked.params, "the server's own request is left alone"


def test_the_urls_of_an_error_become_requests() -> None:
    one = {"mode": "url", "elicitationId": "e-1", "url": "https://a.example/?x=\u00e9", "message": "Sign in"}
    data = msgspec.json.encode({"elicitations": [one, {"url": "https://b.example"}], "more": 1})
    assert url_elicitations(data) == {
        "url-1": InputRequest(
            "elicitation/create",
            {"mode": raw("url"), "url": raw("https://a.example/?x=\u00e9"), "message": raw("Sign in")},
        ),
        "url-2": InputRequest(
            "elicitation/create", {"mode": raw("url"), "url": raw("https://b.example"), "message": raw("")}
        ),
    }


@pytest.mark.parametrize(
    "data", [None, b"", b"5", b"{}", b'{"elicitations":{}}', b'{"elicitations":[5]}', b'{"elicitations":[]}']
)
def test_urls_that_cannot_be_read_ask_for_nothing(data: bytes | None) -> None:
    assert url_elicitations(data) == {}


def test_urls_are_bounded_in_number() -> None:
    data = msgspec.json.encode({"elicitations": [{"url": "https://x.example"}] * 100})
    assert len(url_elicitations(data)) == MAX_REQUESTS
