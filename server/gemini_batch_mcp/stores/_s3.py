"""S3, and what speaks its protocol, through boto3: reads of one version, and conditional writes.

Credentials, region and endpoint are the usual ones of AWS: its environment variables, profiles, roles. boto3 and not
s3fs, whose interface has no condition under which an object may be replaced.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from gemini_batch_mcp.errors import (
    AccessDenied,
    BatchError,
    ConfigurationError,
    NotFound,
    Rejected,
    StorageError,
    Unavailable,
)
from gemini_batch_mcp.stores.addresses import Address
from gemini_batch_mcp.stores.found import Found
from gemini_batch_mcp.text import plain_text, safe_text
from gemini_batch_mcp.threads import end_if_cancelled

#: What is read at once, and what of a large object is sent at once; S3 takes up to 10,000 parts of 5 MiB at least.
_PIECE_BYTES: Final = 1024**2
_PART_BYTES: Final = 16 * 1024**2
_MOST_PARTS: Final = 10_000
#: Tries of one request, and how often a cut transfer goes on without a single byte more.
_ATTEMPTS: Final = 4
_CONNECT_SECONDS: Final = 10
_READ_SECONDS: Final = 60
#: What S3 says of credentials that are not taken.
_NOT_TAKEN: Final = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
_LOG_IN: Final = (
    "Run `aws configure` (or `aws sso login`), or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in "
    "the env part of this server's entry in your MCP client's configuration."
)


class S3:
    """The store. Raises `ConfigurationError` when boto3 is not there."""

    def __init__(self) -> None:
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise ConfigurationError(
                "boto3 is not installed; s3:// needs it.",
                "Install this server with its extra: pip install 'gemini-batch-mcp[cloud]'.",
            ) from None
        with _errors("open S3"):
            self._client: Any = boto3.session.Session().client(
                "s3",
                config=Config(
                    connect_timeout=_CONNECT_SECONDS,
                    read_timeout=_READ_SECONDS,
                    retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
                ),
            )

    def look(self, address: Address) -> Found | None:
        """Return what is there; see `found.Store`."""
        try:
            with _errors(f"describe {_shown(address)}"):
                head = self._client.head_object(Bucket=address.bucket, Key=address.key)
        except NotFound:
            self._require_bucket(address)
            return None
        except (AccessDenied, Rejected):
            # The answer to a HEAD has no body, which is where it says why: that the credentials have expired, say.
            with _errors(f"describe {_shown(address)}"):
                self._client.get_object(Bucket=address.bucket, Key=address.key, Range="bytes=0-0")["Body"].close()
            raise
        sha256 = str(head.get("Metadata", {}).get("sha256", ""))
        return Found(address, str(head["ETag"]), int(head["ContentLength"]), sha256)

    def read(self, found: Found) -> Iterator[bytes]:
        """Yield its bytes; see `found.Store`."""
        position, failures = 0, 0
        while position < found.size_bytes:
            try:
                for piece in self._from(found, position):
                    position, failures = position + len(piece), 0
                    yield piece
                # A body may end early without a word.
                failures += 1
            except Unavailable:
                failures += 1
                if failures >= _ATTEMPTS:
                    raise
            if failures >= _ATTEMPTS:
                raise Unavailable(
                    f"S3 sent {position:,} of {found.size_bytes:,} bytes of {_shown(found.address)}.",
                    "Try again in a minute.",
                )

    def put(self, file: Path, address: Address, sha256: str, replaced: Found | None) -> Found | None:
        """Write a file as one object; see `found.Store`."""
        wanted = {"Bucket": address.bucket, "Key": address.key}
        condition = {"IfNoneMatch": "*"} if replaced is None else {"IfMatch": replaced.version}
        size_bytes = file.stat().st_size
        noted = {"Metadata": {"sha256": sha256}}
        try:
            with _errors(f"accept {_shown(address)}"):
                if size_bytes <= _PART_BYTES:
                    put = self._client.put_object(**wanted, **condition, **noted, Body=file.read_bytes())
                else:
                    put = self._put_parts(file, size_bytes, wanted, condition, noted)
        except _NotAsFound:
            # Somebody else's, or the reply to our own was lost.
            now = self.look(address)
            is_ours = now is not None and (now.sha256, now.size_bytes) == (sha256, size_bytes)
            return now if is_ours else None
        return Found(address, str(put["ETag"]), size_bytes, sha256)

    def _from(self, found: Found, position: int) -> Iterator[bytes]:
        address = found.address
        try:
            with _errors(f"send {_shown(address)}"):
                body = self._client.get_object(
                    Bucket=address.bucket,
                    Key=address.key,
                    IfMatch=found.version,
                    Range=f"bytes={position}-{found.size_bytes - 1}",
                )["Body"]
                with closing(body):
                    while piece := body.read(_PIECE_BYTES):
                        yield piece
        except (_NotAsFound, NotFound):
            raise StorageError(
                f"{_shown(address)} changed while it was read; nothing was submitted.",
                "Submit the order again once nothing writes to the object any more.",
            ) from None

    def _put_parts(
        self, file: Path, size_bytes: int, wanted: dict[str, str], condition: dict[str, str], noted: dict[str, Any]
    ) -> Any:
        part_bytes = max(_PART_BYTES, -(-size_bytes // _MOST_PARTS))
        upload = self._client.create_multipart_upload(**wanted, **noted)
        wanted = {**wanted, "UploadId": upload["UploadId"]}
        parts: list[dict[str, Any]] = []
        try:
            with file.open("rb") as source:
                while piece := source.read(part_bytes):
                    end_if_cancelled()
                    number = len(parts) + 1
                    sent = self._client.upload_part(**wanted, PartNumber=number, Body=piece)
                    checksums = {name: value for name, value in sent.items() if name.startswith("Checksum")}
                    checksums.pop("ChecksumType", None)
                    parts.append({"PartNumber": number, "ETag": sent["ETag"], **checksums})
            end_if_cancelled()
            return self._client.complete_multipart_upload(**wanted, **condition, MultipartUpload={"Parts": parts})
        except BaseException:
            # Else S3 keeps, and charges for, what has come.
            with _ignored():
                self._client.abort_multipart_upload(**wanted)
            raise

    def _require_bucket(self, address: Address) -> None:
        """Raise `NotFound` where it is the bucket that is not there; S3 says the same of both to who asks so."""
        with _errors(f"find the bucket {plain_text(address.bucket, 100)}"):
            self._client.head_bucket(Bucket=address.bucket)


class _NotAsFound(Rejected):
    """Something else is there than the condition says."""


@contextmanager
def _ignored() -> Iterator[None]:
    try:
        with _errors("drop an upload"):
            yield
    except BatchError:
        pass


@contextmanager
def _errors(what: str) -> Iterator[None]:
    """Turn what boto3 raises into one of our errors; its texts name addresses of requests, and are not quoted."""
    from botocore import exceptions

    try:
        yield
    except exceptions.ClientError as error:
        raise _refused(error.response, what) from None
    except (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.CredentialRetrievalError,
        exceptions.ProfileNotFound,
        exceptions.UnauthorizedSSOTokenError,
        exceptions.SSOTokenLoadError,
        exceptions.TokenRetrievalError,
    ) as error:
        raise ConfigurationError(
            f"There are no AWS credentials on this machine that can be used ({type(error).__name__}).", _LOG_IN
        ) from None
    except (exceptions.InvalidRegionError, exceptions.NoRegionError, ValueError) as error:
        raise ConfigurationError(
            f"A setting of AWS cannot be used ({type(error).__name__}).",
            "Check AWS_REGION, AWS_ENDPOINT_URL and the profile in ~/.aws/config.",
        ) from None
    except (exceptions.BotoCoreError, exceptions.HTTPClientError) as error:
        raise Unavailable(
            f"S3 could not be reached, or the transfer broke off, when asked to {what} ({type(error).__name__}).",
            "Check the network connection and try again in a minute.",
        ) from None


def _refused(reply: dict[str, Any], what: str) -> BatchError:
    status = int(reply.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = str(reply.get("Error", {}).get("Code", ""))
    said = f"{status}, {safe_text(code, 60)}" if code and code != str(status) else str(status)
    if status == 412 or code in ("PreconditionFailed", "ConditionalRequestConflict"):
        return _NotAsFound(f"S3 refused to {what} ({said}).", "Try again.", status_code=status)
    if code in _NOT_TAKEN:
        return ConfigurationError(f"The AWS credentials of this machine are not accepted ({said}).", _LOG_IN)
    if status in (401, 403):
        return AccessDenied(
            f"S3 refused to {what} ({said}).",
            "The credentials need s3:GetObject there (to save: s3:PutObject), and s3:ListBucket on the bucket, without "
            "which S3 says the same of an object that does not exist.",
            status_code=status,
        )
    if status == 404:
        return NotFound(f"S3 found nothing when asked to {what} ({said}).", "Check the address.", status_code=404)
    if code == "NotImplemented":
        return Rejected(
            f"This store cannot {what} under the condition that nothing else is replaced ({said}).",
            "Save to a file of this machine, and copy it there.",
            status_code=status,
        )
    if status in (408, 429) or status >= 500 or code in ("SlowDown", "RequestTimeout"):
        return Unavailable(f"S3 answered {said} when asked to {what}.", "Try again in a minute.", status_code=status)
    return Rejected(
        f"S3 refused to {what} ({said}).", "Check the address and the region (AWS_REGION).", status_code=status
    )


def _shown(address: Address) -> str:
    return plain_text(str(address), 200)
