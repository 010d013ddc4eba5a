"""How long to wait before a server that ended is started again.

Knows: how long it ran, how often it failed. Does not know: processes, clocks, MCP.
Invariant: the first restart comes at once; each further one in a row waits twice as long, up to the longest delay.
"""

from collections.abc import Callable


class Backoff:
    """Exponential delays with jitter, so that servers which fell together do not rise together."""

    __slots__ = ("_first", "_healthy", "_longest", "_random", "failures")

    def __init__(
        self, *, first_seconds: float, longest_seconds: float, healthy_seconds: float, random: Callable[[], float]
    ) -> None:
        self._first = first_seconds
        self._longest = longest_seconds
        self._healthy = healthy_seconds
        self._random = random
        """Numbers from 0 to 1."""
        self.failures = 0
        """Ends in a row, none of them after a healthy run."""

    def __repr__(self) -> str:
        return f"<Backoff failures {self.failures}>"

    def delay_after(self, ran_seconds: float) -> float:
        """Count an end after a run of that length; seconds until the next start."""
        if ran_seconds >= self._healthy:
            self.failures = 0
        self.failures += 1
        if self.failures == 1:
            return 0.0
        doublings = min(self.failures - 2, 30)
        delay: float = min(self._longest, self._first * 2**doublings)
        return delay * (0.5 + 0.5 * self._random())
