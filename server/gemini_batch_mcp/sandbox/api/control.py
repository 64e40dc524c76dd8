"""The control of a sandbox on a port: `/sandbox/…` does over HTTP what a test does with the object.

    GET    /sandbox/state                  creates, unknown requests, waiting faults, files and jobs
    GET    /sandbox/requests?route=NAME    the recorded requests, of one route or all
    POST   /sandbox/faults                 one fault: the members of `faults.Fault`
    DELETE /sandbox/faults                 drop the faults that wait
    POST   /sandbox/jobs/{id}/advance      one step
    POST   /sandbox/jobs/{id}/finish       {"state", "error", "answered_rows"}, all optional
    POST   /sandbox/jobs/{id}/state        {"state"}
    POST   /sandbox/jobs/{id}/forget       the job vanishes
    POST   /sandbox/files/{id}/expire      the file vanishes

These routes need no key and are neither recorded nor hit by faults. Whoever reaches the port may use them.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gemini_batch_mcp.errors import BatchError
from gemini_batch_mcp.sandbox.api.faults import Fault, FaultQueue
from gemini_batch_mcp.sandbox.api.guard import RequestLog
from gemini_batch_mcp.sandbox.api.requests import path_id, read_json
from gemini_batch_mcp.sandbox.lifecycle.jobs import Jobs
from gemini_batch_mcp.sandbox.state import State
from gemini_batch_mcp.sandbox.wire import ApiError, json_response, not_found
from gemini_batch_mcp.threads import in_thread

_MAX_BODY_BYTES: Final = 1024**2


class _Finish(msgspec.Struct, forbid_unknown_fields=True):
    state: str = "SUCCEEDED"
    error: dict[str, Any] | None = None
    answered_rows: int | None = None


class _NewState(msgspec.Struct, forbid_unknown_fields=True):
    state: str


class Control:
    """The handlers of one sandbox."""

    def __init__(self, state: State, jobs: Jobs, log: RequestLog, faults: FaultQueue) -> None:
        self._state = state
        self._jobs = jobs
        self._log = log
        self._faults = faults

    def routes(self) -> list[Route]:
        """Return the routes, to be put in front of the service's own."""
        return [
            _route("GET", "/sandbox/state", self._show_state),
            _route("GET", "/sandbox/requests", self._show_requests),
            _route("POST", "/sandbox/faults", self._add_fault),
            _route("DELETE", "/sandbox/faults", self._clear_faults),
            _route("POST", "/sandbox/jobs/{id}/advance", self._advance),
            _route("POST", "/sandbox/jobs/{id}/finish", self._finish),
            _route("POST", "/sandbox/jobs/{id}/state", self._set_state),
            _route("POST", "/sandbox/jobs/{id}/forget", self._forget),
            _route("POST", "/sandbox/files/{id}/expire", self._expire),
        ]

    def _show_state(self, request: Request, body: dict[str, Any]) -> object:
        creates = self._state.creates()
        return {
            "creates": len(creates),
            "create_records": creates,
            "unknown_requests": self._log.unknown,
            "faults": self._faults.waiting,
        }

    def _show_requests(self, request: Request, body: dict[str, Any]) -> object:
        route = request.query_params.get("route")
        return {"requests": [one for one in self._log.requests if route in (None, one.route)]}

    def _add_fault(self, request: Request, body: dict[str, Any]) -> object:
        self._faults.add(msgspec.convert(body, Fault))
        return {}

    def _clear_faults(self, request: Request, body: dict[str, Any]) -> object:
        self._faults.clear()
        return {}

    def _advance(self, request: Request, body: dict[str, Any]) -> object:
        return self._jobs.advance(_job_name(request))

    def _finish(self, request: Request, body: dict[str, Any]) -> object:
        wanted = msgspec.convert(body, _Finish)
        return self._jobs.finish(_job_name(request), wanted.state, wanted.error, wanted.answered_rows)

    def _set_state(self, request: Request, body: dict[str, Any]) -> object:
        return self._jobs.set_state(_job_name(request), msgspec.convert(body, _NewState).state)

    def _forget(self, request: Request, body: dict[str, Any]) -> object:
        self._jobs.delete(_job_name(request))
        return {}

    def _expire(self, request: Request, body: dict[str, Any]) -> object:
        name = f"files/{path_id(request)}"
        if self._state.file(name) is None:
            raise not_found()
        self._state.remove_file(name)
        return {}


def _job_name(request: Request) -> str:
    return f"batches/{path_id(request)}"


def _route(method: str, path: str, action: Callable[[Request, dict[str, Any]], object]) -> Route:
    """Return a route whose action runs in a thread; what it returns becomes the JSON reply."""

    async def endpoint(request: Request) -> Response:
        try:
            body = await read_json(request, _MAX_BODY_BYTES)
            return json_response(await in_thread(action, request, body))
        except ApiError as error:
            return error.to_response()
        except (BatchError, msgspec.ValidationError) as error:
            return ApiError(400, str(error)).to_response()

    return Route(path, endpoint, methods=[method])
