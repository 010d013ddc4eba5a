"""The behaviour table as people read it: counts by topic, what is not mutated and why, and every row.

Knows: rows, checks, results. Does not know: how anything is run.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from tests.conformance.behaviour_table import Row
from tests.conformance.checking import Check, RunResult

INTRODUCTION: Final = """# Behaviours

What a gateway between the eras of MCP can break, sentence by sentence of the specification (MUST, SHOULD) and trap by
trap, with what holds Penstock to it. A *check* drives a client through a real `penstock serve` to real servers of both
eras and, where client and server are of one era, without the gateway as well. Each *mutation* is a change that a proxy
on the way makes to what the gateway says: the check must fail with it, which shows that it can. Rows stand in
`tests/conformance/behaviours/`.

```sh
scripts/prepare peers                                   # once: the servers, into .cache/peers
.venv/bin/python -m tests.conformance.behaviours        # runs every check, direct, through and mutated; prints the counts
.venv/bin/python -m tests.conformance.behaviours --only progress
.venv/bin/python -m tests.conformance.behaviours --markdown > docs/behaviours.md
scripts/test tests/conformance/test_behaviours.py       # the same as a test; part of scripts/test
```"""


def summary(table: Sequence[Row], checks: Mapping[str, Check], results: Sequence[RunResult]) -> str:
    """Counts by topic, then the MUST rows without a mutation and what waits, each with its reason."""
    lines = [
        "| topic | rows | MUST | SHOULD | trap | with a check | tests named | mutations | MUST not mutable | wait |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    topics = list(dict.fromkeys(row.topic for row in table))
    lines += [_counts(topic, [row for row in table if row.topic == topic], checks) for topic in topics]
    lines.append(_counts("all", table, checks))
    if results:
        ways = {
            way: [result for result in results if result.run.way == way] for way in ("direct", "through", "mutated")
        }
        lines += ["", "| runs | as they should be | not |", "|---|---|---|"]
        for way, of_way in ways.items():
            bad = sum(result.problem is not None for result in of_way)
            lines.append(f"| {way} | {len(of_way) - bad} | {bad} |")
    again = [f"- {result.run}: {why}" for result in results for why in result.vain]
    lines += ["", "Tried again, as the mutation met nothing:", "", *again] if again else []
    lines += _reasons("MUST rows that no mutation can break, and why:", table, lambda row: row.not_mutable)
    lines += _reasons("Rows that wait, and why:", table, lambda row: row.waits)
    return "\n".join(lines)


def _counts(topic: str, table: Sequence[Row], checks: Mapping[str, Check]) -> str:
    levels = [sum(row.level == level for row in table) for level in ("MUST", "SHOULD", "TRAP")]
    checked = sum(row.id in checks for row in table)
    tests = len({test for row in table for test in row.tests})
    mutations = sum(len(row.mutations) for row in table)
    unmutable = sum(bool(row.not_mutable) for row in table if row.level == "MUST")
    waiting = sum(bool(row.waits) for row in table)
    return (
        "| " + " | ".join(map(str, (topic, len(table), *levels, checked, tests, mutations, unmutable, waiting))) + " |"
    )


def _reasons(title: str, table: Iterable[Row], reason: Callable[[Row], str]) -> list[str]:
    found = [f"- {row.id}: {reason(row)}" for row in table if reason(row)]
    return ["", title, "", *found] if found else []


def markdown(table: Sequence[Row], checks: Mapping[str, Check]) -> str:
    """The page of the docs: what this is, the counts, and every row by topic."""
    lines = [INTRODUCTION, "", summary(table, checks, []), ""]
    for topic in dict.fromkeys(row.topic for row in table):
        lines += [f"## {topic.replace('_', ' ').capitalize()}", "", "| row | level | says | concerns | held by |"]
        lines.append("|---|---|---|---|---|")
        lines += [_row(row, checks) for row in table if row.topic == topic]
        lines.append("")
    return "\n".join(lines).rstrip()


def _row(row: Row, checks: Mapping[str, Check]) -> str:
    held = (
        [f"a check, {len(row.mutations)} mutation{'' if len(row.mutations) == 1 else 's'}"] if row.id in checks else []
    )
    held += [f"{len(row.tests)} test{'' if len(row.tests) == 1 else 's'}"] if row.tests else []
    held += [f"waits: {row.waits}"] if row.waits else []
    cells = ", ".join(dict.fromkeys(f"{cell.client} → {cell.server}" for cell in row.cells))
    says = row.says.replace("|", "\\|")
    return f"| [{row.id}]({row.url}) | {row.level} | {says} | {cells} | {'; '.join(held)} |"
