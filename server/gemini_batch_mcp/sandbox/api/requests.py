"""Reading what clients send: JSON bodies up to a limit, page parameters, ids in paths."""

from typing import Any

import msgspec
from starlette.requests import Request

from gemini_batch_mcp.sandbox.wire import ApiError, bad_request, read_page_token


def path_id(request: Request) -> str:
    """Return the last name in the path."""
    return str(request.path_params["id"])


async def read_json(request: Request, max_bytes: int) -> dict[str, Any]:
    """Return the body as an object; an empty body is an empty object.

    Raises:
        ApiError: 400, the body is as large as `max_bytes` or no JSON object.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) >= max_bytes:
            raise ApiError(400, f"[sandbox] Request payload size exceeds the limit: {max_bytes} bytes.")
    if not body:
        return {}
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, f"[sandbox] Invalid JSON payload received. {error}") from None


def page_of(request: Request, default_size: int, max_size: int) -> tuple[int, tuple[int, str] | None]:
    """Return the page's size and where it starts; a size over the maximum becomes the maximum.

    Raises:
        ApiError: 400, a page size that is no number or negative, or a token that did not come from here.
    """
    query = request.query_params
    text = query.get("pageSize") or query.get("page_size") or "0"
    if not text.isdecimal():
        raise bad_request("page_size", f"[sandbox] Invalid page size: {text[:40]!r}.")
    token = query.get("pageToken") or query.get("page_token") or ""
    return min(int(text) or default_size, max_size), read_page_token(token)
