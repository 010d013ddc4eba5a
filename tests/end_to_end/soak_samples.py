"""What a gateway holds over time: samples of its processes and gauges, and whether they grow.

Knows: /proc, the metrics page. Does not know: the load.
"""

import time
import urllib.request
from collections.abc import Sequence
from statistics import median
from typing import Final, NamedTuple

from tests.end_to_end.faults_kit import Gateway, children, command_line, descriptors, facts, is_zombie

GAUGES: Final = (
    "penstock_connections",
    "penstock_sessions",
    "penstock_parked_calls",
    "penstock_listeners",
    "penstock_subscriptions",
    "penstock_replay_streams",
    "penstock_replay_bytes",
    "penstock_tasks",
    "penstock_calls_in_flight",
    "penstock_upstream_connections",
    "penstock_upstream_sessions",
)
SLACK: Final = {"penstock_tasks": 2.0}
"""What may be more afterwards: of the two that watch what is parked, each sleeps until the time of what was parked last would
have been over, though it has left: five minutes for answers kept for legacy clients.
"""


class Sample(NamedTuple):
    """One look."""

    at: float
    """Monotonic seconds."""
    memory_mib: tuple[float, ...]
    """Of each process that serves; the supervisor's too where there are workers."""
    descriptors: int
    children: int
    zombies: int
    gauges: dict[str, float]

    def held(self) -> dict[str, float]:
        """All that must be the same when nothing goes on."""
        return {"descriptors": self.descriptors, "children": self.children, "zombies": self.zombies, **self.gauges}

    def line(self) -> str:
        """For people."""
        memory = "+".join(f"{one:.1f}" for one in self.memory_mib)
        rest = " ".join(f"{name.removeprefix('penstock_')} {value:g}" for name, value in self.gauges.items())
        return f"memory {memory} MiB descriptors {self.descriptors} children {self.children} | {rest}"


def serving(gateway: Gateway) -> list[int]:
    """The gateway's process, and its workers'."""
    command = command_line(gateway.pid)
    return [gateway.pid, *(child for child in children(gateway.pid) if command_line(child) == command)]


def gauges(gateway: Gateway) -> dict[str, float]:
    """From the metrics page; those with labels are added up."""
    with urllib.request.urlopen(f"{gateway.admin}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    found = dict.fromkeys(GAUGES, 0.0)
    for line in page.splitlines():
        name, _, value = line.rpartition(" ")
        name = name.partition("{")[0]
        if name in found:
            found[name] += float(value)
    return found


def sample(gateway: Gateway) -> Sample:
    """Look once."""
    pids = serving(gateway)
    family = [child for pid in pids for child in children(pid) if child not in pids]
    return Sample(
        time.monotonic(),
        tuple(round(facts(pid).memory_mib, 2) for pid in pids),
        sum(map(descriptors, pids)),
        len(family),
        sum(map(is_zombie, family)),
        gauges(gateway),
    )


def growth_per_10_minutes(samples: Sequence[Sample]) -> float:
    """MiB by which all processes together grow in ten minutes: the median of the slopes between all pairs of samples.

    Theil–Sen: up to 29 % of the samples may be off by anything, so a moment's large bodies do not count.
    """
    points = [(one.at, sum(one.memory_mib)) for one in samples]
    slopes = [
        (later - earlier) / (until - since)
        for number, (since, earlier) in enumerate(points)
        for until, later in points[number + 1 :]
        if until > since
    ]
    return 600.0 * median(slopes) if slopes else 0.0
