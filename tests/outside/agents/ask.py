"""An MCP client: starts server.py, calls its tool, and prints what came of it as JSON."""

import asyncio
import json
import os
import sys
from typing import Any

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.shared.exceptions import McpError


async def ask() -> dict[str, Any]:
    """Call the tool once."""
    server = StdioServerParameters(command=sys.executable, args=["server.py"], env=dict(os.environ))
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        try:
            answer = await session.call_tool("list_employees", {})
        except McpError as error:
            return {"code": error.error.code, "data": error.error.data}
        return {"is_error": answer.isError, "text": [part.text for part in answer.content]}


print(json.dumps(asyncio.run(ask())))
