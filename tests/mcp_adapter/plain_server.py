"""An MCP server over stdio in plain Python, as they are found: it greets, and hangs up on what it doesn't know.

Its tools answer with what no library's server would: see ``ANSWERS``.
"""

import json
import os
import sys
from typing import Any

SCHEMA: dict[str, Any] = {"type": "object", "properties": {}}
ANSWERS: dict[str, dict[str, Any]] = {
    "refuse": {"error": {"code": -32602, "message": "no such thing as a blue horse"}},
    "break": {"error": {"code": -32603, "message": f"out of order, {os.environ.get('PASSWORD')}\nline 2"}},
    "garble": {"result": {"content": [{"type": "smell", "data": "?"}]}},
    "stray": {"result": {"content": [], "structuredContent": {"answer": "many"}}},
}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """The rest of a response."""
    if method == "initialize":
        about = {"name": "plain", "version": "1"}
        return {"result": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": about}}
    if method == "tools/list":
        tools: list[dict[str, Any]] = [{"name": name, "inputSchema": SCHEMA} for name in ANSWERS]
        tools[-1]["outputSchema"] = {"type": "object", "properties": {"answer": {"type": "integer"}}}
        return {"result": {"tools": tools}}
    if method == "tools/call":
        return ANSWERS[params["name"]]
    if method == "ping":
        return {"result": {}}
    sys.exit(f"{method}?")


def main() -> None:
    """Answer until the end of standard input."""
    print("Welcome!", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "id" in request:
            response = answer(request["method"], request.get("params", {}))
            print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **response}), flush=True)


if __name__ == "__main__":
    main()
