"""Cells as Prometheus reads them."""

from prometheus_client.parser import text_string_to_metric_families

from penstock.telemetry.cells import CellRegistry
from penstock.telemetry.exposition import BOUNDS_US, Gauge, render
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
