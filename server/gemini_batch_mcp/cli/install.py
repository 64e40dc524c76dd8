"""`install`: our entry in the configuration of an assistant, shown, written, tried, and undone."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gemini_batch_mcp.cli.hosts.known import HOSTS, Host, Launch, this_system
from gemini_batch_mcp.cli.session import Session
from gemini_batch_mcp.errors import BatchError, UsageError
from gemini_batch_mcp.redaction import is_placeholder
from gemini_batch_mcp.text import plain_text

if TYPE_CHECKING:
    from gemini_batch_mcp.cli.hosts.configuration import Change

#: What stands in the path of a program that uv or pipx made for one run: it is gone with their caches.
_PASSING: Final = ("archive-v0", ".cache/uv", "uv/cache", "pipx/.cache")
_PROGRAM: Final = "gemini-batch-mcp"
_ROOTS: Final = "GEMINI_BATCH_ROOTS"


@dataclass(frozen=True, slots=True)
class _Place:
    """A host on this machine, and its file."""

    host: Host
    file: Path


@click.command()
@click.argument("host", required=False, type=click.Choice(list(HOSTS)))
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--undo", is_flag=True, help="Put back what was there before.")
@click.option(
    "--root",
    "roots",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="Directory that may be read and written; this one by default. Repeatable.",
)
@click.option("--copy-key", is_flag=True, help="Write the key itself where the host cannot refer to a variable.")
@click.option("--no-start", is_flag=True, help="Do not start the server afterwards to see whether it answers.")
@click.pass_obj
def install(
    session: Session,
    /,
    host: str | None,
    dry_run: bool,
    undo: bool,
    roots: tuple[Path, ...],
    copy_key: bool,
    no_start: bool,
) -> None:
    """Add this server to an assistant, then start it as the assistant would. Without HOST: list what is here."""
    if host is None:
        _list(session)
        return
    place = _place(session, HOSTS[host])
    if undo:
        _undo(place, dry_run=dry_run)
    else:
        _install(session, place, roots, dry_run=dry_run, copy_key=copy_key, starts=not (dry_run or no_start))


def _install(
    session: Session, place: _Place, roots: tuple[Path, ...], *, dry_run: bool, copy_key: bool, starts: bool
) -> None:
    from gemini_batch_mcp.cli.hosts import configuration

    settings = session.settings()
    key = settings.api_key
    variable = "" if settings.sandbox else key.origin if key else "GEMINI_API_KEY"
    if copy_key and key is None and not settings.sandbox:
        raise UsageError("There is no key to copy.", "Set GEMINI_API_KEY, then run this again.")
    if copy_key and key and is_placeholder(key.value) and not settings.sandbox:
        raise UsageError(
            f"{key.origin} holds {plain_text(key.value, 60)}, which whoever set it did not fill in: it is not a key.",
            f"Set {key.origin} to the key itself, then run this again.",
        )
    readable = roots or _here()
    launch = Launch(
        _command(),
        ("--sandbox",) if settings.sandbox else (),
        ((_ROOTS, os.pathsep.join(map(str, readable))),) if readable else (),
    )
    copied = key.value if copy_key and key and variable else ""
    entry = place.host.entry(launch, variable, copied)
    # What nobody asked for now yields to what is there.
    yielding = {name for name, is_asked_for in ((_ROOTS, roots), (variable, copied)) if not is_asked_for}
    change = configuration.install(place.host, place.file, entry, dry_run=dry_run, yielding=yielding)
    _show(place, change, dry_run=dry_run)
    for note in _notes(place.host, variable, change.entry or {}, copied=bool(copied), has_key=key is not None):
        click.echo(note)
    if "--sandbox" in (change.entry or {}).get("args", ()) and not settings.sandbox:
        click.echo("The entry keeps --sandbox: no order of it reaches Gemini. Take that out of its args by hand.")
    if starts:
        _try(session, place)


def _undo(place: _Place, *, dry_run: bool) -> None:
    from gemini_batch_mcp.cli.hosts import configuration

    change = configuration.undo(place.host, place.file, dry_run=dry_run)
    _show(place, change, dry_run=dry_run, is_undone=True)


def _show(place: _Place, change: "Change", *, dry_run: bool, is_undone: bool = False) -> None:
    if not change.changes:
        click.echo(f"{place.file} already has this entry; nothing was changed.")
        return
    click.echo(change.difference)
    if dry_run:
        done = "removed: nothing else is in it" if change.is_removal else "changed as above"
        click.echo(f"Nothing was written. Without --dry-run, {place.file} is {done}.")
    elif change.is_removal:
        click.echo(f"Removed {place.file}: nothing but our entry was in it.")
    elif is_undone:
        click.echo(f"Wrote {place.file}. {place.host.title} notices when it is started again.")
    else:
        kept = f" What was there is kept in {change.backup}." if change.backup else ""
        click.echo(f"Wrote {place.file}.{kept} {place.host.reload}")


def _notes(host: Host, variable: str, entry: Mapping[str, Any], *, copied: bool, has_key: bool) -> list[str]:
    notes = []
    variables = entry.get("env") or {}
    key = variables.get(variable)
    if copied:
        notes.append("The file now contains the key itself: anyone who can read the file can use it.")
    elif variable and key and not is_placeholder(str(key)):
        notes.append(f"The entry keeps the key that stands in it as {variable}; --copy-key writes another one there.")
    elif variable and not host.can_refer and not key:
        notes.append(
            f"{host.title} cannot refer to a variable, so the entry has no key: add --copy-key to write it into the "
            f"file, or add {variable} to the entry's env by hand."
        )
    elif host.name == "vscode" and variable:
        notes.append("VS Code asks for the key once, when it starts the server.")
    elif variable and not has_key:
        notes.append(f"{variable} is not set here; set it where {host.title} is started from.")
    elif variable:
        notes.append(f"The key stays in {variable}; it has to be set where {host.title} is started from.")
    if not variables.get(_ROOTS):
        notes.append("No directory of yours may be read yet: run it again with --root DIRECTORY.")
    return notes


def _try(session: Session, place: _Place) -> None:
    import anyio

    from gemini_batch_mcp.cli.hosts import configuration, trying

    entry = configuration.entry_of(place.host, place.file) or {}
    trial = anyio.run(trying.start, entry, session.env)
    if trial.failure:
        click.echo(
            f"Started as {place.host.title} starts it, the server does not answer: {trial.failure}\n"
            f"gemini-batch-mcp doctor looks for the reason; install {place.host.name} --undo takes the entry back.",
            err=True,
        )
        sys.exit(1)
    click.echo(f"Started as {place.host.title} starts it, the server answers and offers {trial.tools} tools.")


def _list(session: Session) -> None:
    from gemini_batch_mcp.cli.hosts import configuration

    for name, host in HOSTS.items():
        file = host.file(this_system(), session.user_home, session.env)
        try:
            entry = configuration.entry_of(host, file)
        except BatchError as error:
            # The other hosts are no worse for it.
            click.echo(f"{name:<15} {'cannot be looked at':<26} {error.message}")
            continue
        if entry is not None:
            finding = "has our entry"
        elif file.parent.is_dir():
            finding = "no entry yet"
        else:
            finding = "not found on this machine"
        click.echo(f"{name:<15} {finding:<26} {file}")
    click.echo(f"Next: {_PROGRAM} install HOST --dry-run shows what would change.")


def _place(session: Session, host: Host) -> _Place:
    return _Place(host, host.file(this_system(), session.user_home, session.env))


def _here() -> tuple[Path, ...]:
    """Return this directory, unless it is one of those that hold everything."""
    here = Path.cwd()
    return () if here in (Path.home(), Path(here.anchor)) else (here,)


def _command() -> str:
    """Return the program by its whole path: hosts started from a desktop know few directories.

    Raises:
        UsageError: it would not be there tomorrow.
    """
    name = _PROGRAM + (".exe" if sys.platform == "win32" else "")
    program = Path(sys.executable).with_name(name)
    if not program.exists():
        program = Path(sys.argv[0]).absolute()
    if not program.exists() or program.stem != _PROGRAM:
        raise UsageError(
            f"{_PROGRAM} was not started as a program, so there is no path to write.",
            "Install it, with uv tool install or pipx for instance, and run its own install command.",
        )
    if any(part in program.as_posix() for part in _PASSING):
        raise UsageError(
            f"{program} was made for this one run and can go away at any time.",
            "Install it first: uv tool install gemini-batch-mcp, or the path of its checkout.",
        )
    return str(program)
