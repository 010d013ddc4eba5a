"""Who has to go where there is no room: the oldest that is of no use now, found without looking at all.

Knows: maps in order of age. Does not know: what is in them.

Source: the second-chance algorithm of page replacement (F. J. Corbató, A Paging Experiment with the Multics System, 1968).
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeVar

K = TypeVar("K")
V = TypeVar("V")
LOOKED_AT: Final = 64
"""Of those in use, before one of them has to go."""


def oldest_idle(kept: OrderedDict[K, V], is_idle: Callable[[V], bool]) -> K | None:
    """The key of the oldest that is idle; None when the oldest few are all in use, which then count as the youngest."""
    for _ in range(min(len(kept), LOOKED_AT)):
        key, one = next(iter(kept.items()))
        if is_idle(one):
            return key
        kept.move_to_end(key)  # so that the next look begins with others
    return None
