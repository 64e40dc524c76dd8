"""The drop page, attacked and used: what is handed over arrives whole under a name of its own, or not at all."""

import re
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import anyio
import httpx2
import pytest
from anyio.abc import SocketStream
from mcp.client import Client

from assistant.drop.chatting import ADDRESS, PROMPT, SPELLINGS, address_in, chat
from gemini_batch_mcp.assistant.drop._names import clean_name
from gemini_batch_mcp.assistant.drop.pages import DropPages
from gemini_batch_mcp.assistant.server import build_server
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, newest, spoken, until

pytestmark = pytest.mark.anyio

#: More than is kept in memory before it is written.
BEGIN = b"text\n" + b"fine\n" * (1 << 18)


def origin(url: str) -> dict[str, str]:
    """The header that a browser sends with the form of a page."""
    return {"Origin": "/".join(url.split("/")[:3])}


async def hand_over(url: str, *files: tuple[str, bytes], **headers: str) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
        return await http.post(url, files=[("files", file) for file in files], headers=origin(url) | headers)


@asynccontextmanager
async def slow_sender(url: str, begin: bytes) -> AsyncIterator[SocketStream]:
    """Someone who has begun to hand over `slow.csv`, and has sent all of it but the last four bytes."""
    head, tail = form(("slow.csv", b"")).split(b"\r\n\r\n\r\n")
    length = len(head) + 4 + len(begin) + 4 + 2 + len(tail)
    host, _, token = url.removeprefix("http://").partition("/")
    lines = (
        f"POST /{token} HTTP/1.1",
        f"Host: {host}",
        f"Origin: http://{host}",
        "Content-Type: multipart/form-data; boundary=b",
        f"Content-Length: {length}",
        "",
        "",
    )
    async with await anyio.connect_tcp("127.0.0.1", int(host.partition(":")[2])) as sender:
        await sender.send("\r\n".join(lines).encode() + head + b"\r\n\r\n" + begin)
        yield sender


def form(*files: tuple[str, bytes]) -> bytes:
    """A form as browsers write it, between `--b`."""
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="%b"\r\n\r\n%b\r\n' % (name.encode(), content)
        for name, content in files
    ]
    return b"".join(parts) + b"--b--\r\n"


def kept(settings: Settings) -> list[str]:
    """What lies in the directory of files, drafts included."""
    return sorted(path.name for path in settings.files.iterdir())


def is_closed(url: str) -> bool:
    """Whether nobody listens there any more."""
    host, _, port = url.split("/")[2].partition(":")
    with socket.socket() as caller:
        return caller.connect_ex((host, int(port))) != 0


async def test_a_file_of_a_chat_comes_in_and_results_go_back(settings: Settings, sandbox: Sandbox) -> None:
    async with chat(settings, sandbox) as talk:
        addresses = {await address_in(talk, source) for source in SPELLINGS}
        assert len(addresses) == 1
        url = addresses.pop()
        answer = spoken(await talk.raw("preview_batch", source=SPELLINGS[0], **PROMPT))
        promised = talk.settings.files / "reviews.csv"
        assert f'then give "{promised}"' in answer
        shown = (await hand_over(url, ("reviews.csv", b"text\nfine\nbad\n"))).text
        assert str(promised) in shown
        assert promised.read_bytes() == b"text\nfine\nbad\n"
        # Its address is good for nothing from then on.
        await until(lambda: is_closed(url))
        # Told once, so that another version of the same name can come.
        told = spoken(await talk.raw("create_batch", source=SPELLINGS[1], **PROMPT))
        assert f'The user has handed it over: give "{promised}" instead.' in told
        assert await address_in(talk) != url

        ordered = await talk.call("create_batch", source=str(promised), **PROMPT)
        sandbox.finish(newest(sandbox))
        batch = {"batch": ordered["batch_id"]}
        refused = await talk.refusal("get_results", **batch, save_to="/mnt/user-data/outputs/moods.csv")
        assert f"Give 'moods.csv' instead: it is saved in {settings.roots[0]}." in refused
        assert "The reply says where the user can download it." in refused
        saved = (await talk.call("get_results", **batch, save_to="moods.csv"))["saved"]
        found = ADDRESS.search(saved["download"])
        assert found, saved
        async with httpx2.AsyncClient(trust_env=False) as http:
            page = await http.get(found[0])
            (link,) = re.findall(r'<a href="([^"]+)" download>moods.csv</a>', page.text)
            taken = await http.get(f"http://{found[1]}{link}")
            gone = await http.get(f"http://{found[1]}/{found[2]}/7/..%2f..%2fledger.sqlite3")
        assert taken.content == Path(saved["path"]).read_bytes()
        assert taken.headers["content-disposition"] == "attachment; filename*=UTF-8''moods.csv"
        assert gone.status_code == 404
        assert "script" not in page.headers["content-security-policy"]
        assert page.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")


async def test_attached_files_of_a_chat_are_asked_for_by_their_names(settings: Settings, sandbox: Sandbox) -> None:
    rows = [{"scan": "/mnt/user-data/uploads/a.pdf"}, {"scan": "sandbox:/mnt/data/b.pdf"}, {"scan": "here.pdf"}]
    async with chat(settings, sandbox) as talk:
        answer = spoken(await talk.raw("preview_batch", requests=rows, prompt="Read it.", attach="scan"))
        assert "Row 1: '/mnt/user-data/uploads/a.pdf' looks like a path inside the chat's own sandbox" in answer
        assert "Row 3: There is no file 'here.pdf'" in answer
        found = ADDRESS.search(answer)
        assert found
        for name in ("a.pdf", "b.pdf"):
            assert f'"{talk.settings.files / name}"' in answer
        pdf = b"%PDF-1.4\n1 0 obj<</Type/Page>>endobj\n%%EOF"
        assert (await hand_over(found[0], ("a.pdf", pdf), ("b (1).pdf", pdf))).status_code == 200
        told = spoken(await talk.raw("preview_batch", requests=rows, prompt="Read it.", attach="scan"))
        assert f'has handed over "{talk.settings.files / "a.pdf"}", but nothing called b.pdf' in told


async def test_nobody_comes_in_from_elsewhere(settings: Settings, sandbox: Sandbox) -> None:
    async with chat(settings, sandbox) as talk:
        url = await address_in(talk)
        base, _, token = url.rpartition("/")
        port = base.rpartition(":")[2]
        refused: Sequence[tuple[str, dict[str, str], int]] = (
            *((url, {"Host": host}, 421) for host in (
                "evil.example", f"evil.example:{port}", f"localhost:{port}", "127.0.0.1", "127.0.0.1:1",
                f"127.0.0.1:{port}.evil.example", f"evil.example@127.0.0.1:{port}",
            )),
            *((url, {"Origin": other}, 403) for other in (
                "null", "", "https://evil.example", f"http://localhost:{port}", "http://127.0.0.1",
                f"{base}.evil.example", base.replace("http", "https"),
            )),
            (url, {"Sec-Fetch-Site": "cross-site"}, 403),
            (url, {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"}, 403),
            *((other, {}, 404) for other in (
                f"{base}/{token[:-1]}", f"{base}/{token}x", f"{base}/{token.swapcase()}", f"{base}//{token}", base,
            )),
            (f"{url}/0/reviews.csv", {}, 405),
        )  # fmt: skip
        for where, headers, status in refused:
            answer = await hand_over(where, ("reviews.csv", b"text\nstolen\n"), **headers)
            assert (answer.status_code, where, headers) == (status, where, headers)
            assert token not in answer.text
        async with httpx2.AsyncClient(trust_env=False) as http:
            without = await http.post(url, files={"files": ("reviews.csv", b"text\n")})
            looked = await http.get(url, headers={"Host": f"evil.example:{port}"})
            linked = await http.get(url, headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})
            fetched = await http.get(url, headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"})
        assert [without.status_code, looked.status_code, linked.status_code, fetched.status_code] == [
            403,
            421,
            200,
            403,
        ]
        assert kept(talk.settings) == []
        assert (await hand_over(url, ("reviews.csv", b"text\nfine\n"))).status_code == 200
        # Whoever has seen that request and sends it once more finds nobody, or is told that it is over.
        with suppress(httpx2.TransportError):
            assert (await hand_over(url, ("reviews.csv", b"text\nagain\n"))).status_code in (404, 410)
        assert kept(talk.settings) == ["reviews.csv"]


async def test_names_stay_in_the_directory_and_nothing_there_is_replaced(settings: Settings, sandbox: Sandbox) -> None:
    async with chat(settings, sandbox) as talk:
        url = await address_in(talk)
        talk.settings.files.joinpath("reviews.csv").write_text("mine", encoding="utf-8")
        names = ("../../reviews.csv", "reviews.csv", "..\\..\\up.csv", ".ssh", "C:\\temp\\con.csv", "", "no ending")
        answer = await hand_over(url, *((name, f"of {name}".encode()) for name in names))
        assert answer.status_code == 200
        assert kept(talk.settings) == [
            "_con.csv", "no ending", "reviews-2.csv", "reviews-3.csv", "reviews.csv", "ssh", "up.csv",
        ]  # fmt: skip
        assert talk.settings.files.joinpath("reviews.csv").read_text(encoding="utf-8") == "mine"
        assert talk.settings.files.joinpath("reviews-3.csv").read_text(encoding="utf-8") == "of reviews.csv"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Umsa\u0308tze 2026.xlsx", "Ums\u00e4tze 2026.xlsx"),
        ("\u202egnp.exe", "gnp.exe"),
        ("a\u200b\x00\x1b[31m.csv", "a_31m.csv"),
        ("~$book.xlsx", "book.xlsx"),
        ("-rf", "rf"),
        ('a"b<c>|?*#[1].csv', "a_b_c_1_.csv"),
        ("what%22is.csv", "what_is.csv"),
        ("lpt1", "_lpt1"),
        ("trailing. . ", "trailing"),
        ("....", "file"),
        ("\ud800.csv", "csv"),
        ("x" * 300 + ".jsonl", "x" * 194 + ".jsonl"),
        ("\u65e5" * 100 + ".csv", "\u65e5" * 65 + ".csv"),
    ],
)
def test_a_name_is_made_fit(given: str, expected: str) -> None:
    assert clean_name(given) == expected


async def test_what_is_too_large_or_no_form_leaves_nothing(settings: Settings, sandbox: Sandbox) -> None:
    async with chat(settings, sandbox) as talk:
        url = await address_in(talk)
        sizes = [("huge.csv", {"Content-Length": str(10**15)}, 413)]
        forms = [
            (b"no form", "text/plain", 400),
            (b"no form", "multipart/form-data", 400),
            (b"no form", "multipart/form-data; boundary=b", 400),
            (form(("cut.csv", b"text\nfine\n"))[:-6], "multipart/form-data; boundary=b", 400),
            (form(), "multipart/form-data; boundary=b", 400),
            (form(("", b"")), "multipart/form-data; boundary=b", 400),
            (form(*(("many.csv", b"x") for _ in range(1001))), "multipart/form-data; boundary=b", 400),
        ]
        async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
            for body, kind, status in forms:
                answer = await http.post(url, content=body, headers=origin(url) | {"Content-Type": kind})
                assert (answer.status_code, body[:40], kind) == (status, body[:40], kind)
                assert "Nothing was saved" in answer.text
        for name, headers, status in sizes:
            assert f" {status} " in await first_line(url, name, headers)
        assert kept(talk.settings) == []
        assert (await hand_over(url, ("reviews.csv", b"text\nfine\n"))).status_code == 200
    # Room for some megabytes: of ten gigabytes that are announced nothing is written, of what does not end that much.
    room_bytes = 8 << 20
    async with chat(settings, sandbox, keep_free_bytes=shutil.disk_usage(settings.files).free - room_bytes) as talk:
        url = await address_in(talk)
        assert " 413 " in await first_line(url, "large.csv", {"Content-Length": str(10 * 1000**3)})

        async def endless() -> AsyncIterator[bytes]:
            yield form(("endless.csv", b""))[:-9]
            # What others on this disk delete meanwhile makes room for more, too.
            for _ in range(1024):
                yield b"x" * (1 << 20)

        async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
            headers = origin(url) | {"Content-Type": "multipart/form-data; boundary=b"}
            answer = await http.post(url, content=endless(), headers=headers)
        assert answer.status_code == 413
        assert kept(talk.settings) == ["reviews.csv"]


async def first_line(url: str, name: str, headers: dict[str, str]) -> str:
    """Say that a large file comes, and return the first line of the answer; what comes is a beginning."""
    host, _, token = url.removeprefix("http://").partition("/")
    said = {"Host": host, "Origin": f"http://{host}", "Content-Type": "multipart/form-data; boundary=b"} | headers
    lines = [f"POST /{token} HTTP/1.1", *(f"{field}: {value}" for field, value in said.items()), "", ""]
    async with await anyio.connect_tcp("127.0.0.1", int(host.partition(":")[2])) as sender:
        await sender.send("\r\n".join(lines).encode())
        await sender.send(form((name, b"begun"))[:-6])
        return (await sender.receive()).decode().partition("\r\n")[0]


async def test_who_stops_midway_leaves_nothing_and_keeps_nobody_out(settings: Settings, sandbox: Sandbox) -> None:
    async with chat(settings, sandbox, idle_seconds=0.5) as talk:
        url = await address_in(talk)
        async with slow_sender(url, BEGIN):
            await until(lambda: kept(talk.settings))
            # Two at once: the second is told, and loses nothing.
            answer = await hand_over(url, ("second.csv", b"text\n"))
            assert answer.status_code == 409
        await until(lambda: not kept(talk.settings))
        async with slow_sender(url, BEGIN) as sender:
            # Nothing more comes: after a while it is given up.
            assert b" 408 " in await sender.receive()
        assert kept(talk.settings) == []
        async with slow_sender(url, BEGIN) as sender:
            await sender.send(b"end\n" + b"\r\n--b--\r\n")
            assert b" 200 " in await sender.receive()
        assert (talk.settings.files / "slow.csv").read_bytes() == BEGIN + b"end\n"


async def test_a_page_closes_by_itself_with_what_is_on_its_way(settings: Settings, sandbox: Sandbox) -> None:
    async with chat(settings, sandbox, lifetime_seconds=2.0) as talk:
        url = await address_in(talk)
        async with slow_sender(url, BEGIN) as sender:
            await until(lambda: kept(talk.settings))
            assert b" 410 " in await sender.receive()
        await until(lambda: is_closed(url))
        assert kept(talk.settings) == []
        assert await address_in(talk) != url


async def test_no_page_is_opened_for_others_or_where_its_files_could_not_be_read(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    async with chat(settings, sandbox, may_open=False) as talk:
        refusal = await talk.refusal("preview_batch", source=SPELLINGS[0], **PROMPT)
        assert refusal.startswith(
            f"'{SPELLINGS[0]}' looks like a path inside the chat's own sandbox, which this server"
        )
        assert f"Save the file in {data}" in refusal
        assert "handed" not in refusal
        # What is there, or could be, is no path of a chat.
        (data / "sandbox:x.csv").write_text("text\nfine\n", encoding="utf-8")
        assert (await talk.call("preview_batch", source="sandbox:x.csv", **PROMPT))["request_count"] == 1
        assert "There is no file" in await talk.refusal("preview_batch", source="mnt/user-data/x.csv", **PROMPT)
    pages = DropPages(settings, may_open=True)
    async with Client(build_server(settings, transport=sandbox.transport, pages=pages), mode="auto") as client:
        talk = Conversation(client, settings)
        assert "Save the file in" in await talk.refusal("preview_batch", source=SPELLINGS[0], **PROMPT)
    # A person who hands a file over for a preview spends nothing.
    async with chat(replace(settings, read_only=True), sandbox) as talk:
        url = await address_in(talk)
        assert (await hand_over(url, ("reviews.csv", b"text\nfine\n"))).status_code == 200
