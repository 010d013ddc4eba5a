"""Where a client's era meets the inside: one adapter for each."""
