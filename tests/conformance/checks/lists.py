"""Checks of lists.toml: caching hints and pages."""

from tests.conformance.checking import check
from tests.conformance.checks.messages import HINTED, plain_requests
from tests.conformance.scene import Scene

CACHEABLE = {*HINTED, "resources/read", "server/discover"}


@check("cacheable-results-have-hints")
def a_cacheable_result_has_hints(scene: Scene) -> None:
    for method, result in plain_requests(scene).items():
        if method in CACHEABLE:
            assert type(result["ttlMs"]) is int, (method, result["ttlMs"])
            assert result["ttlMs"] >= 0, (method, result["ttlMs"])
            assert result["cacheScope"] in {"public", "private"}, (method, result["cacheScope"])


@check("other-results-have-no-hints")
def other_results_have_no_hints(scene: Scene) -> None:
    results = plain_requests(scene)
    results["tools/call that asks"] = scene.call("test_elicitation", {"message": "?"}).result
    for method, result in results.items():
        assert method in CACHEABLE or not {"ttlMs", "cacheScope"} & result.keys(), (method, result)


@check("legacy-servers-promise-no-freshness")
def a_legacy_server_promises_no_freshness(scene: Scene) -> None:
    read = scene.ask("resources/read", {"uri": "test://static-text"}).result
    assert (read["ttlMs"], read["cacheScope"]) == (0, "private"), read
    for method in HINTED:
        assert scene.ask(method).result["cacheScope"] == "private", method


@check("ttl-counts-down", direct=False)
def a_list_from_memory_is_fresh_for_what_is_left(scene: Scene) -> None:
    first, second = (scene.ask("tools/list").result for _ in range(2))
    assert 0 <= second["ttlMs"] <= first["ttlMs"] <= 60_000
    assert first["cacheScope"] == "public"


@check("cursors-are-ours-and-opaque", direct=False)
def a_cursor_nobody_gave_is_invalid(scene: Scene) -> None:
    for cursor in ("none of ours", "", "MQ=="):
        assert scene.ask("tools/list", {"cursor": cursor}).error["code"] == -32602, cursor


@check("the-last-page-has-no-cursor")
def a_whole_list_has_no_cursor(scene: Scene) -> None:
    for method in HINTED:
        assert "nextCursor" not in scene.ask(method).result, method
