"""A request under way in a conversation, and what came in one that was of no use to any.

Knows: nothing but its fields. Does not know: how it is sent, answered or ended (conversation.py).
"""

import asyncio
from typing import Final

import msgspec

from penstock.protocol.messages import Reply
from penstock.upstreams.asking import AskingTurn
from penstock.upstreams.calls import Call, Raw


class Flight:
    """A request that was written and is not answered yet."""

    __slots__ = ("call", "future", "id", "token", "turn")

    def __init__(self, request_id: bytes, future: asyncio.Future[Reply], call: Call | None, token: Raw | None) -> None:
        self.id: Final = request_id
        self.future: Final = future
        self.call: Final = call
        self.token: Final = token
        """The caller's own progress token."""
        self.turn: AskingTurn | None = None
        """A client's call has one."""


class ConversationCounts(msgspec.Struct):
    """What came and was of no use to a call; totals of one server, over all its conversations."""

    junk_lines: int = 0
    late_replies: int = 0
    stray_progress: int = 0
    stray_logs: int = 0
    other_notifications: int = 0
    refused_requests: int = 0
