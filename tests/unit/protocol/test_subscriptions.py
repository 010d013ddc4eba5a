"""The filter of `subscriptions/listen` and the notifications it stands for, as bytes."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from penstock.protocol.errors import INVALID_PARAMS
from penstock.protocol.messages import Fault
from penstock.protocol.subscriptions import (
    CAPABILITY_OF,
    CHANGES,
    LIST_CHANGED,
    MAX_FILTER_BYTES,
    MAX_URIS,
    Filter,
    acknowledgement,
    closing_result,
    list_changed,
    read_filter,
    read_honoured,
    subscription_of,
    task_changed,
    updated,
    uri_of,
    write_filter,
)

decode = msgspec.json.decode
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
ALL = Filter(frozenset(LIST_CHANGED), ("a://1", "a://2"))


def raw(value: Any) -> Raw:
    return Raw(msgspec.json.encode(value))


def filter_of(value: Any) -> Filter:
    found = read_filter(raw(value))
    assert isinstance(found, Filter), found
    return found


@pytest.mark.parametrize(
    ("said", "lists", "uris"),
    [
        ({}, (), ()),
        ({"toolsListChanged": True}, ("tools",), ()),
        ({"promptsListChanged": True, "toolsListChanged": False}, ("prompts",), ()),
        ({"resourcesListChanged": True, "somethingNew": {"a": 1}}, ("resources",), ()),
        ({"resourceSubscriptions": ["b://", "a://", "b://"]}, (), ("b://", "a://")),
    ],
)
def test_a_filter_names_what_is_wanted_and_each_resource_once(said: Any, lists: Any, uris: Any) -> None:
    assert filter_of(said) == Filter(frozenset(lists), uris)


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        "tools",
        5,
        {"toolsListChanged": "yes"},
        {"resourceSubscriptions": "a://"},
        {"resourceSubscriptions": [5]},
    ],
)
def test_a_filter_of_another_shape_is_refused(said: Any) -> None:
    found = read_filter(raw(said))
    assert isinstance(found, Fault)
    assert found.code == INVALID_PARAMS
    assert "'notifications' must say" in found.message


def test_a_request_without_a_filter_is_refused() -> None:
    assert isinstance(read_filter(None), Fault)


def test_a_filter_is_bounded_in_resources_and_in_bytes() -> None:
    uris = [f"a://{number}" for number in range(MAX_URIS)]
    assert len(filter_of({"resourceSubscriptions": uris}).uris) == MAX_URIS
    assert len(filter_of({"resourceSubscriptions": [*uris, *uris]}).uris) == MAX_URIS
    too_many = read_filter(raw({"resourceSubscriptions": [*uris, "a://one more"]}))
    assert isinstance(too_many, Fault)
    assert f"more than {MAX_URIS} resources" in too_many.message
    too_long = read_filter(raw({"resourceSubscriptions": ["a://" + "x" * MAX_FILTER_BYTES]}))
    assert isinstance(too_long, Fault)
    assert (too_long.code, f"{MAX_FILTER_BYTES} bytes" in too_long.message) == (INVALID_PARAMS, True)


def test_a_written_filter_reads_as_the_same_and_names_only_what_is_wanted() -> None:
    assert filter_of(decode(write_filter(ALL))) == ALL
    assert write_filter(Filter(frozenset(), ())) == b"{}"
    assert write_filter(Filter(frozenset({"prompts"}), ())) == b'{"promptsListChanged":true}'


def test_a_server_agrees_to_no_more_than_was_wanted() -> None:
    wanted = Filter(frozenset({"tools", "prompts"}), ("a://1", "a://2"))
    said = {"toolsListChanged": True, "resourcesListChanged": True, "resourceSubscriptions": ["b://", "a://2"]}
    assert read_honoured(raw(said), wanted) == Filter(frozenset({"tools"}), ("a://2",))


@pytest.mark.parametrize("said", [None, raw("nonsense"), raw({})])
def test_an_acknowledgement_that_says_nothing_agrees_to_nothing(said: Raw | None) -> None:
    assert read_honoured(said, ALL) == Filter(frozenset(), ())


def test_what_the_gateway_asks_for_many_clients_may_be_more_than_one_client_may_ask() -> None:
    wanted = Filter(frozenset(), tuple(f"a://{number}" for number in range(3 * MAX_URIS)))
    assert read_honoured(Raw(write_filter(wanted)), wanted) == wanted


@pytest.mark.parametrize("identity", [b"1", b'"one \\"two\\""'])
def test_each_message_of_a_subscription_carries_the_id_of_its_request(identity: bytes) -> None:
    acknowledged = decode(acknowledgement(identity, Filter(frozenset({"tools"}), ("a://1",))))
    assert acknowledged == {
        "jsonrpc": "2.0",
        "method": "notifications/subscriptions/acknowledged",
        "params": {
            "_meta": {SUBSCRIPTION: decode(identity)},
            "notifications": {"toolsListChanged": True, "resourceSubscriptions": ["a://1"]},
        },
    }
    for capability, method in LIST_CHANGED.items():
        said = decode(list_changed(capability, identity))
        assert said == {"jsonrpc": "2.0", "method": method, "params": {"_meta": {SUBSCRIPTION: decode(identity)}}}
    assert decode(updated('a://"1"', identity))["params"] == {
        "_meta": {SUBSCRIPTION: decode(identity)},
        "uri": 'a://"1"',
    }
    assert decode(closing_result(identity)) == {"resultType": "complete", "_meta": {SUBSCRIPTION: decode(identity)}}


@pytest.mark.parametrize("meta", [{}, {"_meta": {"trace": "t", SUBSCRIPTION: "the gateway's"}}, {"_meta": "nonsense"}])
def test_of_a_task_each_client_hears_by_its_own_ids(meta: Any) -> None:
    params = {name: raw(value) for name, value in ({"taskId": "the server's", "status": "working"} | meta).items()}
    said = decode(task_changed(params, "the client's", b'"mine"'))
    assert said["method"] == "notifications/tasks"
    kept = {"trace": "t"} if isinstance(meta.get("_meta"), dict) else {}
    assert said["params"] == {"taskId": "the client's", "status": "working", "_meta": kept | {SUBSCRIPTION: "mine"}}


def test_a_legacy_client_gets_them_without_an_id() -> None:
    assert decode(list_changed("tools", None)) == {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
    assert decode(updated("a://1", None)) == {
        "jsonrpc": "2.0",
        "method": "notifications/resources/updated",
        "params": {"uri": "a://1"},
    }


def test_the_subscription_a_notification_belongs_to_is_read_as_it_was_written() -> None:
    assert subscription_of({"_meta": raw({SUBSCRIPTION: 5, "x": 1})}) == b"5"
    assert subscription_of({"_meta": raw({SUBSCRIPTION: "5"})}) == b'"5"'
    assert subscription_of({"_meta": raw({"x": 1})}) is None
    assert subscription_of({"_meta": raw("nonsense")}) is None
    assert subscription_of({}) is None


def test_the_resource_of_an_update_is_a_string_or_nothing() -> None:
    assert uri_of({"uri": raw("a://ü")}) == "a://ü"
    assert uri_of({"uri": raw(5)}) is None
    assert uri_of({}) is None


def test_each_method_stands_for_one_capability() -> None:
    assert {CAPABILITY_OF[method] for method in LIST_CHANGED.values()} == set(LIST_CHANGED)
    assert set(LIST_CHANGED.values()) < CHANGES
