"""A route's policies folded into one callable, once, when the snapshot is built.

Knows: the order of policies. Does not know: what any of them does. A policy that is off is not in the list and costs nothing.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from penstock.policies.interface import Handle, Policy, Start
from penstock.upstreams.calls import Call

T = TypeVar("T")


def fold(policies: Sequence[Policy], forward: Handle) -> Handle:
    """The first policy sees the call first; `forward` sees it last."""
    return _fold(policies, forward)


def fold_start(policies: Sequence[Policy], start: Start) -> Start | None:
    """The same for a call that is sent at once; None when a policy wants to see its answer."""
    return _fold(policies, start) if all(policy.is_transparent for policy in policies) else None


def _fold(policies: Sequence[Policy], last: Callable[[Call], T]) -> Callable[[Call], T]:
    for policy in reversed(policies):
        last = partial(policy.__call__, last)  # no frame of its own
    return last
