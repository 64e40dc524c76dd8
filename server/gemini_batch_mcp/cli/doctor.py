"""Is everything in place? One check after the other, each with what is wrong and the command that mends it."""

import sys
from collections.abc import Mapping
from pathlib import Path

import click

from gemini_batch_mcp.batches.opening import TransportFactory, lazy_desk
from gemini_batch_mcp.cli.checks import machine, service
from gemini_batch_mcp.cli.checks.finding import Check, Report
from gemini_batch_mcp.cli.hosts.known import HOSTS, this_system
from gemini_batch_mcp.cli.session import Session, transport_for
from gemini_batch_mcp.errors import BatchError
from gemini_batch_mcp.settings import Settings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def doctor(session: Session, as_json: bool) -> None:
    """Look for what keeps an order from working, and say what mends it. Exit code 1 when something is wrong."""
    import anyio

    from gemini_batch_mcp.cli import console

    settings = session.settings()
    report = anyio.run(examine, settings, transport_for(settings), session.user_home, session.env)
    console.show_report(report, as_json=as_json)
    if not report.ok:
        sys.exit(1)


async def examine(
    settings: Settings, transport: TransportFactory | None, user_home: Path, env: Mapping[str, str]
) -> Report:
    """Look at versions, key, hosts, directories, ledger and Gemini; nothing changes, but the state directory is made.

    Hosts keep their files below `user_home`, unless `env` says otherwise.
    """
    proxies = service.proxy(settings, env)
    checks = [machine.versions(), *machine.other_versions(env), service.key(settings), service.unknown_fields(settings)]
    checks += machine.named_settings(settings, env)
    checks += await _hosts(user_home, env)
    async with lazy_desk(settings, transport) as lazy:
        try:
            desk = await lazy.get()
        except BatchError as error:
            return Report([*checks, Check("state", False, str(error))])
        checks.append(machine.state(settings, desk.app.taken_back, desk.app.unknown_directories()))
        checks.append(machine.disk(settings.home))
        checks += machine.roots(settings)
        gateway = desk.app.gateway
        name = "google cloud" if gateway.service.is_cloud else "gemini"
        try:
            await gateway.check_access()
            models = await gateway.list_models()
            checks += [service.reached(name, settings, models), service.model(settings, models)]
            found = await gateway.findings()
            if gateway.warehouse is not None:
                # What was counted in tables is kept there.
                found += await gateway.warehouse.findings(is_used=(settings.home / "remote").is_dir())
            checks += [Check(finding.name, finding.is_good, finding.text) for finding in found]
        except BatchError as error:
            checks.append(service.unreached(name, error, proxies))
        return Report([*checks, *service.clock(gateway.clock_ahead_seconds(), this_system())])


async def _hosts(user_home: Path, env: Mapping[str, str]) -> list[Check]:
    """Look at the assistants that have an entry for this server: whether it starts as they start it."""
    from gemini_batch_mcp.cli.hosts import configuration, trying

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
