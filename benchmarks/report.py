"""What was measured, as a table for people and as JSON for programs.

Knows: how figures are shown, the JSON schema. Does not know: how they came about.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks import budgets
from benchmarks.at_rest import Times
from benchmarks.budgets import Verdict
from benchmarks.cpu import Prepared, Sample
from benchmarks.figures import Figure, ratios, rounded
from benchmarks.latency import Latency
from benchmarks.messages import SIZES
from benchmarks.processes import Memory
from benchmarks.rows import Row

SCHEMA: Final = "penstock-bench/1"
"""Raised when a field changes its meaning or goes; new fields do not raise it."""
NOISY: Final = 0.05
"""From this share of the machine used by others on, a line says so."""


@dataclass(slots=True)
class Report:
    """Everything one run found; what was not asked for is None or empty."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    prepared: list[Prepared] = field(default_factory=list)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    latency: Latency | None = None
    memory: Memory | None = None
    memory_after_load: Memory | None = None
    times: Times | None = None
    notes: list[str] = field(default_factory=list)
    """What a reader has to know: rows that were left out, and why."""
    taken: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def ratio(self, row: Row) -> Figure | None:
        """CPU per call as a multiple of the row it is compared with; None when that was not measured."""
        reference = self.samples.get(row.reference)
        if reference is None or row.name not in self.samples:
            return None
        return ratios([one.cpu_us for one in self.samples[row.name]], [one.cpu_us for one in reference])

    def verdicts(self) -> list[Verdict]:
        """Every budget that was looked at."""
        by_row = {one.row: found for one in self.prepared if (found := self.ratio(one.row))}
        verdicts = budgets.of_rows(by_row)
        if self.latency:
            verdicts += budgets.of_latency(self.latency)
        if self.memory:
            verdicts += budgets.of_memory(self.memory)
        if self.times:
            verdicts += budgets.of_times(self.times)
        return verdicts

    def foreign_share(self) -> float:
        """The median share of the machine that other programs used while rows were measured."""
        shares = [one.foreign_share for samples in self.samples.values() for one in samples]
        return Figure.of(shares).median if shares else 0.0

    def as_json(self) -> dict[str, Any]:
        """Schema `penstock-bench/1`."""
        verdicts = self.verdicts()
        return {
            "schema": SCHEMA,
            "taken": self.taken,
            "machine": self.machine,
            "settings": self.settings,
            "foreign_share": rounded(self.foreign_share()),
            "rows": [self._row(one) for one in self.prepared],
            "latency": self.latency.as_json() if self.latency else None,
            "memory_bytes": {
                "at_rest": self.memory._asdict() if self.memory else None,
                "after_load": self.memory_after_load._asdict() if self.memory_after_load else None,
            },
            "start": self.times.as_json() if self.times else None,
            "budgets": [one.as_json() for one in verdicts],
            "kept": all(one.is_kept for one in verdicts),
            "notes": self.notes,
        }

    def _row(self, one: Prepared) -> dict[str, Any]:
        row, samples = one.row, self.samples[one.row.name]
        ratio = self.ratio(row)
        return {
            "name": row.name,
            "title": row.title,
            "through": row.through,
            "client": row.client,
            "server": row.server,
            "session": row.has_session,
            "text_bytes": SIZES[row.tool],
            "cpu_us": Figure.of([sample.cpu_us for sample in samples]).as_json(),
            "reference": row.reference,
            "ratio": ratio.as_json() if ratio else None,
            "calls_per_second": Figure.of([sample.calls_per_second for sample in samples]).as_json(),
            "verified_by_parsing": one.verified,
            "every_byte_compared": one.is_exact,
            "rounds": [{name: rounded(value) for name, value in sample._asdict().items()} for sample in samples],
        }

    def as_text(self) -> str:
        """For a terminal."""
        blocks = [self._heading()]
        if self.prepared:
            blocks.append(self._rows())
        if self.latency:
            blocks.append(self._latency())
        if self.times or self.memory:
            blocks.append(self._at_rest())
        verdicts = self.verdicts()
        if verdicts:
            blocks.append(_verdict_table(verdicts))
        if self.foreign_share() >= NOISY:
            share = f"{self.foreign_share():.0%}"
            blocks.append(
                f"Other programs used {share} of this machine meanwhile: repeat on a quiet one before believing any of this."
            )
        blocks += self.notes
        return "\n\n".join(blocks)

    def _heading(self) -> str:
        facts = self.machine
        return (
            f"{facts['processor']}, {facts['cores']} cores, {facts['system']}; Python {facts['python']}, nginx {facts['nginx']}, "
            f"Penstock {'compiled' if facts['compiled'] else 'interpreted'}, at {facts['commit']}"
        )

    def _rows(self) -> str:
        lines = [("CPU time per call", "µs", "× nginx", "least–most", "calls/s")]
        for one in self.prepared:
            samples = self.samples[one.row.name]
            ratio = self.ratio(one.row)
            lines.append(
                (
                    one.row.title,
                    f"{Figure.of([sample.cpu_us for sample in samples]).median:.1f}",
                    f"{ratio.median:.2f}" if ratio else "",
                    f"{ratio.least:.2f}–{ratio.most:.2f}" if ratio else "",
                    f"{Figure.of([sample.calls_per_second for sample in samples]).median:,.0f}",
                )
            )
        return table(lines)

    def _latency(self) -> str:
        assert self.latency is not None
        added = self.latency.added()
        rounds = f"{len(self.latency.rounds)} valid rounds, {len(self.latency.void)} void"
        if added is None:
            return f"Added latency at 1,000 calls/s: not known, the sender slipped too often ({rounds})"
        lines = [(f"Added latency at 1,000 calls/s ({rounds})", "ms", "least–most")]
        lines += [
            (name, f"{one.median:.3f}", f"{one.least:.3f}–{one.most:.3f}")
            for name, one in zip(("p50", "p99"), added, strict=True)
        ]
        return table(lines)

    def _at_rest(self) -> str:
        lines = [("Starting, memory", "", "× python -c pass")]
        if self.times:
            lines += [
                (name, f"{seconds.median:.3f} s", f"{times.median:.1f}")
                for name, (seconds, times) in self.times.figures().items()
            ]
        for name, memory in (("at rest", self.memory), ("after load", self.memory_after_load)):
            if memory:
                lines.append((f"memory {name}", f"{memory.rss / 1e6:.1f} MB", f"(PSS {memory.pss / 1e6:.1f} MB)"))
        return table(lines)


def table(lines: Sequence[Sequence[str]]) -> str:
    """Columns: the first to the left, the others to the right; a rule under the heading."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    shown = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([shown[0].rstrip(), "─" * len(shown[0]), *(line.rstrip() for line in shown[1:])])


def write(report: Report, file: Path) -> None:
    """Write the JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report.as_json(), indent=1, ensure_ascii=False) + "\n", "utf-8")


def _verdict_table(verdicts: Sequence[Verdict]) -> str:
    words = {"aim": "ok, aim met", "ok": "ok", "over": "OVER", "void": "VOID"}
    lines: list[tuple[str, ...]] = [("Budget", "measured", "ships", "aim", "")]
    for one in verdicts:
        value = "?" if one.value is None else f"{rounded(one.value):.3g} {one.budget.unit}"
        lines.append((one.budget.name, value, f"≤ {one.budget.ships:g}", f"≤ {one.budget.aim:g}", words[one.outcome]))
    return table(lines)
