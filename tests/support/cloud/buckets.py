"""Object stores for tests, reached by their real clients over HTTP: the sandbox's Cloud Storage, and moto's S3."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from socket import SHUT_RDWR, create_connection, create_server, socket
from typing import Any, Protocol

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Cloud, Settings
from support.cloud.places import BUCKET, credentials

#: What a user sets of AWS, and whatever of it this machine has set is out of the way.
AWS_ENV = {
    "AWS_ACCESS_KEY_ID": "AKIDTESTS",
    "AWS_SECRET_ACCESS_KEY": "test-secret-do-not-show",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}
_MOTO = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


class Bucket(Protocol):
    """A bucket as another program sees it."""

    @property
    def root(self) -> str:
        """How the addresses of its objects begin."""

    def put(self, name: str, content: bytes) -> str:
        """Write an object; returns its address."""

    def get(self, name: str) -> bytes:
        """Return the bytes of an object."""

    def names(self) -> list[str]:
        """The names of all objects."""

    def unfinished(self) -> int:
        """How many uploads have begun and not ended."""


@dataclass(frozen=True)
class SandboxBucket:
    """One in the sandbox."""

    sandbox: Sandbox
    root: str = f"gs://{BUCKET}/"

    def put(self, name: str, content: bytes) -> str:
        """Write an object."""
        draft = self.sandbox.cloud.objects.draft()
        draft.write_bytes(content)
        self.sandbox.cloud.objects.finish(draft, BUCKET, name, content_type="text/csv", metadata={})
        return f"{self.root}{name}"

    def get(self, name: str) -> bytes:
        """Return its bytes."""
        record = self.sandbox.state.object(f"{BUCKET}/{name}")
        assert record is not None
        return self.sandbox.cloud.objects.path(record).read_bytes()

    def names(self) -> list[str]:
        """List all."""
        return [record.name.removeprefix(f"{BUCKET}/") for record in self.sandbox.state.objects(f"{BUCKET}/")]

    def unfinished(self) -> int:
        """Count uploads that may go on."""
        return sum(session.finished is None for session in self.sandbox.cloud.objects.sessions.values())


@dataclass(frozen=True)
class S3Bucket:
    """One at moto."""

    client: Any
    name: str = "tests-bucket"

    @property
    def root(self) -> str:
        """How addresses begin."""
        return f"s3://{self.name}/"

    def put(self, name: str, content: bytes) -> str:
        """Write an object."""
        self.client.put_object(Bucket=self.name, Key=name, Body=content)
        return f"{self.root}{name}"

    def get(self, name: str) -> bytes:
        """Return its bytes."""
        return bytes(self.client.get_object(Bucket=self.name, Key=name)["Body"].read())

    def names(self) -> list[str]:
        """List all."""
        return [found["Key"] for found in self.client.list_objects_v2(Bucket=self.name).get("Contents", ())]

    def unfinished(self) -> int:
        """Count uploads in parts."""
        return len(self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ()))


@contextmanager
def moto() -> Generator[str]:
    """Start an S3 of its own; yields its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", _MOTO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **AWS_ENV}
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


def with_bucket(url: str) -> S3Bucket:
    """Make the bucket there, empty."""
    import boto3

    client: Any = boto3.session.Session().client("s3", endpoint_url=url)
    bucket = S3Bucket(client)
    with suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=bucket.name)
    for upload in client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", ()):
        client.abort_multipart_upload(Bucket=bucket.name, Key=upload["Key"], UploadId=upload["UploadId"])
    for name in bucket.names():
        client.delete_object(Bucket=bucket.name, Key=name)
    return bucket


def with_roots(settings: Settings, *addresses: str, url: str = "") -> Settings:
    """Give settings of the Gemini API with which these addresses may be used; `url` is that of Cloud Storage."""
    google = Cloud(credentials_path=str(credentials(settings.home.parent)), storage_url=url) if url else Cloud()
    return replace(settings, addresses=addresses, google=google)


class Wire:
    """A way to a service over which what is sent or answered can be cut: a plain forwarder of bytes."""

    def __init__(self, url: str) -> None:
        self._port = int(url.rpartition(":")[2])
        self._server = create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        #: After so many bytes of the next answers that are so long, one each, the connection is closed.
        self.cuts: list[int] = []
        #: Is called when an answer has been cut.
        self.on_cut: Callable[[], object] = list
        #: Is given every piece that is sent, before the service gets it.
        self.on_sent: Callable[[bytes], object] = len
        #: Once so many bytes were sent to the service in all, nothing more goes on, and `has_come` is set.
        self.hold_bytes = 0
        self.sent_bytes = 0
        self.has_come = threading.Event()
        self._connections: list[socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """End all connections, and take no more."""
        _shut(self._server)
        self._threads[0].join()
        for connection in self._connections:
            _shut(connection)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = create_connection(("127.0.0.1", self._port))
                self._connections += [near, far]
                for way in (self._send, self._answer):
                    self._threads.append(threading.Thread(target=way, args=(near, far), daemon=True))
                    self._threads[-1].start()

    def _send(self, near: socket, far: socket) -> None:
        with suppress(OSError):
            while piece := near.recv(65536):
                self.on_sent(piece)
                self.sent_bytes += len(piece)
                if self.hold_bytes and self.sent_bytes > self.hold_bytes:
                    self.has_come.set()
                    return
                far.sendall(piece)
        _shut(far)

    def _answer(self, near: socket, far: socket) -> None:
        with suppress(OSError):
            answered = 0
            while piece := far.recv(65536):
                answered += len(piece)
                if self.cuts and answered > self.cuts[0]:
                    self.cuts.pop(0)
                    self.on_cut()
                    break
                near.sendall(piece)
        _shut(near)
        _shut(far)


def _shut(connection: socket) -> None:
    # By its shutdown: another thread may wait at the same connection.
    with suppress(OSError):
        connection.shutdown(SHUT_RDWR)
    connection.close()


def local_copy(settings: Settings, name: str) -> list[Path]:
    """The copies of objects of that name in the state directory."""
    return sorted((settings.home / "copies").glob(f"*/{name}"))
