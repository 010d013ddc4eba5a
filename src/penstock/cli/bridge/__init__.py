"""From lines on stdin to requests to a gateway, and back to lines on stdout."""
