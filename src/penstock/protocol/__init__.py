"""What is on the wire: bytes in, values out; no I/O."""
