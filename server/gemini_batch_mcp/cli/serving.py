"""The commands that start something: the MCP server, the embedded service on a port, a demo that talks to a server."""

import sys
from functools import partial
from pathlib import Path
from typing import Final

import click

from gemini_batch_mcp.cli import ending
from gemini_batch_mcp.cli.session import Session, transport_for
from gemini_batch_mcp.processes import loading
from gemini_batch_mcp.settings import Settings

#: Checking, hashing and uploading a large order take turns with the calls beside it, and a call takes many. With the
#: usual 5 ms each, a tenth of the looks beside 200 MB took 350 to 580 ms on two busy cores, with this 250 to 300.
_TURN_SECONDS: Final = 0.0005


@click.command()
@click.option("--transport", type=click.Choice(["stdio", "http"]), default="stdio", show_default=True)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Beyond this machine, GEMINI_BATCH_HTTP_TOKEN is required."
)
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="0 picks a free port.")
@click.option("--allowed-host", multiple=True, help="Host name that a proxy in front uses for this server.")
@click.option("--sandbox", is_flag=True, help="Use the embedded Gemini service: no key, no cost.")
@click.option("--read-only", is_flag=True, help="Offer only the read-only tools.")
@click.pass_obj
def serve(
    session: Session,
    transport: str,
    host: str,
    port: int,
    allowed_host: tuple[str, ...],
    sandbox: bool,
    read_only: bool,
) -> None:
    """Serve MCP on stdio or HTTP."""
    chosen = {"GEMINI_BATCH_SANDBOX": sandbox, "GEMINI_BATCH_READ_ONLY": read_only}
    settings = session.settings(**{name: "1" for name, is_set in chosen.items() if is_set})
    if transport == "stdio":
        serve_stdio(settings)
    else:
        serve_http(settings, host, port, allowed_host)


@click.command()
@click.option("--port", required=True, type=click.IntRange(0, 65535), help="0 picks a free port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--seconds-per-job", default=10.0, show_default=True, type=click.FloatRange(min=0), help="How long a job runs."
)
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), help="Where it keeps files and jobs.")
@click.pass_obj
def sandbox(session: Session, port: int, host: str, seconds_per_job: float, directory: Path | None) -> None:
    """Run the embedded Gemini Batch service on a port, for any SDK."""
    from gemini_batch_mcp.sandbox.app import Sandbox, serve
    from gemini_batch_mcp.sandbox.config import ByTime, SandboxConfig

    place = directory or session.settings(GEMINI_BATCH_SANDBOX="1").home / "service"
    sys.setswitchinterval(_TURN_SECONDS)
    service = Sandbox(place, SandboxConfig(pace=ByTime(seconds_per_job)))
    serve(service, host=host, port=port, on_ready=lambda url: click.echo(f"Sandbox at {url}", err=True))


@click.command()
@click.option("--live", is_flag=True, help="Use Gemini itself, with your key; costs a fraction of a cent.")
@click.option("--rows", default=40, show_default=True, type=click.IntRange(5, 10_000), help="Rows to send.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("gemini-batch-demo"),
    show_default=True,
    help="Where the demo puts its input and its results.",
)
@click.pass_obj
def demo(session: Session, /, live: bool, rows: int, directory: Path) -> None:
    """Watch a whole batch conversation over a real stdio MCP server, in the sandbox unless --live."""
    import anyio

    from gemini_batch_mcp.cli.demo import run_demo

    anyio.run(run_demo, directory.resolve(), rows, live, session.env)


def serve_stdio(settings: Settings) -> None:
    """Serve MCP on stdio until the input ends."""
    sys.setswitchinterval(_TURN_SECONDS)
    with loading():
        from gemini_batch_mcp.assistant.drop.pages import DropPages
        from gemini_batch_mcp.assistant.server import build_server
        from gemini_batch_mcp.assistant.transports.stdio import over_stdio

        pages = DropPages(settings, may_open=True)
        server = build_server(settings, transport=transport_for(settings), warm_up=True, pages=pages)
    ending.run(partial(over_stdio, server, ending.leave_soon))
    ending.leave(0)


def serve_http(settings: Settings, host: str, port: int, allowed: tuple[str, ...]) -> None:
    """Serve MCP on a port until a signal comes.

    Raises:
        ConfigurationError: the port cannot be had.
        click.UsageError: others would reach it without a token.
    """
    with loading():
        from gemini_batch_mcp.assistant.drop.pages import DropPages
        from gemini_batch_mcp.assistant.server import build_server
        from gemini_batch_mcp.assistant.transports import http
        from gemini_batch_mcp.assistant.transports.visitors import LOOPBACK, Visitors

    token = settings.http_token.value if settings.http_token is not None else ""
    if host not in LOOPBACK and not token:
        raise click.UsageError(
            f"--host {host} lets other machines in, and GEMINI_BATCH_HTTP_TOKEN is not set. "
            "Set it to a long random text that your clients send, or leave out --host."
        )
    listening = http.listen(host, port)
    sys.setswitchinterval(_TURN_SECONDS)
    # Whoever comes from another machine, through a proxy as well, would find a page of this one under that address.
    pages = DropPages(settings, may_open=host in LOOPBACK and not allowed)
    server = build_server(settings, transport=transport_for(settings), warm_up=True, pages=pages)
    said = f"Serving MCP (Streamable HTTP) at {listening.url}. Stop it with Ctrl-C."
    click.echo(said, err=True)
    click.echo(f"For your client: {http.client_configuration(listening.url, with_token=bool(token))}", err=True)
    ending.run(partial(http.over_http, server, listening, Visitors.of(host, allowed, token)))


SERVING_COMMANDS: Final = (serve, sandbox, demo)
