"""Whose files and jobs are: where each key is a project of its own, another key's are not shown."""

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from gemini_batch_mcp.sandbox.wire import ApiError, json_response, not_found

_LISTS: Final = {"batches.list": "operations", "files.list": "files"}


class Projects:
    """The keys with which files and jobs were made, for the life of this service."""

    def __init__(self) -> None:
        self._keys: dict[str, str] = {}
        self._uploads: dict[str, str] = {}

    def refuse_others(self, request: Request, route: str) -> None:
        """Refuse a request about something that another key has made.

        Raises:
            ApiError: 403 for a file, 404 for a job, as Gemini answers.
        """
        kind = route.partition(".")[0]
        if kind not in ("files", "batches") or "id" not in request.path_params or route == "batches.create":
            return
        name = f"{kind}/{request.path_params['id']}"
        if not self._is_shown(name, _key(request)):
            raise not_found() if kind == "batches" else _forbidden(name)

    def noted(self, request: Request, route: str, response: Response) -> Response:
        """Remember what a request has made, and return its response without what other keys have made."""
        if response.status_code != 200:
            return response
        upload = _upload_id(str(request.url)) or _upload_id(response.headers.get("x-goog-upload-url", ""))
        if route == "files.start":
            self._uploads[upload] = _key(request)
        if route in ("batches.create", "files.finalize"):
            reply: Mapping[str, Any] = json.loads(bytes(response.body))
            name = reply.get("name") or reply["file"]["name"]
            self._keys[name] = _key(request) or self._uploads.get(upload, "")
        if member := _LISTS.get(route):
            reply = json.loads(bytes(response.body))
            shown = [item for item in reply.get(member, []) if self._is_shown(item["name"], _key(request))]
            return json_response({**reply, member: shown})
        return response

    def _is_shown(self, name: str, key: str) -> bool:
        job = name.replace("files/batch-", "batches/")
        return self._keys.get(job, key) == key


def _key(request: Request) -> str:
    return request.headers.get("x-goog-api-key") or request.query_params.get("key", "")


def _upload_id(url: str) -> str:
    return next(iter(parse_qs(urlsplit(url).query).get("upload_id", [])), "")


def _forbidden(name: str) -> ApiError:
    return ApiError(403, f"[sandbox] You do not have permission to access the File {name} or it may not exist.")
