"""What doctor finds, each by the real thing, and the one command that mends it."""

import ast
import json
import runpy
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import gemini_batch_mcp
from gemini_batch_mcp.cli.checks import machine, service
from gemini_batch_mcp.cli.doctor import examine
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import Unavailable
from gemini_batch_mcp.gemini.developer._space import space
from gemini_batch_mcp.gemini.developer.gateway import Gateway, RetryPolicy
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import LEAST_FREE_BYTES, Settings
from support.conversation import Run, desk_of, request_file
from support.services import MovedClock

KEY = "test-key-do-not-show"


def findings(run: Run, **env: str) -> dict[str, tuple[bool, str]]:
    """What doctor finds with these variables, by the name of the check."""
    done = run("doctor", "--json", env=env, sandbox=False)
    assert not done.stderr
    checks = json.loads(done.stdout)["checks"]
    assert done.returncode == (0 if all(check["ok"] for check in checks) else 1)
    assert KEY not in done.stdout
    return {check["name"]: (check["ok"], check["finding"]) for check in checks}


@pytest.mark.parametrize(
    ("env", "name", "is_ok", "said"),
    [
        ({"GEMINI_API_KEY": ""}, "key", False, "set GEMINI_API_KEY"),
        (
            {"GEMINI_API_KEY": "${GEMINI_API_KEY}"},
            "key",
            False,
            "holds ${GEMINI_API_KEY}, which whoever started this did not fill in. Write the key itself in its place: "
            "export GEMINI_API_KEY=YOUR_KEY",
        ),
        ({"GOOGLE_API_KEY": "${env:GOOGLE_API_KEY}"}, "key", True, "from GEMINI_API_KEY"),
        ({"GOOGLE_API_KEY": "another-key-of-mine"}, "key", True, "not used. To use it: unset GOOGLE_API_KEY"),
        ({"GEMINI_API_KEY": "invalid-key-of-mine"}, "gemini", False, "Check the key in GEMINI_API_KEY"),
        (
            {"GEMINI_BATCH_MODEL": "gemini-2.5-flsh"},
            "model",
            False,
            "choose one that does: export GEMINI_BATCH_MODEL=gemini-2.5-flash",
        ),
        ({"GEMINI_BATCH_ROOTS": "/proc"}, "root", False, "/proc can't be read and written"),
        ({"GEMINI_BATCH_ROOTS": "/nowhere/at all"}, "root", False, "mkdir -p '/nowhere/at all'"),
        ({"GEMINI_BATCH_ROOTS": "/etc/passwd"}, "root", False, "/etc/passwd is a file; name a directory"),
        ({"GEMINI_BATCH_ROOTS": "s3://bucket/a/"}, "root", True, "s3://bucket/a/ (not looked at until it is used)"),
        (
            {"GEMINI_BATCH_MAX_COST_US": "3"},
            "settings",
            False,
            "GEMINI_BATCH_MAX_COST_US isn't a setting and changes nothing; did you mean GEMINI_BATCH_MAX_COST_USD?",
        ),
        ({"GEMINI_BATCH_MAX_COST_USD": "3"}, "spending", True, "refuses beyond $3.00"),
        ({}, "spending", True, "no cap for one order (GEMINI_BATCH_MAX_COST_USD)"),
        ({"GEMINI_BATCH_PRICES": "/nowhere.json"}, "prices", False, "names nowhere.json, which cannot be used"),
        ({"GEMINI_BATCH_HOME": "/dev/null/home"}, "state", False, "GEMINI_BATCH_HOME"),
    ],
)
def test_a_fault_is_told_with_the_command_that_mends_it(
    run: Run, at_port: dict[str, str], env: dict[str, str], name: str, is_ok: bool, said: str
) -> None:
    ok, finding = findings(run, **(at_port | env))[name]
    assert ok is is_ok
    assert said in finding


class _Refusing(BaseHTTPRequestHandler):
    """A proxy that wants a password."""

    def do_CONNECT(self) -> None:
        self.send_error(407)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def _serving(tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server on a port of its own, with TLS or without; gives the port."""
    server = HTTPServer(("127.0.0.1", 0), _Refusing)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]  # it is refused
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_proxy_that_refuses_is_told_without_its_password(run: Run, data: Path) -> None:
    with _serving() as port:
        found = findings(
            run,
            GEMINI_API_KEY=KEY,
            GOOGLE_GEMINI_BASE_URL="https://gemini.invalid",
            HTTPS_PROXY=f"http://me:hunter2hunter2@127.0.0.1:{port}",
        )
    assert not found["gemini"][0]
    assert "The proxy refused to let a request through" in found["gemini"][1]
    assert f"the proxy of HTTPS_PROXY (127.0.0.1:{port}). To try without it: env -u HTTPS_PROXY" in found["gemini"][1]
    assert "hunter2" not in str(found)


def test_a_certificate_that_nobody_knows_is_told_as_one(run: Run, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "certificate.pem"
    file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(file)
    with _serving(tls) as port:
        found = findings(run, GEMINI_API_KEY=KEY, GOOGLE_GEMINI_BASE_URL=f"https://127.0.0.1:{port}")
    assert not found["gemini"][0]
    assert "is not trusted here" in found["gemini"][1]
    assert "SSL_CERT_FILE" in found["gemini"][1]


@pytest.mark.anyio
async def test_an_address_that_cannot_be_looked_up_is_told_as_that(settings: Settings) -> None:
    gateway = Gateway.open(replace(settings, base_url="http://nowhere.invalid"), retry=RetryPolicy(attempts=1))
    with pytest.raises(Unavailable, match="address could not be looked up"):
        await gateway.list_models()
    await gateway.aclose()


@pytest.mark.anyio
async def test_a_clock_that_is_wrong_and_storage_that_is_nearly_full_are_told(
    settings: Settings, sandbox: Sandbox, data: Path, service_clock: MovedClock
) -> None:
    async with desk_of(settings, sandbox) as desk:
        await desk.place_order(Order(source=request_file(data)))
        gateway = desk.app.gateway
        assert isinstance(gateway, Gateway)
        files = await gateway.stored_files()
    report = await examine(settings, sandbox.transport, data, {})
    found = {check.name: check for check in report.checks}
    assert found["clock"].ok
    assert found["storage"].ok
    assert found["storage"].finding == "1 files take 0.0 GB of the 20 GB that a project has"
    full = space(files, allowed_bytes=files[0].size_bytes)
    assert not full.is_good
    assert full.text.endswith("gemini-batch-mcp delete BATCH")

    service_clock.move(-600)
    report = await examine(settings, sandbox.transport, data, {})
    (clock,) = [check for check in report.checks if check.name == "clock"]
    assert not clock.ok
    assert "clock is 10 minutes ahead of Google's" in clock.finding
    assert service.clock(-7200, "windows")[0].finding.endswith("w32tm /resync")


def test_a_directory_on_another_machine_and_a_full_disk_are_told() -> None:
    mounts = (
        "22 1 254:0 / / rw - ext4 /dev/vda rw\n30 22 0:50 / /home/me\\040too rw shared:1 - nfs4 server:/home rw\n"
        "31 22 0:51 / /homestead rw - tmpfs none rw\nnot a line\n"
    )
    kinds = {
        path: machine.file_system(Path(path), mounts)
        for path in ("/home/me too/state", "/home/me", "/homestead/a", "/tmp")
    }
    assert kinds == {"/home/me too/state": "nfs4", "/home/me": "ext4", "/homestead/a": "tmpfs", "/tmp": "ext4"}
    remote = machine.judged_disk(Path("/home/me"), 10**12, "nfs4")
    assert not remote.ok
    assert "is on nfs4" in remote.finding
    full = machine.judged_disk(Path("/home/me"), LEAST_FREE_BYTES - 1, "ext4")
    assert not full.ok
    assert "only 268 MB are free where /home/me is" in full.finding
    assert machine.judged_disk(Path("/home/me"), 5 * 10**9, "ext4").finding == "5.0 GB free"


def test_another_version_on_the_path_is_told_and_so_is_whether_it_comes_first(tmp_path: Path) -> None:
    places = {}
    for name, said in (("old", "echo gemini-batch-mcp, version 0.0.9"), ("broken", "exit 3")):
        program = tmp_path / name / "gemini-batch-mcp"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{said}\n")
        program.chmod(0o755)
        places[name] = program
    first, second = machine.other_versions({"PATH": f"{tmp_path / 'old'}:{tmp_path / 'broken'}:{tmp_path / 'old'}"})
    assert (first.ok, second.ok) == (False, True)
    assert first.finding.startswith(f"{places['old']} is version 0.0.9 and comes first on the PATH")
    assert first.finding.endswith(f"rm {places['old']}")
    assert "does not start" in second.finding
    assert machine.other_versions({"PATH": str(Path(sys.executable).parent)}) == []


def test_an_older_python_is_told_and_which_one_it_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has to understand the file that says so; the others have syntax that it does not know."""
    main = Path(gemini_batch_mcp.__file__).with_name("__main__.py")
    ast.parse(main.read_text(encoding="utf-8"), feature_version=(3, 7))
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or newer.*uv tool install --python 3\.13"):
        runpy.run_path(str(main), run_name="__main__")
