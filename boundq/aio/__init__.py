"""The shell for asyncio: `AsyncQueue`."""
