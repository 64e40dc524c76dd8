"""Disturbances that kill nobody: lost replies, cut bodies, refusals, full and locked disks, clocks, and races."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import httpx2

from crash import plans
from crash.driver import Life, Program
from crash.ground import Bench, Ground, Plan
from crash.matrix import Baseline, Verdict, brought_to_an_end, ground
from crash.traps import DAY_AND_MORE_SECONDS, Trap
from gemini_batch_mcp.sandbox.app import Sandbox

_RACES: Final = 8
_DISK_BYTES: Final = 24 * 1024**2

Service = Callable[[Sandbox], object]


@dataclass(frozen=True)
class Fault:
    """One disturbance of one scenario. `run` gives what happened before the case is brought to its end."""

    name: str
    plan: Plan
    run: Callable[[Ground], list[str]]
    #: What the service is like beside what the scenario says.
    service: dict[str, Any] = field(default_factory=dict)
    #: The state directory gets a small disk of its own.
    has_small_disk: bool = False
    #: Chance has a part in it: how often a complete run tries it.
    tries: int = 1


def suffered(bench: Bench, baseline: Baseline, fault: Fault) -> Verdict:
    """Let one fault happen, bring the case to its end, and compare what is left."""
    plan = replace(fault.plan, service=fault.plan.service | fault.service)
    with small_disk() if fault.has_small_disk else _no_disk() as disk, ground(bench, plan, disk) as place:
        problems = fault.run(place)
        return brought_to_an_end(place, baseline, fault.name, problems)


def at_service(name: str, disturb: Service, plan: Plan = plans.SHARDS) -> Fault:
    """A fault of the service, which one undisturbed process meets; every queued fault has to happen."""

    def run(place: Ground) -> list[str]:
        disturb(place.service)
        life = place.life()
        problems = ended(place, life)
        if waiting := place.service.faults.waiting:
            problems.append(f"never happened: {[fault.route for fault in waiting]}")
        place.service.faults.clear()
        return problems

    return Fault(name, plan, run)


def ended(place: Ground, *lives: Life, code: int = 0) -> list[str]:
    """Let these processes live at once; says which of them ended with another exit code."""
    return [
        f"the process ended with {found} instead of {code}: {place.last_words(life)}"
        for life, found in zip(lives, place.live(*lives), strict=True)
        if found != code
    ]


def refused(place: Ground, words: tuple[str, ...], *lives: Life) -> list[str]:
    """Live lives whose users are refused again and again, in words that the product foresaw."""
    problems = ended(place, *lives, code=1)
    for last_words in map(place.last_words, lives):
        if "Refused" not in last_words and "was refused" not in last_words:
            problems.append(f"not refused but broken: {last_words}")
        elif not any(word in last_words for word in words):
            problems.append(f"the refusal does not name its cause: {last_words[-300:]}")
    return problems


def of(plan: Plan) -> str:
    """Return what a fault's name says of its scenario: nothing of the main one."""
    return "" if plan is plans.SHARDS else f": {plan.name}"


def full_disk(step: str, plan: Plan = plans.SHARDS, nth: int = 1) -> Fault:
    """The disk is full from a step on, until somebody makes room."""

    def run(place: Ground) -> list[str]:
        problems = refused(
            place, ("full", "space", "could not be", "cannot be"), place.life(Trap(step, nth, "fill"), tries=3)
        )
        if not place.filler.exists():
            problems.append("the disk never filled up: no process takes this step")
        place.filler.unlink(missing_ok=True)
        return problems

    return Fault(f"disk full from {step}{of(plan)}", plan, run, has_small_disk=True)


def file_limit(max_file_bytes: int, plan: Plan = plans.SHARDS) -> Fault:
    """No file may grow beyond a size, as with a quota, for the life of the first process."""

    def run(place: Ground) -> list[str]:
        words = ("large", "full", "could not be", "cannot be", "disk I/O")
        return refused(place, words, place.life(max_file_bytes=max_file_bytes, tries=3))

    return Fault(f"no file larger than {max_file_bytes:,} bytes{of(plan)}", plan, run)


def read_only_from_the_start() -> Fault:
    """The state directory cannot be written at all; nothing leaves this machine then."""

    def run(place: Ground) -> list[str]:
        with _locked(place.home):
            problems = refused(place, ("cannot be", "could not be", "unable"), place.life(is_ordinary=True, tries=3))
        if place.service.requests:
            problems.append("something was sent although nothing can be remembered")
        return problems

    return Fault("state directory read-only from the start", plans.SHARDS, run)


def read_only_after(program: Program, death: Trap | None = None, plan: Plan = plans.SHARDS) -> Fault:
    """The state directory becomes read-only after a first process has done something in it, or has died there.

    One that comes to its end closes the ledger, so that the next one cannot even open it; one that dies leaves it open.
    """

    def run(place: Ground) -> list[str]:
        problems = ended(place, place.life(death, program=program), code=0 if death is None else -9)
        with _locked(place.home):
            words = ("cannot be", "could not be", "unable", "readonly")
            problems += refused(place, words, place.life(is_ordinary=True, tries=3))
        return problems

    name = program if death is None else f"a kill at {death.step}"
    return Fault(f"state directory read-only after {name}{of(plan)}", plan, run)


def clock_back_at(step: str, plan: Plan = plans.SHARDS, nth: int = 1) -> Fault:
    """The clock jumps back by a day while a process is at work."""
    return Fault(
        f"clock set back a day at {step}{of(plan)}",
        plan,
        lambda place: ended(place, place.life(Trap(step, nth, "back"))),
    )


def clock_back_after(step: str, plan: Plan = plans.SHARDS, nth: int = 1) -> Fault:
    """A process dies at a step, and the clock of the next one is a day behind: all it finds is from tomorrow."""

    def run(place: Ground) -> list[str]:
        problems = ended(place, place.life(Trap(step, nth)), code=-9)
        return problems + ended(place, place.life(clock_seconds=-DAY_AND_MORE_SECONDS))

    return Fault(f"killed at {step}, then the clock set back a day{of(plan)}", plan, run)


def race(count: int, plan: Plan) -> Fault:
    """Several processes are given the same order at the same moment."""

    def run(place: Ground) -> list[str]:
        start = place.directory / "start"
        # The first life of all sees the state directory made, as the first start of a server does.
        lives = [place.life(starts_with=str(start)) for _ in range(count)]
        start.touch()
        codes = place.live(*lives)
        return [
            f"a racing process ended with {code}: {place.last_words(life)}"
            for code, life in zip(codes, lives, strict=True)
            if code
        ]

    return Fault(f"{count} processes race on one order: {plan.name}", plan, run, tries=_RACES)


def absent_behind_a_page() -> Fault:
    """A create never arrived, and the list that could tell so fails at its second page."""

    def disturb(service: Sandbox) -> None:
        service.cut_next("batches.create", when="before")
        service.fail_next("batches.list", status=503, skip=1, times=10)

    def run(place: Ground) -> list[str]:
        add_strangers(place, 60)
        return at_service("", disturb).run(place)

    return Fault("create lost on its way, and page 2 of the list fails", plans.SHARDS, run)


def present_behind_a_page() -> Fault:
    """A create took effect, its process died, and the page that holds the job fails."""

    def run(place: Ground) -> list[str]:
        problems = ended(place, place.life(Trap("create:after")), code=-9)
        add_strangers(place, 60)
        found = at_service("", lambda service: service.fail_next("batches.list", status=503, skip=1, times=5))
        return problems + found.run(place)

    return Fault("killed after a create, and the page of the list that holds it fails", plans.SHARDS, run)


def add_strangers(place: Ground, count: int) -> None:
    """Let somebody else make jobs with the same key."""
    line = b'{"key":"a","request":{"contents":[{"parts":[{"text":"x"}]}]}}\n'
    with httpx2.Client(base_url=place.base_url, headers={"x-goog-api-key": "strangers-key"}) as http:
        start = {
            "X-Goog-Upload-Protocol": "resumable",
            "X-Goog-Upload-Command": "start",
            "X-Goog-Upload-Header-Content-Length": str(len(line)),
            "X-Goog-Upload-Header-Content-Type": "jsonl",
        }
        session = http.post("/upload/v1beta/files", headers=start, json={}).headers["x-goog-upload-url"]
        send = {"X-Goog-Upload-Command": "upload, finalize", "X-Goog-Upload-Offset": "0"}
        name = http.post(session, content=line, headers=send).json()["file"]["name"]
        for number in range(count):
            batch = {"displayName": f"stranger {number}", "inputConfig": {"fileName": name}}
            reply = http.post("/v1beta/models/gemini-3.8-flash:batchGenerateContent", json={"batch": batch})
            assert reply.status_code == 200, reply.text


@contextmanager
def _no_disk() -> Generator[None]:
    yield None


@contextmanager
def small_disk() -> Generator[Path]:
    """Give a disk of 24 MB."""
    directory = Path(tempfile.mkdtemp())
    try:
        _mount("-t", "tmpfs", "-o", f"size={_DISK_BYTES},mode=755", "tmpfs", str(directory))
        try:
            yield directory
        finally:
            subprocess.run(["umount", "--lazy", str(directory)], check=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def why_no_small_disk() -> str:
    """Return why this machine gives no small disk, empty when it does."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "a small disk needs Linux and root"
    try:
        with small_disk():
            return ""
    except subprocess.CalledProcessError as error:
        return f"a small disk cannot be mounted here ({error.stderr.strip()})"


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True, text=True)


@contextmanager
def _locked(directory: Path) -> Generator[None]:
    """Take the right to write away from everything below a directory, and from who is not root."""
    paths = [directory, *directory.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        yield
    finally:
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)
