"""A route's policies folded into one callable, once, when the snapshot is built.

Knows: the order of policies. Does not know: what any of them does. A policy that is off is not in the list and costs nothing.
"""

from collections.abc import Awaitable, Sequence

from penstock.policies.interface import Handle, Policy
from penstock.upstreams.interface import Answer, Call


def fold(policies: Sequence[Policy], forward: Handle) -> Handle:
    """The first policy sees the call first; `forward` sees it last."""
    handle = forward
    for policy in reversed(policies):
        handle = _wrap(policy, handle)
    return handle


def _wrap(policy: Policy, proceed: Handle) -> Handle:
    def handle(call: Call) -> Awaitable[Answer]:  # returns the policy's awaitable: no frame of its own is awaited
        return policy(call, proceed)

    return handle
