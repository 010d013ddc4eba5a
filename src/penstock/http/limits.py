"""Every bound of the HTTP lane, by name.

Knows: numbers. Does not know: where they are configured, or who enforces which.
"""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What one listening server spends on clients it does not know. Times are enforced by a sweep once a second."""

    header_bytes: int = 16 * KIB
    """Request line and header fields together; beyond: 431."""
    header_fields: int = 100
    target_bytes: int = 8 * KIB
    """The request target alone; beyond: 414. RFC 9110 §4.1 asks for at least 8000."""
    body_bytes: int = 4 * MIB
    """After chunked framing is taken off; beyond: 413, before the body is read where its length is announced."""
    chunk_overhead_bytes: int = 16 * KIB
    """Trailers of a chunked body, and chunk lines beyond 32 bytes per chunk, together."""
    header_seconds: float = 10.0
    """From the first byte of a request (or the connection's start) to the end of its header; beyond: 408."""
    body_bytes_per_second: int = 1024
    """Least average rate of a body, after `header_seconds` of grace; below: 408."""
    idle_seconds: float = 75.0
    connections: int = 20_000
    """Beyond: 503 and close."""
    pipelined_bytes: int = 64 * KIB
    """Bytes taken ahead of the request being answered; beyond, reading pauses."""
    stream_queue_events: int = 1024
    """Events kept for a stream whose reader is slow."""
    stream_queue_bytes: int = 4 * MIB
    stalled_reader_seconds: float = 30.0
    """A client that is behind with reading must take `reader_bytes_per_second` on average over this time; else it is cut."""
    reader_bytes_per_second: int = 1024
    keepalive_comment_seconds: float = 15.0
    linger_seconds: float = 2.0
    """How long a refused client may go on sending before it is cut (RFC 9112 §9.6)."""
    drain_seconds: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """What one upstream connection may cost us."""

    response_bytes: int = 64 * MIB
    """Of a body, after decoding; an event stream has no total."""
    event_bytes: int = 16 * MIB
    """Of one event of a stream."""
    header_bytes: int = 64 * KIB
    """Of an answer's head; also the most that may come in a row without being body (trailers, chunk extensions)."""
    header_fields: int = 256
    interim_answers: int = 16
    """1xx answers before the real one."""
    inflate_ratio: int = 200
    """Decoded bytes for each encoded byte, beyond the first MiB."""
    connect_seconds: float = 5.0
    """Name look-up, TCP and TLS together."""
    finish_grace_seconds: float = 1.0
    """For a stream to end after its final event, before the connection is given up."""
    detached_seconds: float = 30.0
    """For an answer nobody waits for any more (`detach_on_cancel`)."""
