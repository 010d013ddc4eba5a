"""Penstock: one fast, safe, observable endpoint in front of every MCP server you use."""

__version__ = "0.1.0"
