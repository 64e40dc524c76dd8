"""Is everything in place? One check after the other, each with a finding that says what to do."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import click

from gemini_batch_mcp import __version__
from gemini_batch_mcp.batches.opening import TransportFactory, lazy_desk
from gemini_batch_mcp.cli.session import Session, transport_for
from gemini_batch_mcp.errors import BatchError
from gemini_batch_mcp.settings import API_VERSION, KEYS_PAGE, Settings


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    finding: str


@dataclass(frozen=True, slots=True)
class Report:
    """All checks, in the order in which they were made."""

    checks: Sequence[Check]

    @property
    def ok(self) -> bool:
        """True when nothing stands in the way of an order."""
        return all(check.ok for check in self.checks)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def doctor(session: Session, as_json: bool) -> None:
    """Check the key, the directories, that Gemini answers, and the versions. Exit code 1 when something is wrong."""
    import anyio

    from gemini_batch_mcp.cli import console

    settings = session.settings()
    report = anyio.run(examine, settings, transport_for(settings), Path.home(), session.env)
    console.show_report(report, as_json=as_json)
    if not report.ok:
        sys.exit(1)


async def examine(
    settings: Settings, transport: TransportFactory | None, user_home: Path, env: Mapping[str, str]
) -> Report:
    """Look at versions, key, hosts, directories, ledger and Gemini; nothing changes, but the state directory is made.

    Hosts keep their files below `user_home`, unless `env` says otherwise.
    """
    checks = [_versions(), _key(settings), _unknown(settings), *await _hosts(user_home, env)]
    async with lazy_desk(settings, transport) as lazy:
        try:
            desk = await lazy.get()
        except BatchError as error:
            return Report([*checks, Check("state", False, str(error))])
        checks.append(_state(settings, desk.app.taken_back, desk.app.unknown_directories()))
        checks += [_root(root) for root in settings.roots]
        gateway = desk.app.gateway
        name = "google cloud" if gateway.service.is_cloud else "gemini"
        try:
            await gateway.check_access()
            models = await gateway.list_models()
            checks += [Check(found.name, found.is_good, found.text) for found in await gateway.findings()]
        except BatchError as error:
            return Report([*checks, Check(name, False, str(error))])
    where = _where(settings)
    able = [model.name.removeprefix("models/") for model in models if model.batch_methods]
    checks.append(Check(name, True, f"{where} answers; {len(models)} models, {len(able)} support batches"))
    known = settings.model in able
    finding = settings.model if known else f"{settings.model} is not one of the models that support batches"
    return Report([*checks, Check("model", known, finding)])


def _where(settings: Settings) -> str:
    if settings.sandbox:
        return "the embedded sandbox"
    if settings.cloud is not None:
        return f"{settings.cloud.base_url or 'Google'}, project {settings.cloud.project}, {settings.cloud.location},"
    return (settings.base_url or "Google") + f", API {API_VERSION}"


def _versions() -> Check:
    parts = [f"{name} {version(name)}" for name in ("mcp", "google-genai", "duckdb")]
    python = ".".join(str(number) for number in sys.version_info[:3])
    return Check("version", True, f"gemini-batch-mcp {__version__}, Python {python}, {', '.join(parts)}")


def _key(settings: Settings) -> Check:
    if settings.sandbox:
        return Check("key", True, "not needed in the sandbox")
    if settings.cloud is not None:
        return Check("key", True, "not used: batches run on Google Cloud, with the credentials of this machine")
    if settings.api_key is None:
        return Check(
            "key", False, f"none; get one at {KEYS_PAGE} and set GEMINI_API_KEY, or try --sandbox, which needs none"
        )
    hidden = settings.api_key.hides
    besides = f", which takes precedence; the other key, in {hidden}, is not used" if hidden else ""
    return Check("key", True, f"from {settings.api_key.origin}{besides}")


async def _hosts(user_home: Path, env: Mapping[str, str]) -> list[Check]:
    """Look at the assistants that have an entry for this server: whether it starts as they start it."""
    from gemini_batch_mcp.cli.hosts import configuration, trying
    from gemini_batch_mcp.cli.hosts.known import HOSTS, this_system

    checks = []
    for host in HOSTS.values():
        file = host.file(this_system(), user_home, env)
        try:
            entry = configuration.entry_of(host, file)
        except BatchError as error:
            checks.append(Check("host", False, str(error)))
            continue
        if entry is None:
            continue
        trial = await trying.start(entry, env)
        finding = f"{host.title} starts it from {file}; it offers {trial.tools} tools"
        if trial.failure:
            finding = (
                f"{host.title} cannot start it: {trial.failure}. gemini-batch-mcp install {host.name} corrects the "
                f"entry in {file}"
            )
        checks.append(Check("host", not trial.failure, finding))
    return checks


def _unknown(settings: Settings) -> Check:
    becomes = "refused" if settings.refuse_unknown else "sent to Gemini as it is, with a warning"
    finding = (
        f"a field of a request or a setting that neither this version nor google-genai {version('google-genai')} "
        f"knows is {becomes}"
    )
    return Check("new fields", True, finding)


def _state(settings: Settings, taken_back: Sequence[str], unknown: Sequence[str]) -> Check:
    finding = str(settings.home)
    if taken_back:
        finding += f"; the ledger had lost {', '.join(taken_back)}: just restored from their directories"
    if unknown:
        finding += (
            f"; the ledger has no record of {', '.join(unknown[:5])}, and their directories do not hold enough to "
            "restore them: put an earlier ledger.sqlite3 back, or remove them"
        )
    return Check("state", not unknown, finding)


def _root(root: Path) -> Check:
    if root.is_dir():
        usable = os.access(root, os.R_OK | os.W_OK)
        return Check("root", usable, str(root) if usable else f"{root} can't be read and written")
    return Check("root", False, f"{root} isn't a directory; correct GEMINI_BATCH_ROOTS")
