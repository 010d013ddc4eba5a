"""Pure state machines: clock in, verdict out; know nothing of MCP or asyncio."""
