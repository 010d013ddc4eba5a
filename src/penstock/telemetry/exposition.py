"""Cells as Prometheus text.

Knows: cells, gauges, prometheus-client's text format. Does not know: HTTP. Nothing is kept in prometheus-client's own
registry: a scrape reads the cells, so recording a call never pays for it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.telemetry.cells import Cell, CellRegistry
from penstock.telemetry.histogram import Histogram

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
BOUNDS_US: Final = (
    *(63, 127, 255, 511),  # ends of whole buckets, so that no count is split
    *(1_023, 2_047, 4_095, 8_191, 16_383, 32_767, 65_535),
    *(131_071, 262_143, 524_287, 1_048_575, 4_194_303, 16_777_215, 67_108_863),
)
_CALL_LABELS: Final = ("server", "method", "tool")


class Gauge:
    """A number read when somebody looks: name, help text and how to get its values by label value."""

    __slots__ = ("help", "label", "name", "read")

    def __init__(self, name: str, help: str, read: Callable[[], Iterable[tuple[str, float]]], label: str = "") -> None:
        self.name: Final = name
        self.help: Final = help
        self.read: Final = read
        self.label: Final = label


def render(cells: CellRegistry, gauges: Iterable[Gauge] = ()) -> bytes:
    """The whole page."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(cells, tuple(gauges)))
    return generate_latest(registry)


def merged(pages: Sequence[bytes]) -> bytes:
    """The pages of several workers as one: what is counted is added up; of what is the same for all, the largest is shown.

    A server is ready when it is for all: some have it from another worker, and take it for ready when that worker is there.
    """
    values: dict[bytes, float] = {}
    order: list[bytes] = []
    for page in pages:
        for line in page.split(b"\n"):  # not `splitlines`: names may hold any other line break
            key, value = (line, 0.0) if line.startswith(b"#") else _sample(line)
            if not key:
                continue
            if key not in values:
                order.append(key)
                values[key] = value
            elif key.startswith(_SAME_FOR_ALL):
                values[key] = max(values[key], value)
            elif key.startswith(_OF_THE_LEAST):
                values[key] = min(values[key], value)
            else:
                values[key] += value
    lines = _in_families(order)
    return b"".join(
        b"%b\n" % (key if key.startswith(b"#") else b"%b %b" % (key, _number(values[key]))) for key in lines
    )


def _sample(line: bytes) -> tuple[bytes, float]:
    """Name with labels, and value; no name when it is no sample."""
    name, _, number = line.rpartition(b" ")
    try:
        return name, float(number)
    except ValueError:
        return b"", 0.0


def _in_families(order: list[bytes]) -> list[bytes]:
    """Lines that only a later page has, put behind those of their metric."""
    families: dict[bytes, list[bytes]] = {}
    for line in order:
        name = line.split(b" ")[2] if line.startswith(b"#") else line.partition(b"{")[0]
        for ending in (b"_bucket", b"_sum", b"_count"):
            if name.endswith(ending) and name.removesuffix(ending) in families:
                name = name.removesuffix(ending)
        families.setdefault(name, []).append(line)
    return [line for lines in families.values() for line in lines]


def _number(value: float) -> bytes:
    return repr(value).encode()


_SAME_FOR_ALL: Final = b"penstock_generation"
_OF_THE_LEAST: Final = (b"penstock_server_ready", b"penstock_configuration_taken_up")


class _Page(Collector):
    def __init__(self, cells: CellRegistry, gauges: tuple[Gauge, ...]) -> None:
        self._cells = cells
        self._gauges = gauges

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        cells = list(self._cells)
        calls = CounterMetricFamily("penstock_calls", "Calls by how they ended.", labels=(*_CALL_LABELS, "outcome"))
        for cell in cells:
            for outcome, count in cell.outcomes.items():
                if count:
                    calls.add_metric((cell.server, cell.method, cell.tool, outcome), count)
        yield calls
        yield _durations(
            "penstock_overhead_seconds", "Penstock's own share of each call.", cells, lambda cell: cell.overhead
        )
        yield _durations(
            "penstock_upstream_seconds", "The server's share of each call.", cells, lambda cell: cell.upstream
        )
        for gauge in self._gauges:
            family = GaugeMetricFamily(gauge.name, gauge.help, labels=(gauge.label,) if gauge.label else ())
            for value, number in gauge.read():
                family.add_metric((value,) if gauge.label else (), number)
            yield family


def _durations(name: str, help: str, cells: list[Cell], pick: Callable[[Cell], Histogram]) -> Metric:
    family = HistogramMetricFamily(name, help, labels=_CALL_LABELS)
    for cell in cells:
        histogram = pick(cell)
        if not histogram.count:
            continue
        counts = histogram.cumulative(BOUNDS_US)
        buckets = [(repr((bound + 1) / 1e6), float(count)) for bound, count in zip(BOUNDS_US, counts, strict=True)]
        buckets.append(("+Inf", float(histogram.count)))
        family.add_metric((cell.server, cell.method, cell.tool), buckets, histogram.sum_us / 1e6)
    return family
