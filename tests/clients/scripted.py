"""A model that is a script, on a port, in the words of three makers: for hosts that bring a model to the tools.

It makes the calls of `ground.conversation` one by one and judges the next by what the host tells it of the last. It
speaks Gemini's `generateContent`, Anthropic's `messages` and OpenAI's `responses`, streamed or not, and nothing else.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from clients.ground import Call, Ground, conversation

#: What the model says when the conversation is over, and what hosts print.
LAST_WORDS: Final = "All three rows are answered and saved."
_ASIDE: Final = "Nothing to add."

#: What a host offers and says: its tools by their whole names, with their schemas, and the result of the last call.
Offer = dict[str, dict[str, Any]]
Adjust = Callable[[Call, dict[str, Any]], dict[str, Any]]


class ScriptedModel:
    """The script, and what it was offered. `adjust` changes the arguments of a call, given the tool's schema."""

    def __init__(self, ground: Ground, adjust: Adjust = lambda call, _schema: call.arguments) -> None:
        self._ground = ground
        self._script = conversation(ground)
        self._adjust = adjust
        self._lock = threading.Lock()
        self._begun = False
        self._last: tuple[str, str, dict[str, Any]] | None = None
        self._numbers = iter(range(1, 1000))
        self.offered: Offer = {}
        self.problem = ""
        self.done = False

    def says(self, offered: Offer, heard: str | None) -> tuple[str, str, dict[str, Any]] | None:
        """Return the next call as id, name and arguments; None when there is nothing more to call.

        `heard` is None where the host asks without having called anything: the beginning, or the same again.
        """
        with self._lock:
            if not any(_is(name, tool) for name in offered for tool in self._ground.tools):
                return None  # A host's own question, for a title say.
            self.offered |= offered
            if heard is None and self._begun:
                return self._last
            try:
                call = self._script.send(heard) if self._begun and heard is not None else next(self._script)
            except StopIteration:
                self.done, self._last = True, None
                return None
            except AssertionError as problem:
                self.problem, self._last = f"The model did not hear what it needs: {problem}", None
                return None
            self._begun = True
            names = [name for name in offered if _is(name, call.tool)]
            if not names:
                self.problem, self._last = f"{call.tool} is not offered: {sorted(offered)}", None
                return None
            arguments = self._adjust(call, offered[names[0]])
            self._last = (f"call_{next(self._numbers)}", names[0], arguments)
            return self._last

    def assert_ended(self) -> None:
        """The whole script was played, and every tool of the server was offered."""
        assert not self.problem, self.problem
        assert self.done, f"The conversation stopped after {self._last}"
        missing = [tool for tool in self._ground.tools if not any(_is(name, tool) for name in self.offered)]
        assert not missing, missing


def _is(name: str, tool: str) -> bool:
    """Whether a name is how a host calls a tool: as it is, or behind the server's name."""
    return name == tool or name.endswith(("_" + tool, "." + tool, "-" + tool))


@contextmanager
def serving(model: ScriptedModel) -> Iterator[str]:
    """Listen on a free port while the block runs; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(b"", "text/plain")

        def do_GET(self) -> None:
            self._answer(b'{"data":[],"models":[],"object":"list"}', "application/json")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            path, _, query = self.path.partition("?")
            try:
                kind, answer = _answered(model, path, query, body)
            except Exception as problem:
                model.problem = model.problem or repr(problem)
                raise
            self._answer(answer, kind)

        def _answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _answered(model: ScriptedModel, path: str, query: str, body: dict[str, Any]) -> tuple[str, bytes]:
    """Return the type and the bytes of an answer."""
    if "count_tokens" in path or "countTokens" in path:
        return "application/json", b'{"input_tokens":10,"totalTokens":10}'
    if path.endswith("/messages"):
        return _anthropic(model, body)
    if path.endswith("/responses"):
        return _openai(model, body)
    if "enerateContent" in path:
        return _gemini(model, body, is_stream="alt=sse" in query)
    return "application/json", b"{}"


def _gemini(model: ScriptedModel, body: dict[str, Any], *, is_stream: bool) -> tuple[str, bytes]:
    declared = [entry for tool in body.get("tools") or [] for entry in tool.get("functionDeclarations") or []]
    offered = {
        entry["name"]: entry.get("parametersJsonSchema")
        or entry.get("parameters_json_schema")
        or entry.get("parameters")
        for entry in declared
    }
    parts = (body.get("contents") or [{}])[-1].get("parts") or []
    responses = [part["functionResponse"]["response"] for part in parts if "functionResponse" in part]
    heard = _as_text(responses[-1]) if responses else None
    said = model.says({name: schema or {} for name, schema in offered.items()}, heard)
    part: dict[str, Any] = {"text": LAST_WORDS if model.done else _ASIDE}
    if said is not None:
        part = {"functionCall": {"id": said[0], "name": said[1], "args": said[2]}, "thoughtSignature": "c2NyaXB0"}
    answer = {
        "candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15},
        "modelVersion": "scripted",
        "responseId": "scripted",
    }
    text = json.dumps(answer)
    return ("text/event-stream", f"data: {text}\n\n".encode()) if is_stream else ("application/json", text.encode())


def _anthropic(model: ScriptedModel, body: dict[str, Any]) -> tuple[str, bytes]:
    offered = {tool["name"]: tool.get("input_schema") or {} for tool in body.get("tools") or []}
    results: list[object] = []
    # The host's own reminders may stand behind the result.
    for said_by in body["messages"]:
        blocks = said_by["content"] if isinstance(said_by["content"], list) else []
        heard = [block.get("content") for block in blocks if block.get("type") == "tool_result"]
        results = [] if said_by["role"] == "assistant" else results + heard
    said = model.says(offered, _as_text(results[-1]) if results else None)
    message: dict[str, Any] = {
        "id": "msg_scripted",
        "type": "message",
        "role": "assistant",
        "model": body.get("model", "scripted"),
        "content": [{"type": "text", "text": LAST_WORDS if model.done else _ASIDE}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }
    if said is not None:
        block = {"type": "tool_use", "id": f"toolu_{said[0]}", "name": said[1], "input": said[2]}
        message |= {"content": [block], "stop_reason": "tool_use"}
    if not body.get("stream"):
        return "application/json", json.dumps(message).encode()
    (block,) = message["content"]
    is_text = block["type"] == "text"
    empty = {**block, "text": ""} if is_text else {**block, "input": {}}
    delta = (
        {"type": "text_delta", "text": block["text"]}
        if is_text
        else {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    )
    stop = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    return "text/event-stream", _events(
        {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": empty},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": stop, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    )


def _openai(model: ScriptedModel, body: dict[str, Any]) -> tuple[str, bytes]:
    offered: Offer = {}
    spaces: dict[str, str] = {}
    for tool in body.get("tools") or []:
        # Codex puts the tools of a server into a namespace.
        for entry in tool.get("tools") or [tool] if tool.get("type") in ("function", "namespace") else []:
            offered[entry["name"]] = entry.get("parameters") or {}
            if tool["type"] == "namespace":
                spaces[entry["name"]] = tool["name"]
    given = body.get("input")
    last = given[-1] if isinstance(given, list) and given else {}
    heard = _as_text(last.get("output")) if last.get("type") == "function_call_output" else None
    said = model.says(offered, heard)
    item: dict[str, Any] = {
        "type": "message",
        "id": "msg_scripted",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": LAST_WORDS if model.done else _ASIDE, "annotations": []}],
    }
    if said is not None:
        item = {
            "type": "function_call",
            "id": f"fc_{said[0]}",
            "call_id": said[0],
            "name": said[1],
            "arguments": json.dumps(said[2]),
            "status": "completed",
        }
        if said[1] in spaces:
            item["namespace"] = spaces[said[1]]
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    response: dict[str, Any] = {
        "id": "resp_scripted",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": body.get("model", "scripted"),
        "output": [item],
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
        "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15, **details},
    }
    if not body.get("stream"):
        return "application/json", json.dumps(response).encode()
    begun = {**response, "status": "in_progress", "output": []}
    return "text/event-stream", _events(
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response},
    )


def _events(*events: dict[str, Any]) -> bytes:
    numbered = ({**event, "sequence_number": number} for number, event in enumerate(events))
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in numbered).encode()


def _as_text(told: object) -> str:
    """Return a tool's result as the model reads it: text, or the texts of blocks."""
    if isinstance(told, str):
        return told
    if isinstance(told, list):
        return "\n".join(block.get("text", "") for block in told if isinstance(block, dict))
    return json.dumps(told, ensure_ascii=False).replace("\\n", "\n")
