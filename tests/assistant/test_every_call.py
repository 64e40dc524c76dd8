"""Every call is answered, whatever it holds: over both transports, in both eras of the protocol."""

import json
import random
import socket
import time
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from mcp_types import JSONRPCError, JSONRPCRequest, JSONRPCResponse

from gemini_batch_mcp.assistant.transports._incoming import MAX_MESSAGE_BYTES, Refused, read_message
from support.extent import few, tries
from support.servers import MODERN_META, eventually, server_process


def _call(arguments: bytes, id: bytes = b"7", tool: bytes = b"list_jobs", meta: bytes = b"") -> bytes:
    params = b'{"name":"%b","arguments":%b%b}' % (tool, arguments, meta)
    return b'{"jsonrpc":"2.0","id":%b,"method":"tools/call","params":%b}' % (id, params)


def _nested(levels: int) -> bytes:
    return b'{"generation_config":' + b'{"a":' * levels + b"1" + b"}" * levels + b"}"


#: What a tool is called with, and what its answer says; none of it comes through the SDK.
TOLD: Final[dict[str, tuple[bytes, str]]] = {
    "half a surrogate pair": (_call(rb'{"search":"a\ud83d"}'), r"search contains half of a surrogate pair, \ud83d"),
    "the other half": (_call(rb'{"search":"\ude00\ud83d"}'), r"half of a surrogate pair, \ude00"),
    "half a pair inside": (
        _call(rb'{"requests":[{"prompt":"x"},{"prompt":"\ud83d"}]}', tool=b"preview_batch"),
        r"requests.1.prompt contains half",
    ),
    "half a pair in a name": (_call(rb'{"generation_config":{"\ud83d":1}}', tool=b"preview_batch"), "contains half"),
    "half a pair as the tool": (_call(b"{}", tool=rb"\ud83d"), "contains half"),
    "250 levels": (_call(_nested(250), tool=b"preview_batch"), "nested 253 levels deep"),
    "100,000 levels": (_call(_nested(100_000), tool=b"preview_batch"), "nested 100,003 levels deep"),
    "5,000 digits": (_call(b'{"limit":' + b"9" * 5000 + b"}"), "more than 4,300 digits"),
    "no number": (_call(b'{"limit":NaN}'), "limit is NaN"),
    "no end": (_call(b'{"limit":1e999}'), "limit is "),
    "no tool of that name": (_call(b"{}", tool=b"nope"), "Unknown tool"),
    "no such value": (_call(b'{"limit":0}'), "limit is 0"),
}
#: What is refused as a message: its code, and the id of the answer, None where the message has none that could be one.
REFUSED: Final[dict[str, tuple[bytes, int, int | str | None]]] = {
    "no method of that name": (b'{"jsonrpc":"2.0","id":7,"method":"nope","params":{}}', -32601, 7),
    "half a pair as the method": (rb'{"jsonrpc":"2.0","id":7,"method":"\ud83d"}', -32600, 7),
    "half a pair in a resource": (
        rb'{"jsonrpc":"2.0","id":"x","method":"resources/read","params":{"uri":"gemini-batch://\ud83d"}}',
        -32600,
        "x",
    ),
    "half a pair as the id": (_call(b"{}", id=rb'"\ud83d"'), -32600, None),
    "a fraction as the id": (_call(b"{}", id=b"1.5"), -32600, None),
    "nothing as the id": (_call(b"{}", id=b"null"), -32600, None),
    "true as the id": (_call(b"{}", id=b"true"), -32600, None),
    "an endless id": (_call(b"{}", id=b"9" * 5000), -32600, None),
    "another JSON-RPC": (b'{"jsonrpc":"1.0","id":7,"method":"tools/list"}', -32600, 7),
    "a list of parameters": (b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":[1]}', -32600, 7),
    "a number as the method": (b'{"jsonrpc":"2.0","id":7,"method":5}', -32600, 7),
    "cut": (_call(b"{}")[:-2], -32700, 7),
    "a control character": (_call(b'{"search":"\x00"}'), -32700, 7),
    "no JSON before the id": (b'{"jsonrpc":"2.0","method":"tools/list","params":{"a":?},"id":7}', -32700, 7),
    "no JSON": (b"hello", -32700, None),
    "several at once": (b"[" + _call(b"{}") + b"]", -32600, None),
}


@pytest.mark.both_eras("long")
def test_over_standard_input_every_call_is_answered(tmp_path: Path, data: Path, era: str) -> None:
    with server_process(tmp_path / "home", data, {}, "--sandbox", era=era) as server:
        server.call("list_jobs")
        for name, (line, said) in TOLD.items():
            server.send(_in_era(line, era))
            answer = server.next()
            assert answer["id"] == 7, name
            assert answer["result"]["isError"], name
            assert said in answer["result"]["content"][0]["text"], (name, answer)
            assert ("resultType" in answer["result"]) == (era == "auto"), name
        for name, (line, code, id) in REFUSED.items():
            server.send(_in_era(line, era))
            answer = server.next()
            assert (answer["error"]["code"], answer["id"]) == (code, id), (name, answer)
        # An unknown prompt is no crash; half a pair in what nobody waits for is answered by nobody.
        assert server.ask("prompts/get", {"name": "x"})["error"]["code"] == -32602
        server.send(rb'{"jsonrpc":"2.0","method":"notifications/x","params":{"a":"\ud83d"}}')
        server.send(b"")
        # Two calls with one id are two calls.
        server.send(_in_era(_call(b"{}"), era) + b"\n" + _in_era(_call(b"{}"), era))
        assert [server.next()["id"], server.next()["id"]] == [7, 7]
        server.send(_call(b'{"search":"' + b"x" * MAX_MESSAGE_BYTES + b'"}'))
        assert "longer than 32 MiB" in server.next()["error"]["message"]
        assert server.call("list_jobs")["jobs"] == []
    assert server.errors == b""


def test_over_http_every_call_is_answered(tmp_path: Path, data: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ("--sandbox", "serve", "--transport", "http", "--port", str(port))
    with (
        server_process(tmp_path / "home", data, {}, *arguments, era="http") as server,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
    ):
        eventually(lambda: _listens(port))
        for era in ("legacy", "auto"):
            headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
            headers |= _session(http, headers) if era == "legacy" else {"mcp-protocol-version": "2026-07-28"}
            for name, (line, said) in TOLD.items():
                method = {"mcp-method": "tools/call", "mcp-name": "list_jobs"} if era == "auto" else {}
                if era == "auto" and b'"list_jobs"' not in line:
                    method["mcp-name"] = json.loads(line[line.index(b'"name":') + 7 :].split(b",")[0])
                    if not method["mcp-name"].isascii():
                        continue
                reply = http.post("/mcp", content=_in_era(line, era), headers=headers | method)
                answer = _message(reply)
                assert (answer["id"], reply.status_code) == (7, 200), (era, name, answer)
                assert said in answer["result"]["content"][0]["text"], (era, name, answer)
            for name, (line, code, id) in REFUSED.items():
                reply = http.post("/mcp", content=_in_era(line, era), headers=headers)
                answer = _message(reply)
                assert "error" in answer, (era, name)
                if code == -32700 or b"\\ud83d" in line:
                    assert (answer["error"]["code"], answer["id"]) == (code, id), (era, name, answer)
    # Where it is, and how a client is configured.
    assert len(server.errors.splitlines()) == 2


def test_a_message_that_was_changed_at_random_is_read_or_answered_under_its_own_id() -> None:
    chance = random.Random(12)
    pieces = [rb"\ud83d", b"\\", b'"', b"{", b"}", b"[", b"]", b":", b",", b"\x00", b"\xff", b"NaN", b"9" * 5000, b"id"]
    whole = [line for line, _ in TOLD.values() if len(line) < 2000]
    for _ in range(tries(100_000, 1_000)):
        line = bytearray(chance.choice(whole))
        # Behind the id and the method, which have to be found for an answer.
        start = line.index(b'"params"')
        for _ in range(chance.randrange(1, 4)):
            place = chance.randrange(start, len(line))
            line[place : place + chance.randrange(3)] = chance.choice(pieces)
        read = read_message(bytes(line))
        if not isinstance(read, Refused):
            assert isinstance(read, JSONRPCRequest)
            continue
        assert isinstance(read.answer, JSONRPCResponse | JSONRPCError), line
        assert read.answer.id == 7, line
        assert read.answer.model_dump_json().encode(), line


@few(3)
@pytest.mark.parametrize("piece", [b'"', b'\\"', b"[", b"[]", b'{"a":', b'":"', b"\\", b"9"])
def test_what_cannot_be_read_is_answered_in_a_time_that_grows_with_its_length_only(piece: bytes) -> None:
    def seconds(length: int) -> float:
        line = _call(b'{"a":' + piece * (length // len(piece)))
        begun = time.perf_counter()
        assert isinstance(read_message(line), Refused)
        return time.perf_counter() - begun

    # Forty times as long: squared, that would be 1,600 times the time.
    assert seconds(2_000_000) < 400 * max(seconds(50_000), 0.001)


def test_an_answer_of_a_client_that_cannot_be_read_ends_the_question_and_no_call() -> None:
    read = read_message(rb'{"jsonrpc":"2.0","id":7,"result":{"content":{"submit":"\ud83d"}}}')
    assert isinstance(read, Refused)
    assert read.answer is None
    assert read.instead is not None
    assert read.instead.id == 7


def _in_era(line: bytes, era: str) -> bytes:
    """Return a message as a client of that era sends it: the newer one says in each what it can do."""
    meta = b'"_meta":' + json.dumps(MODERN_META).encode()
    at = line.rfind(b"}}")
    comma = b"" if line[at - 1 : at] == b"{" else b","
    if era != "auto" or b'"params":{' not in line or at < 0 or not line.endswith((b"}}", b"}}]")):
        return line
    return line[:at] + comma + meta + line[at:]


def _session(http: httpx2.Client, headers: dict[str, str]) -> dict[str, str]:
    client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": client}
    reply = http.post("/mcp", json=message, headers=headers)
    session = {"mcp-session-id": reply.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
    http.post("/mcp", json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=headers | session)
    return session


def _message(reply: httpx2.Response) -> dict[str, Any]:
    """Return the message of a reply, be it JSON or the first event of a stream."""
    text = reply.text
    assert text, (reply.status_code, reply.headers)
    if reply.headers["content-type"].startswith("text/event-stream"):
        text = next(line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {"))
    return dict(json.loads(text))


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
