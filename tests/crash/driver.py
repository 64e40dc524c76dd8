"""The processes of the crash and fault matrices: each lives one scenario against a service on a port, or dies in it.

    python tests/crash/driver.py

reads one JSON array of `Life` objects a line from standard input, forks a process for each of them, waits for all,
and answers with the array of their exit codes (negative: the signal). Forked, because loading the product takes a
second and a matrix has hundreds of lives; nothing but imports has happened before the fork.
"""

import ctypes
import gc
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Final, Literal

import anyio
import msgspec
from anyio.abc import TaskGroup

from crash.scenario import User, Wish
from crash.traps import Trap, Watch, move_clock
from gemini_batch_mcp.batches.app import App, open_app
from gemini_batch_mcp.batches.desk import Desk
from gemini_batch_mcp.batches.work import Work
from gemini_batch_mcp.errors import BatchError
from gemini_batch_mcp.settings import Settings
from support.loading import load_everything

#: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and CAP_FOWNER of Linux, and what it takes to give them up.
_POWERS_OVER_FILES: Final = (1, 2, 3)
_PR_CAPBSET_DROP: Final = 24
_CAPABILITY_VERSION_3: Final = 0x20080522

#: `order`: the user gives the order, waits, reads, sends again what failed, and saves. `collect` and `server`: the
#: same after `gemini-batch-mcp collect`, or a server left to itself, has done what it can. `place` ends when the order
#: is given, `watch` when `gemini-batch-mcp collect` has done what it can.
Program = Literal["order", "collect", "server", "place", "watch"]


class Life(msgspec.Struct, frozen=True):
    """One process: its settings, what it does, and what befalls it. Paths are absolute."""

    env: dict[str, str]
    directory: str
    wish: Wish
    #: Where the process writes its outcome, its trace and its standard error: `<name>.json`, `.trace`, `.stderr`.
    report: str
    filler: str
    trap: Trap | None = None
    program: Program = "order"
    #: Wait for this file to appear, so that several processes begin together.
    starts_with: str = ""
    #: The rights of files hold the process back, which they do not when it is root's.
    is_ordinary: bool = False
    #: No file may grow beyond this; 0 for no limit.
    max_file_bytes: int = 0
    #: How far its clock is ahead of time, negative when it is behind.
    clock_seconds: float = 0.0
    #: How often the user tries what is refused.
    tries: int = 60
    limit_seconds: int = 200


def main() -> None:
    """Carry out the lives on standard input."""
    load_everything()
    # It is the same in each life: none need look through it.
    gc.freeze()
    decoder = msgspec.json.Decoder(list[Life])
    sys.stdout.write("ready\n")
    for line in sys.stdin:
        sys.stdout.flush()
        children = [_fork(life) for life in decoder.decode(line)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        sys.stdout.write(f"{msgspec.json.encode(codes).decode()}\n")
        sys.stdout.flush()
    # Libraries look at their end for what they have left behind.
    gc.unfreeze()


def _fork(life: Life) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = _live(life)
        finally:
            os._exit(code)
    return child


def _live(life: Life) -> int:
    """Live one life; returns the exit code."""
    signal.alarm(life.limit_seconds)
    errors = os.open(f"{life.report}.stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(errors, sys.stdout.fileno())
    os.dup2(errors, sys.stderr.fileno())
    try:
        settings = Settings.from_env(life.env, working_directory=Path(life.directory), user_home=Path(life.directory))
        watch = Watch(
            Path(f"{life.report}.trace"),
            life.trap,
            {"home": settings.home, "data": Path(life.directory)},
            Path(life.filler),
        )
        _limit(life)
        if life.clock_seconds:
            move_clock(life.clock_seconds)
        while life.starts_with and not Path(life.starts_with).exists():
            time.sleep(0.001)
        watch.listen_to_files()
        anyio.run(_serve, settings, life, watch)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _limit(life: Life) -> None:
    if life.max_file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (life.max_file_bytes, resource.RLIM_INFINITY))
    if life.is_ordinary and os.geteuid() == 0:
        _become_ordinary()


def _become_ordinary() -> None:
    """Give up root's power over the rights of files (Linux), for this process and those that it starts.

    It stays the same user: another one might not be allowed to read Python, or the product, where they are installed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in _POWERS_OVER_FILES:
        if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "A capability cannot be given up.")
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # For capabilities 0 to 31, then for those from 32: effective, permitted, inheritable.
    held = (ctypes.c_uint32 * 6)()
    if libc.capget(header, held):
        raise OSError(ctypes.get_errno(), "The capabilities cannot be read.")
    for place in range(3):
        held[place] &= ~sum(1 << capability for capability in _POWERS_OVER_FILES)
    if libc.capset(header, held):
        raise OSError(ctypes.get_errno(), "The capabilities cannot be set.")


async def _serve(settings: Settings, life: Life, watch: Watch) -> None:
    app = user = None
    try:
        async with anyio.create_task_group() as task_group:
            app, refusals = await _opened(settings, life, watch, task_group)
            user = User(app, life.wish, life.tries)
            user.outcome.failures += refusals
            try:
                await _carry_out(life.program, user, Desk(app), task_group)
            finally:
                task_group.cancel_scope.cancel()
    finally:
        # Not before all work has ended, as a server does it: else a ledger that is in use is not folded together.
        if app is not None and user is not None:
            with anyio.CancelScope(shield=True):
                await app.aclose()
            Path(f"{life.report}.json").write_bytes(msgspec.json.encode(user.outcome))


async def _opened(settings: Settings, life: Life, watch: Watch, task_group: TaskGroup) -> tuple[App, list[str]]:
    """Open the state directory as often as the user tries; returns the refusals until then, too."""
    refusals: list[str] = []
    for _ in range(life.tries):
        try:
            return open_app(settings, Work(task_group), lives_on=True, hook=watch), refusals
        except BatchError as error:
            refusals.append(f"{type(error).__name__}: {error}")
            await anyio.sleep(0.02)
    raise TimeoutError(f"The state directory was refused {life.tries} times: {refusals[-1]}")


async def _carry_out(program: Program, user: User, desk: Desk, task_group: TaskGroup) -> None:
    match program:
        case "place":
            await user.place()
            return
        case "watch":
            await user.collect()
            return
        case "collect":
            await user.collect()
        case "server":
            task_group.start_soon(desk.watch)
            await user.look_on()
    await user.get_it_done()


if __name__ == "__main__":
    main()
