"""Whom we call: streamable HTTP, stdio, in memory; pools and eras."""
