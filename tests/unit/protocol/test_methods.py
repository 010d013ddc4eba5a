"""The tables of methods agree with the schema of each revision."""

import pytest

from penstock.protocol.methods import METHODS, NOTIFICATIONS, SERVER_REQUESTS, lookup, lookup_notification
from penstock.protocol.versions import LEGACY_VERSIONS, Era

CORE = {
    "tools/list", "tools/call", "prompts/list", "prompts/get", "resources/list", "resources/templates/list",
    "resources/read", "completion/complete",
}  # fmt: skip
LEGACY_ONLY = {"initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"}
CORE_TASKS = {"tasks/get", "tasks/result", "tasks/cancel", "tasks/list"}


def legacy_methods(revision: str) -> set[str]:
    return {method for method, rule in METHODS[Era.LEGACY].items() if rule.since <= revision}


@pytest.mark.parametrize("revision", LEGACY_VERSIONS)
def test_each_legacy_revision_has_the_methods_of_its_schema(revision: str) -> None:
    tasks = CORE_TASKS if revision == "2025-11-25" else set()
    assert legacy_methods(revision) == CORE | LEGACY_ONLY | tasks


def test_the_modern_era_has_the_methods_of_its_schema_and_the_tasks_extension() -> None:
    extension = {"tasks/get", "tasks/update", "tasks/cancel"}
    assert METHODS[Era.MODERN].keys() == CORE | {"server/discover", "subscriptions/listen"} | extension


@pytest.mark.parametrize("method", sorted(LEGACY_ONLY))
def test_modern_removed_ping_set_level_subscribe_and_initialize(method: str) -> None:
    assert lookup(Era.MODERN, method) is None
    assert lookup(Era.LEGACY, method) is not None


def test_modern_removed_roots_list_changed_and_initialized() -> None:
    for name in ("notifications/roots/list_changed", "notifications/initialized"):
        assert lookup_notification(Era.MODERN, name) is None
        assert lookup_notification(Era.LEGACY, name) is not None


def test_input_required_is_allowed_on_tools_call_prompts_get_and_resources_read_only() -> None:
    for era in Era:
        allowed = {method for method, rule in METHODS[era].items() if rule.input_required_allowed}
        assert allowed == {"tools/call", "prompts/get", "resources/read"}


def test_ttl_and_cache_scope_belong_on_six_methods_only() -> None:
    cacheable = {method for method, rule in METHODS[Era.MODERN].items() if rule.cacheable}
    assert cacheable == {
        "server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read",
    }  # fmt: skip


def test_tasks_carry_their_task_id_as_name() -> None:
    for era in Era:
        for method, rule in METHODS[era].items():
            if method.startswith("tasks/") and method != "tasks/list":
                assert rule.name_field == "taskId"


def test_the_tasks_extension_and_core_tasks_need_different_capabilities() -> None:
    modern, legacy = lookup(Era.MODERN, "tasks/get"), lookup(Era.LEGACY, "tasks/get")
    assert modern is not None
    assert legacy is not None
    assert (modern.capability, legacy.capability) == ("io.modelcontextprotocol/tasks", "tasks")


def test_only_the_three_routed_core_methods_are_named() -> None:
    named = {
        method: rule.name_field for method, rule in METHODS[Era.MODERN].items() if rule.name_field and method in CORE
    }
    assert named == {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


@pytest.mark.parametrize("revision", LEGACY_VERSIONS)
def test_each_legacy_revision_has_the_notifications_of_its_schema(revision: str) -> None:
    names = {name for name, rule in NOTIFICATIONS[Era.LEGACY].items() if rule.since <= revision}
    everywhere = {
        "cancelled", "progress", "message", "initialized", "tools/list_changed", "prompts/list_changed",
        "resources/list_changed", "resources/updated", "roots/list_changed",
    }  # fmt: skip
    newest = {"tasks/status", "elicitation/complete"} if revision == "2025-11-25" else set()
    assert names == {f"notifications/{name}" for name in everywhere | newest}


def test_elicitation_came_with_2025_06_18_and_each_server_request_names_its_capability() -> None:
    assert SERVER_REQUESTS["elicitation/create"] == ("elicitation", "2025-06-18")
    assert SERVER_REQUESTS["ping"] == (None, "2024-11-05")


def test_an_unknown_method_has_no_rule() -> None:
    assert lookup(Era.MODERN, "unknown/method") is None
