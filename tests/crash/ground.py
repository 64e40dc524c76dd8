"""The ground of one case: a fresh service, a fresh state directory, a file to order; lives on it, and what is left."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from crash.driver import Life
from crash.scenario import Outcome, Wish
from crash.traps import Trap, plain
from gemini_batch_mcp.sandbox import service
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import SandboxConfig
from support.cloud.places import BUCKET, DATASET, PROJECT, cloud_env, put
from support.services import MovedClock

#: Longer ago than anything that the product cleans up after a time.
_LONG_AGO_SECONDS: Final = 14 * 24 * 3600.0
#: What was ordered, shard and attempt of a job, at the end of the display name that its create carried.
_TAG: Final = re.compile(r"\[(.+)-\w{6}(/\d+\.\d+)\]$")
_ANSWERED_BY: Final = re.compile(rb'("answered_by":"[a-z]+-)\w{6}(?=")')
#: What is ordered where it lies.
OBJECT_NAME: Final = "in/reviews.jsonl"
_TESTS: Final = Path(__file__).parent.parent


class Switch:
    """An ASGI application that is whatever service was put there last."""

    def __init__(self) -> None:
        self.service: Sandbox | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert self.service is not None
        await self.service.app(scope, receive, send)


class Processes:
    """Lives lives, in processes that are forked off one which has loaded the product; see `driver`."""

    def __init__(self) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
        self._driver = subprocess.Popen(
            [sys.executable, "-m", "crash.driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=env | {"PYTHONPATH": os.pathsep.join(filter(None, [str(_TESTS), env.get("PYTHONPATH", "")]))},
        )
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        self._input, self._output = self._driver.stdin, self._driver.stdout

    def live(self, lives: Sequence[Life]) -> list[int]:
        """Let these lives begin together and wait for all; returns their exit codes, negative for a signal."""
        self._input.write(f"{msgspec.json.encode(list(lives)).decode()}\n")
        self._input.flush()
        while not (line := self._output.readline()).startswith("["):
            assert line, "The driver is gone."
        return list(json.loads(line))

    def close(self) -> None:
        """End the process that the others are forked off."""
        self._input.close()
        self._output.close()
        self._driver.wait()


@dataclass(frozen=True)
class Bench:
    """What a case borrows: processes and a port. One case at a time."""

    processes: Processes
    base_url: str
    switch: Switch


@contextmanager
def bench() -> Generator[Bench]:
    """Set up a bench for as many cases as one likes."""
    switch, processes = Switch(), Processes()
    try:
        with service.listening(switch) as base_url:
            yield Bench(processes, base_url, switch)
    finally:
        processes.close()


@dataclass(frozen=True)
class Plan:
    """A scenario: rows, how they are ordered, and what the service and the settings are like."""

    name: str
    rows: tuple[dict[str, Any], ...]
    wish: dict[str, Any]
    service: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    #: What is ordered and answered before, under keys of its own.
    earlier: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Ending:
    """What is left of a case when all its lives have ended."""

    outcome: Outcome
    creates: tuple[str, ...]
    sha256: str
    rows: int
    files: Counter[str]
    problems: tuple[str, ...]


class Ground:
    """A directory with everything of one case."""

    def __init__(self, bench: Bench, directory: Path, plan: Plan, *, state: Path | None = None) -> None:
        self.directory = directory
        self.plan = plan
        #: What may be on a disk of its own: the state directory and the user's files.
        self.state = state or directory / "state"
        self.home, self.data = self.state / "home", self.state / "data"
        self.filler = self.state / "filler"
        for path in (self.home, self.data):
            path.mkdir(parents=True, exist_ok=True)
        self.wish = _write_order(plan, self.data)
        self.clock = MovedClock()
        self._ahead_seconds = 0.0
        self.service = Sandbox(directory / "service", SandboxConfig(**plan.service, clock_ns=self.clock))
        self.base_url = bench.base_url
        if plan.wish.get("form") == "object":
            put(self.service, OBJECT_NAME, (msgspec.json.encode(_request(row, role="user")) for row in plan.rows))
        if plan.wish.get("form") == "remote":
            columns = [("key", "VARCHAR"), ("review", "VARCHAR")]
            self.service.cloud.tables.add(DATASET, "reviews", columns, [(row["key"], row["text"]) for row in plan.rows])
        self._bench = bench
        self._lives = 0
        bench.switch.service = self.service

    def close(self) -> None:
        """Let go of the service and remove everything."""
        self.service.close()
        for path in (self.directory, self.home, self.data):
            shutil.rmtree(path, ignore_errors=True)

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass, for the service and for processes that begin later."""
        self._ahead_seconds += seconds
        self.clock.move(seconds)

    def life(self, trap: Trap | None = None, **members: Any) -> Life:
        """Return one process of this case."""
        self._lives += 1
        env = {
            "GEMINI_API_KEY": "test-key-do-not-show",
            "GOOGLE_GEMINI_BASE_URL": self.base_url,
            "GEMINI_BATCH_HOME": str(self.home),
            "GEMINI_BATCH_ROOTS": str(self.data),
            "GEMINI_BATCH_POLL_SECONDS": "0.01",
            "GEMINI_BATCH_RECONCILE_SECONDS": "0.15",
            "GEMINI_BATCH_CONFIRM_ABOVE_USD": "1000",
        }
        if "GOOGLE_GENAI_USE_ENTERPRISE" in self.plan.env:
            env |= cloud_env(self.base_url, self.directory)
        return Life(
            env=env | self.plan.env,
            directory=str(self.data),
            wish=self.wish,
            report=str(self.directory / f"life-{self._lives}"),
            filler=str(self.filler),
            trap=trap,
            **({"clock_seconds": self._ahead_seconds} | members),
        )

    def live(self, *lives: Life) -> list[int]:
        """Let these processes begin together; returns their exit codes."""
        return self._bench.processes.live(lives)

    def trace(self, life: Life) -> list[str]:
        """Return the steps that a process took."""
        return Path(f"{life.report}.trace").read_text(encoding="utf-8").splitlines()

    def last_words(self, life: Life) -> str:
        """Return the end of what a process wrote to standard error."""
        path = Path(f"{life.report}.stderr")
        return path.read_text(encoding="utf-8")[-1500:] if path.exists() else ""

    def outcome(self, life: Life) -> Outcome:
        """Return what a process that came to its end reported."""
        return msgspec.json.decode(Path(f"{life.report}.json").read_bytes(), type=Outcome)

    def ending(self, life: Life) -> Ending:
        """Look at what is left after a process that saved the results."""
        outcome = self.outcome(life)
        saved = Path(outcome.saved)
        data = saved.read_bytes()
        problems = [*_row_problems(self.plan, data), *self._ledger_problems()]
        if self.service.unknown_requests:
            problems.append(f"requests that no service knows: {self.service.unknown_requests[:3]}")
        records = self.service.create_records
        creates = tuple(sorted(tag[1] + tag[2] for record in records if (tag := _TAG.search(record.display_name))))
        doubled = [tag for tag, count in Counter(creates).items() if count > 1]
        if doubled:
            problems.append(f"created more than once: {doubled}")
        files = self.files()
        # Which batch has answered a row is named by an id that nobody can tell beforehand.
        told = _ANSWERED_BY.sub(rb"\1", data)
        return Ending(outcome, creates, sha256(told).hexdigest(), data.count(b"\n"), files, tuple(problems))

    def files(self) -> Counter[str]:
        """Count the files and empty directories of the state directory and of the user, without chance in names.

        SQLite's own files beside the ledger do not count: whoever opens it next folds them in.
        """
        found: Counter[str] = Counter()
        for name, place in (("home", self.home), ("data", self.data)):
            for path in place.rglob("*"):
                if path.name.endswith((".sqlite3-shm", ".sqlite3-wal")):
                    continue
                if path.is_file() or not any(path.iterdir()):
                    found[plain(f"{name}/{path.relative_to(place)}")] += 1
        return found

    def age(self) -> None:
        """Let everything of ours but the ledger and what was saved have been written two weeks ago."""
        long_ago = time.time() - _LONG_AGO_SECONDS
        for path in sorted([*self.home.rglob("*"), *self.data.rglob(".gemini-batch-*")], reverse=True):
            if ".sqlite3" not in path.name:
                os.utime(path, (long_ago, long_ago))

    def _ledger_problems(self) -> list[str]:
        database = sqlite3.connect(self.home / "ledger.sqlite3")
        try:
            (verdict,) = database.execute("PRAGMA integrity_check").fetchone()
        finally:
            database.close()
        return [] if verdict == "ok" else [f"the ledger is damaged: {verdict}"]


def _row_problems(plan: Plan, data: bytes) -> list[str]:
    """Compare the saved rows with what was ordered: each key once, each answer under its own key."""
    problems: list[str] = []
    if not data.endswith(b"\n"):
        problems.append("the saved file ends in the middle of a line")
    rows = [json.loads(line) for line in data.split(b"\n")[:-1]]
    keys = Counter(row["key"] for row in rows)
    wrong = {row["key"] for row in plan.rows if row.get("is_wrong")}
    left_out = [row for row in rows if row["key"] in wrong and row["status"] != "failed"]
    problems += [f"{row['key']} was left out and is {row['status']}" for row in left_out]
    wanted = {row["key"] for row in plan.rows}
    problems += [f"{key}: {count} rows" for key, count in keys.items() if count > 1]
    if keys.keys() != wanted:
        lost, strange = sorted(wanted - keys.keys()), sorted(keys.keys() - wanted)
        problems.append(f"rows lost: {lost[:5]}; rows that were never ordered: {strange[:5]}")
    texts = {row["key"]: row["text"] for row in (*plan.earlier, *plan.rows)}
    for row in rows:
        if row["status"] != "ok":
            continue
        answered = json.loads(row["text"].rpartition("key=")[2])
        # Only rows that ask the same may share an answer, and only where something is not sent.
        is_shared = plan.wish.get("reuse") == "always" and texts.get(answered) == texts[row["key"]]
        if answered != row["key"] and not is_shared:
            problems.append(f"{row['key']} has the answer of another row: {row['text'][-60:]}")
    return problems


def _request(row: dict[str, Any], **members: str) -> dict[str, Any]:
    return {"key": row["key"], "request": {"contents": [{**members, "parts": [{"text": row["text"]}]}]}}


def _write_order(plan: Plan, data: Path) -> Wish:
    """Write what is ordered where the user has it."""
    save_to = str(data / "results.jsonl")
    requests = [_request(row) for row in plan.rows]
    match plan.wish.get("form", "lines"):
        case "lines" | "now" as form:
            source = data / "reviews.jsonl"
            encoded = [msgspec.json.encode(request) for request in requests]
            # A wrong one breaks off behind its key.
            cut = [
                line[: line.index(b"]")] if row.get("is_wrong") else line
                for row, line in zip(plan.rows, encoded, strict=True)
            ]
            source.write_bytes(b"".join(line + b"\n" for line in cut))
            earlier = data / "earlier.jsonl"
            if plan.earlier:
                earlier.write_bytes(b"".join(msgspec.json.encode(_request(row)) + b"\n" for row in plan.earlier))
            return Wish(
                save_to=save_to,
                source=str(source),
                skip_invalid=any(row.get("is_wrong") for row in plan.rows),
                delivery="now" if form == "now" else "file",
                reuse=plan.wish.get("reuse", "auto"),
                earlier=str(earlier) if plan.earlier else "",
            )
        case "object":
            return Wish(save_to=save_to, source=f"gs://{BUCKET}/{OBJECT_NAME}")
        case "remote":
            source_table = f"bq://{PROJECT}.{DATASET}.reviews"
            return Wish(save_to=save_to, source=source_table, prompt="Classify: {{review}}", key_column="key")
        case "requests":
            path = data / "requests.json"
            path.write_bytes(msgspec.json.encode(requests))
            return Wish(save_to=save_to, requests=str(path), delivery="inline")
        case _:
            source = data / "reviews.csv"
            lines = ["key,review", *(f'{row["key"]},"{row["text"]}"' for row in plan.rows)]
            source.write_text("\n".join(lines) + "\n", encoding="utf-8")
            return Wish(save_to=save_to, source=str(source), prompt="Classify: {{review}}", key_column="key")
