"""Counters by server, method and tool; never more than so many."""

from penstock.telemetry.cells import MAX_SERVERS, OTHER, CellRegistry


def test_the_same_labels_are_the_same_cell() -> None:
    cells = CellRegistry()
    cell = cells.cell("weather", "tools/call", "now")
    assert cells.cell("weather", "tools/call", "now") is cell
    cell.record("ok", 0.001, 0.002)
    cell.record("server_error", 0.001, 0.0)
    assert {name: count for name, count in cell.outcomes.items() if count} == {"ok": 1, "server_error": 1}
    assert (cell.overhead.count, cell.upstream.count) == (2, 1)
    assert list(cells) == [cell]
    assert repr(cell) == "<Cell weather tools/call now 2 calls>"
    assert repr(cells) == "<CellRegistry 1 cells, 1 of 1000 tools>"


def test_beyond_a_thousand_tools_the_rest_is_other_and_known_ones_stay() -> None:
    cells = CellRegistry()
    known = [cells.cell("weather", "tools/call", f"tool{number}") for number in range(1_000)]
    assert {cell.tool for cell in known} == {f"tool{number}" for number in range(1_000)}
    beyond = [cells.cell("weather", "tools/call", f"more{number}") for number in range(50)]
    assert {id(cell) for cell in beyond} == {id(beyond[0])}
    assert beyond[0].tool == OTHER
    assert cells.cell("weather", "tools/call", "tool999") is known[999]
    assert cells.cell("other-server", "tools/call", "new").tool == OTHER
    assert cells.cell("weather", "prompts/get", "").tool == ""  # not counted by name, so never beyond
    assert len(list(cells)) == 1_003


def test_servers_are_bounded_too() -> None:
    cells = CellRegistry()
    for number in range(MAX_SERVERS + 20):
        cells.cell(f"server{number}", "prompts/get", "")
    assert len(list(cells)) == MAX_SERVERS + 1
    assert cells.cell("one-more", "prompts/get", "").server == OTHER


def test_many_calls_are_counted_together_and_none_is_kept() -> None:
    cell = CellRegistry().cell("weather", "tools/call", "now")
    for number in range(1_001):
        cell.record("ok" if number % 3 else "tool_error", number * 1e-6, (number % 2) * 1e-3)
    micros = sum(int(number * 1e-6 * 1e6) for number in range(1_001))
    assert len(cell._new) < 64
    assert (cell.outcomes["ok"], cell.outcomes["tool_error"]) == (667, 334)
    assert (cell.overhead.count, cell.overhead.sum_us, cell.upstream.count) == (1_001, micros, 500)
    assert cell._new == []
