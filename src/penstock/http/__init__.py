"""The HTTP/1.1 lane: server and client protocols, limits, event streams."""
