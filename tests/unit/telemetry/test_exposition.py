"""Cells as Prometheus reads them."""

from prometheus_client.parser import text_string_to_metric_families

from penstock.telemetry.cells import CellRegistry
from penstock.telemetry.exposition import BOUNDS_US, Gauge, merged, render
from penstock.telemetry.histogram import bucket_of, upper_bound


def samples(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def test_counters_histograms_and_gauges_are_on_the_page() -> None:
    cells = CellRegistry()
    cell = cells.cell("weather", "tools/call", 'odd "name"\n')
    cells.cell("idle", "tools/call", "never")
    cell.record("ok", 0.000_050, 0.010)
    cell.record("ok", 0.000_300, 0.0)
    plain = Gauge("penstock_plain", "A number.", lambda: [("", 3)])
    labelled = Gauge("penstock_labelled", "Numbers.", lambda: [("a", 1.0), ("b", 0.0)], "server")
    found = samples(render(cells, [plain, labelled]))
    labels = (("method", "tools/call"), ("server", "weather"), ("tool", 'odd "name"\n'))
    assert found["penstock_calls_total", tuple(sorted((*labels, ("outcome", "ok"))))] == 2
    assert found["penstock_overhead_seconds_count", labels] == 2
    assert abs(found["penstock_overhead_seconds_sum", labels] - 0.00035) < 1e-9
    assert found["penstock_overhead_seconds_bucket", (("le", "6.4e-05"), *labels)] == 1
    assert found["penstock_overhead_seconds_bucket", (("le", "0.000512"), *labels)] == 2
    assert found["penstock_overhead_seconds_bucket", (("le", "+Inf"), *labels)] == 2
    assert found["penstock_upstream_seconds_count", labels] == 1
    assert found["penstock_plain", ()] == 3
    assert found["penstock_labelled", (("server", "b"),)] == 0
    assert not [key for key in found if ("server", "idle") in key[1]]


def test_without_calls_the_page_is_still_one() -> None:
    assert b"# TYPE penstock_calls_total counter" in render(CellRegistry())


def test_every_bound_is_the_end_of_a_bucket() -> None:
    assert all(upper_bound(bucket_of(bound)) == bound + 1 for bound in BOUNDS_US)
    assert list(BOUNDS_US) == sorted(set(BOUNDS_US))


# --- of several workers ---


def page_of(*calls: tuple[str, str, int], gauges: tuple[Gauge, ...] = ()) -> bytes:
    """Of one worker: server, tool and number of calls that went well."""
    cells = CellRegistry()
    for server, tool, count in calls:
        for _ in range(count):
            cells.cell(server, "tools/call", tool).record("ok", 0.000_050, 0.010)
    return render(cells, gauges)


def test_what_workers_count_is_added_up() -> None:
    pages = [page_of(("weather", "now", 2)), page_of(("weather", "now", 3)), page_of(("weather", "now", 5))]
    assert samples(merged(pages)) == samples(page_of(("weather", "now", 10)))


def test_what_only_one_has_stands_with_its_metric() -> None:
    page = merged([page_of(("a", "x", 1)), page_of(("a", "x", 1), ("b", "with { braces } and spaces", 4))])
    families = [line.split()[2] for line in page.decode().splitlines() if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
    for family in text_string_to_metric_families(page.decode()):
        assert family.samples, family.name
        assert {sample.labels["tool"] for sample in family.samples} == {"x", "with { braces } and spaces"}
    assert (
        samples(page)[
            "penstock_calls_total",
            (
                ("method", "tools/call"),
                ("outcome", "ok"),
                ("server", "b"),
                ("tool", "with { braces } and spaces"),
            ),
        ]
        == 4
    )


def test_a_histogram_that_only_a_later_page_has_is_whole() -> None:
    later = page_of(("a", "x", 3))
    assert samples(merged([page_of(), later])) == samples(later)


def test_what_is_the_same_for_all_is_not_added_up() -> None:
    def gauges(generation: float, ready: float, sessions: float) -> tuple[Gauge, ...]:
        return (
            Gauge("penstock_generation", "Number.", lambda: [("", generation)]),
            Gauge("penstock_server_ready", "Ready.", lambda: [("a", ready)], "server"),
            Gauge("penstock_configuration_taken_up", "Whether.", lambda: [("", ready)]),
            Gauge("penstock_sessions", "Sessions.", lambda: [("", sessions)]),
        )

    found = samples(merged([page_of(gauges=gauges(3, 0, 2)), page_of(gauges=gauges(4, 1, 5))]))
    assert found["penstock_generation", ()] == 4
    assert found["penstock_server_ready", (("server", "a"),)] == 0, "not for all"
    assert found["penstock_configuration_taken_up", ()] == 0, "not by all"
    assert found["penstock_sessions", ()] == 7


def test_names_of_tools_may_hold_what_separates_lines_elsewhere() -> None:
    tool = "odd\rname\x0b\x1c \u2028\n# TYPE x"
    found = samples(merged([page_of(("a", tool, 1)), page_of(("a", tool, 2))]))
    assert {dict(labels)["tool"] for _, labels in found} == {tool}
    assert (
        found["penstock_calls_total", (("method", "tools/call"), ("outcome", "ok"), ("server", "a"), ("tool", tool))]
        == 3
    )


def test_one_page_or_none_is_one_too() -> None:
    page = page_of(("a", "x", 2))
    assert samples(merged([page])) == samples(page)
    assert merged([]) == b""
    assert samples(merged([page, b""])) == samples(page)


def test_a_page_that_is_cut_off_costs_its_last_line_alone() -> None:
    page = page_of(("a", "x", 2))
    assert samples(merged([page, b'penstock_calls_total{server="a\nnothing of ours\n\n'])) == samples(page)
