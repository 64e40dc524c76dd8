"""Everything that can be configured: read once from a mapping, checked, frozen, and handed on.

Names and defaults are the contract of the README's settings table. A command-line flag wins over the environment;
`cli/main.py` does that by laying its flags over the mapping it passes in.
"""

import os
import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, TypeVar, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

from platformdirs import user_data_path

from gemini_batch_mcp.errors import ConfigurationError
from gemini_batch_mcp.redaction import Secrets, is_placeholder

#: The service tier that calls ask for which are answered at once: half price and patience, or neither.
Tier = Literal["flex", "standard"]

T = TypeVar("T")
D = TypeVar("D")

#: One batch input file (ai.google.dev/gemini-api/docs/batch-api and …/docs/files, read 2026-08): 2 GB.
MAX_FILE_BYTES: Final = 2 * 1000**3
#: One create call with inlined requests, whole body (the same guide, read 2026-09): below 20 MB.
MAX_INLINE_CREATE_BYTES: Final = 20 * 1000**2
#: Rows of an order that is answered now, one call each (our choice): a trial, not a bulk.
MAX_NOW_ROWS: Final = 200
#: One request line (our choice): users met undocumented caps at tens of MB, and no answer to such a row is known.
MAX_LINE_BYTES: Final = 20 * 1024**2
#: One line of answers (our choice): several images of a model's largest size, as base64.
MAX_ANSWER_LINE_BYTES: Final = 48 * 1024**2
#: Values in a line of answers that is longer than the next: 64,000 tokens are far fewer.
MAX_ANSWER_VALUES: Final = 600_000
MAX_UNSEEN_LINE_BYTES: Final = 4 * 1024**2
#: JSON of one answer that is checked against a schema, in characters: 64,000 tokens are a fifth of it.
MAX_JUDGED_CHARS: Final = 2 * 1024**2
#: Files of one answer that are written.
MAX_ANSWER_FILES: Final = 1000
#: A reply of the service that is no download, unpacked: a page of 1,000 jobs, or the answers of an inlined batch.
MAX_REPLY_BYTES: Final = 48 * 1024**2
#: What it may hold: a number takes 32 bytes of memory, an object some hundred.
MAX_REPLY_VALUES: Final = 3_000_000
MAX_REPLY_OBJECTS: Final = 300_000
#: What a packed source may unpack to (our choice): as much as the Files API keeps of a project.
MAX_UNPACKED_BYTES: Final = 20 * 1000**3
#: How many times its size that may be, once it is more than the next: tables of the same words over and over pack to a
#: hundredth, bombs to less than a five-hundredth.
MAX_UNPACKED_RATIO: Final = 300
MAX_UNSEEN_UNPACKED_BYTES: Final = 256 * 1024**2
#: What unpacking leaves free on the disk.
LEAST_FREE_BYTES: Final = 256 * 1024**2
#: What the process that reads a spreadsheet may take (our choice).
SHEET_MEMORY_BYTES: Final = 1024 * 1024**2
#: What an engine may take, whatever it is given. A process has two at the most, and some 150 MB of its own.
ENGINE_MEMORY_BYTES: Final = 384 * 1024**2
#: From here on the user is asked before anything is submitted (our choice).
CONFIRM_ABOVE_USD: Final = 1.0
#: The variable, not what it holds.
_TOKEN: Final = "GEMINI_BATCH_HTTP_TOKEN"  # noqa: S105
#: The API version that every batch and file document shows. SDK 3.x would use v1 if it were not pinned.
API_VERSION: Final = "v1beta"
#: Where a user gets a key.
KEYS_PAGE: Final = "https://aistudio.google.com/apikey"
#: How roots begin that are no directories.
_REMOTE: Final = ("s3://", "gs://", "bq://")
#: Variables in which the HTTP client looks for a proxy; in small letters as well.
PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@dataclass(frozen=True, slots=True)
class Secret:
    """An API key and the name of the setting it came from. It never shows itself.

    `hides` names a setting that holds another key, which is not used.
    """

    value: str
    origin: str
    hides: str = ""

    def __repr__(self) -> str:
        return f"Secret(from {self.origin})"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable, for the README, `doctor` and the manifests."""

    name: str
    description: str
    default: str = ""
    is_secret: bool = False
    format: str = "string"


@dataclass(frozen=True, slots=True)
class Limit:
    """What this server takes up to a size, for the README: of what, how much, and what is said beyond."""

    subject: str
    amount: str
    said: str


LIMITS: Final = (
    Limit(
        "Memory of the database engine, while rows are rendered or answers become a table",
        f"{ENGINE_MEMORY_BYTES:,} bytes",
        "`… needs more memory than is allowed`; of one answer: a failed row, `the table engine cannot load its line`",
    ),
    Limit(
        "A request, and a line of a source", f"{MAX_LINE_BYTES:,} bytes", "`Row 2 becomes a request of …, more than …`"
    ),
    Limit(
        "A packed source, unpacked",
        f"{MAX_UNPACKED_BYTES:,} bytes; beyond {MAX_UNSEEN_UNPACKED_BYTES:,}, {MAX_UNPACKED_RATIO:,} times its size",
        "`… unpacks to more than … bytes, and was not unpacked any further`",
    ),
    Limit(
        "Memory of the process that reads a spreadsheet",
        f"{SHEET_MEMORY_BYTES:,} bytes",
        "`… needs more memory than is allowed`",
    ),
    Limit(
        "A line of answers",
        f"{MAX_ANSWER_LINE_BYTES:,} bytes",
        "a failed row: `its answer has more than … bytes in one line, which is not read`",
    ),
    Limit(
        f"Values in a line of answers of more than {MAX_UNSEEN_LINE_BYTES:,} bytes",
        f"{MAX_ANSWER_VALUES:,}",
        "a failed row: `its answer has … bytes and more than … values, which are not read`",
    ),
    Limit(
        "JSON of an answer, checked against a schema",
        f"{MAX_JUDGED_CHARS:,} characters",
        "a failed row: `does not fit the response schema: the answer has … characters; up to … are checked`",
    ),
    Limit(
        "Images and sound in an answer",
        f"{MAX_ANSWER_FILES:,} files",
        "a failed row: `the answer carries … files; the first … are written`",
    ),
    Limit(
        "A reply from Gemini that isn't a download, decompressed",
        f"{MAX_REPLY_BYTES:,} bytes; {MAX_REPLY_VALUES:,} values; {MAX_REPLY_OBJECTS:,} objects and lists",
        "`Gemini's answer has more than …, so the rest was not read`",
    ),
)

SETTINGS: Final = (
    Setting("GEMINI_API_KEY", f"Gemini API key; create one at {KEYS_PAGE}.", is_secret=True),
    Setting(
        "GOOGLE_API_KEY", "Gemini API key under its other name; takes precedence when both are set.", is_secret=True
    ),
    Setting("GOOGLE_GEMINI_BASE_URL", "Another Gemini-compatible endpoint.", "Google's"),
    Setting(
        "GOOGLE_GENAI_USE_ENTERPRISE",
        "1 runs batches on Google Cloud (Vertex AI) with the credentials of the machine instead of a key; needs the "
        "extra vertex.",
        "0",
        format="boolean",
    ),
    Setting("GOOGLE_GENAI_USE_VERTEXAI", "The same under its older name.", "0", format="boolean"),
    Setting("GOOGLE_CLOUD_PROJECT", "Project that batches on Google Cloud belong to."),
    Setting("GOOGLE_CLOUD_LOCATION", "Location that batches on Google Cloud run in.", "global"),
    Setting("GEMINI_BATCH_BUCKET", "Cloud Storage bucket for requests and answers of batches on Google Cloud."),
    Setting(
        "GOOGLE_APPLICATION_CREDENTIALS",
        "File with credentials for Google Cloud.",
        "what gcloud auth application-default login has left, or the machine's own",
        format="filepath",
    ),
    Setting("GOOGLE_VERTEX_BASE_URL", "Another endpoint in place of Vertex AI's.", "Google's"),
    Setting("STORAGE_EMULATOR_HOST", "Another endpoint in place of Cloud Storage's.", "Google's"),
    Setting("BIGQUERY_EMULATOR_HOST", "Another endpoint in place of BigQuery's.", "Google's"),
    Setting("GEMINI_BATCH_MODEL", "Model for orders that don't name one.", "gemini-3-flash-preview"),
    Setting("GEMINI_BATCH_HOME", "Directory for ledger and results.", "a per-user data directory", format="filepath"),
    Setting(
        "GEMINI_BATCH_ROOTS",
        "Directories that may be read and written, separated as in PATH; also s3://bucket/path/ and gs://bucket/path/ "
        "(extra cloud), and on Google Cloud bq://project.dataset, to be read.",
        "the working directory, unless that is / or the home directory, and <home>/files",
    ),
    Setting("GEMINI_BATCH_SANDBOX", "1 uses the embedded Gemini service: no key, no cost.", "0", format="boolean"),
    Setting("GEMINI_BATCH_READ_ONLY", "1 offers assistants only the read-only tools.", "0", format="boolean"),
    Setting(
        "GEMINI_BATCH_POLL_SECONDS", "First pause between two checks of a job; 1 in the sandbox.", "15", format="number"
    ),
    Setting(
        "GEMINI_BATCH_RECONCILE_SECONDS",
        "How long to search for a job whose create call got no reply before its state is reported as unknown.",
        "30",
        format="number",
    ),
    Setting("GEMINI_BATCH_MAX_FILE_BYTES", "Largest request file to send.", str(MAX_FILE_BYTES), format="number"),
    Setting(
        "GEMINI_BATCH_MAX_ENQUEUED_TOKENS",
        "Input tokens that may wait at Gemini for one model. Google sets this by the usage tier of the Google Cloud "
        "project that your API key belongs to; Google AI Studio shows the tier.",
        "the highest tier's; lowered after a quota refusal",
        format="number",
    ),
    Setting(
        "GEMINI_BATCH_CONFIRM_ABOVE_USD",
        "Orders that may cost more are submitted only after the user has agreed: by the bound of what is likely where "
        "there is one, else by the upper estimate.",
        "1.00; the sandbox never asks",
        format="number",
    ),
    Setting(
        "GEMINI_BATCH_MAX_COST_USD",
        "Most that one batch may cost, by its upper estimate; no tool argument overrides it.",
        "no limit",
        format="number",
    ),
    Setting(
        "GEMINI_BATCH_PRICES",
        "JSON file with prices that replace or extend the built-in ones.",
        "the built-in prices",
        format="filepath",
    ),
    Setting(
        "GEMINI_BATCH_UNKNOWN",
        "What becomes of members and enum values of a request that neither this server nor the installed google-genai "
        "knows: warn passes them on with a warning, refuse refuses them.",
        "warn",
    ),
    Setting(
        "GEMINI_BATCH_NOW_TIER",
        "What orders with delivery=now pay: flex, the batch price for answers in minutes, or standard, twice that for "
        "answers at once.",
        "flex",
    ),
    Setting(
        _TOKEN,
        "What clients of `serve --transport http` send as a bearer token; required if other machines may connect.",
        is_secret=True,
    ),
)


@dataclass(frozen=True, slots=True)
class Cloud:
    """Batches on Google Cloud: where they run, and where their requests and answers lie. Empty for what is not set."""

    project: str = ""
    location: str = "global"
    bucket: str = ""
    credentials_path: str = ""
    base_url: str = ""
    storage_url: str = ""
    warehouse_url: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one process. Times are seconds and may be fractional; sizes are bytes."""

    home: Path
    #: The user's directory inside the state directory: a root unless other roots are set; made when it is missing.
    files: Path
    roots: tuple[Path, ...]
    working_directory: Path
    api_key: Secret | None = None
    base_url: str = ""
    #: None for the Gemini Developer API.
    cloud: Cloud | None = None
    #: The same in any case: what lies in Cloud Storage is no matter of the API.
    google: Cloud = field(default_factory=Cloud)
    #: Beginnings of `s3://…`, `gs://…` and `bq://…` that are roots, each with the sign that ends it.
    addresses: tuple[str, ...] = ()
    model: str = "gemini-3-flash-preview"
    sandbox: bool = False
    read_only: bool = False
    poll_seconds: float = 15.0
    reconcile_seconds: float = 30.0
    max_file_bytes: int = MAX_FILE_BYTES
    #: For one model, over all jobs; None for the built-in limits.
    max_enqueued_tokens: int | None = None
    #: None asks for nothing.
    confirm_above_usd: float | None = None
    #: None for no limit; 0 lets nothing through that costs anything.
    max_cost_usd: float | None = None
    #: A file in the form of `intake/prices.json`, laid over it.
    prices_path: Path | None = None
    #: What nobody here knows is refused, not passed on to Gemini.
    refuse_unknown: bool = False
    #: The service tier of rows that are answered now.
    now_tier: Tier = "flex"
    #: What a client has to send over HTTP; None lets in whoever reaches this machine's own ports.
    http_token: Secret | None = None
    #: What else the environment has that nobody is to see: a second key, passwords of proxies.
    other_secrets: tuple[Secret, ...] = ()

    @property
    def secrets(self) -> Secrets:
        """All that is to be cut out of whatever leaves or stays."""
        held = (self.api_key, self.http_token, *self.other_secrets)
        return Secrets.of(secret.value for secret in held if secret is not None)

    @classmethod
    def from_env(cls, env: Mapping[str, str], *, working_directory: Path, user_home: Path) -> "Settings":
        """Read the settings out of `env`.

        Raises:
            ConfigurationError: a value cannot be understood; the message names the variable.
        """
        home = _absolute(env, "GEMINI_BATCH_HOME", "directory") or user_data_path("gemini-batch-mcp", appauthor=False)
        sandbox = _value(env, "GEMINI_BATCH_SANDBOX", _boolean, False)
        return cls(
            # A sandbox order must never be taken for the real one, so the two have ledgers of their own.
            home=home / "sandbox" if sandbox else home,
            files=home / "files",
            roots=_roots(env, home, working_directory, user_home),
            working_directory=working_directory,
            api_key=_key(env),
            base_url=env.get("GOOGLE_GEMINI_BASE_URL", "").strip(),
            cloud=_cloud(env) if _on_cloud(env) else None,
            google=_cloud(env),
            addresses=_addresses(env),
            model=env.get("GEMINI_BATCH_MODEL", "").strip() or "gemini-3-flash-preview",
            sandbox=sandbox,
            read_only=_value(env, "GEMINI_BATCH_READ_ONLY", _boolean, False),
            poll_seconds=_value(env, "GEMINI_BATCH_POLL_SECONDS", _positive, 1.0 if sandbox else 15.0),
            reconcile_seconds=_value(env, "GEMINI_BATCH_RECONCILE_SECONDS", _not_negative, 30.0),
            max_file_bytes=int(_value(env, "GEMINI_BATCH_MAX_FILE_BYTES", _positive, float(MAX_FILE_BYTES))),
            max_enqueued_tokens=_value(env, "GEMINI_BATCH_MAX_ENQUEUED_TOKENS", _whole, None),
            # The sandbox costs nothing; a threshold that is set holds there too, to rehearse with.
            confirm_above_usd=_value(
                env, "GEMINI_BATCH_CONFIRM_ABOVE_USD", _not_negative, None if sandbox else CONFIRM_ABOVE_USD
            ),
            max_cost_usd=_value(env, "GEMINI_BATCH_MAX_COST_USD", _not_negative, None),
            prices_path=_absolute(env, "GEMINI_BATCH_PRICES", "file"),
            refuse_unknown=_value(env, "GEMINI_BATCH_UNKNOWN", _refuses, False),
            now_tier=_value(env, "GEMINI_BATCH_NOW_TIER", _tier, "flex"),
            http_token=Secret(token, _TOKEN) if (token := env.get(_TOKEN, "").strip()) else None,
            other_secrets=tuple(_secrets(env)),
        )


def secrets_of(env: Mapping[str, str]) -> Secrets:
    """Return what nobody is to see of an environment, also where its settings cannot be read."""
    return Secrets.of(secret.value for secret in _secrets(env))


def _secrets(env: Mapping[str, str]) -> Iterator[Secret]:
    for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY", _TOKEN, "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        yield Secret(env.get(name, "").strip(), name)
    addresses = ("GOOGLE_GEMINI_BASE_URL", "GOOGLE_VERTEX_BASE_URL", "STORAGE_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST")
    for name in (*addresses, *PROXIES, *map(str.lower, PROXIES)):
        try:
            address = urlsplit(env.get(name, "").strip())
        except ValueError:
            continue
        for value in (address.password, *(value for _, value in parse_qsl(address.query))):
            for form in {value or "", unquote(value or "")}:
                yield Secret(form, name)
        if address.password:
            # As it is sent: the name of the user is no secret, the two together are.
            both = f"{unquote(address.username or '')}:{unquote(address.password)}"
            yield Secret(b64encode(both.encode()).decode(), name)


def _key(env: Mapping[str, str]) -> Secret | None:
    """Return the key in the SDK's own order of precedence: GOOGLE_API_KEY, then GEMINI_API_KEY."""
    found = [
        Secret(value, name) for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY") if (value := env.get(name, "").strip())
    ]
    # One that nobody filled in does not stand before one that somebody did.
    found = [secret for secret in found if not is_placeholder(secret.value)] or found
    if len(found) == 2 and found[0].value != found[1].value:
        return replace(found[0], hides=found[1].origin)
    return found[0] if found else None


def _on_cloud(env: Mapping[str, str]) -> bool:
    """True where batches run on Google Cloud. As in the SDK, the newer name wins."""
    older = _value(env, "GOOGLE_GENAI_USE_VERTEXAI", _boolean, False)
    return _value(env, "GOOGLE_GENAI_USE_ENTERPRISE", _boolean, older)


def _cloud(env: Mapping[str, str]) -> Cloud:
    def text(name: str) -> str:
        return env.get(name, "").strip()

    return Cloud(
        project=text("GOOGLE_CLOUD_PROJECT"),
        location=text("GOOGLE_CLOUD_LOCATION") or "global",
        bucket=text("GEMINI_BATCH_BUCKET").removeprefix("gs://").strip("/"),
        credentials_path=text("GOOGLE_APPLICATION_CREDENTIALS"),
        base_url=text("GOOGLE_VERTEX_BASE_URL"),
        storage_url=text("STORAGE_EMULATOR_HOST"),
        warehouse_url=text("BIGQUERY_EMULATOR_HOST"),
    )


def _value(env: Mapping[str, str], name: str, parse: Callable[[str], T], default: D) -> T | D:
    text = env.get(name, "").strip()
    if not text:
        return default
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{name} is {text[:80]!r}, which is not {error}.", f"Correct {name} or unset it."
        ) from None


def _boolean(text: str) -> bool:
    match text.lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
        case _:
            raise ValueError("one of 1, 0, true, false, yes, no, on, off")


def _refuses(text: str) -> bool:
    if text.lower() not in ("warn", "refuse"):
        raise ValueError("warn or refuse")
    return text.lower() == "refuse"


def _tier(text: str) -> Tier:
    tiers: tuple[Tier, ...] = get_args(Tier)
    for tier in tiers:
        if text.lower() == tier:
            return tier
    raise ValueError("flex or standard")


def _number(text: str, lowest: float, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(what) from None
    if not lowest <= number < float("inf"):
        raise ValueError(what)
    return number


def _positive(text: str) -> float:
    number = _number(text, 0.0, "a number above 0")
    if number == 0.0:
        raise ValueError("a number above 0")
    return number


def _whole(text: str) -> int:
    return max(1, int(_positive(text)))


def _not_negative(text: str) -> float:
    return _number(text, 0.0, "a number of 0 or more")


def _absolute(env: Mapping[str, str], name: str, kind: str) -> Path | None:
    text = env.get(name, "").strip()
    if not text:
        return None
    path = Path(os.path.expanduser(text))  # noqa: PTH111 -- Path raises for a user whom nobody knows
    if not path.is_absolute():
        raise ConfigurationError(f"{name} is {text[:80]!r}, a relative path.", f"Give the {kind}'s absolute path.")
    return path


def _parts(text: str) -> list[str]:
    """Return what stands in a value like PATH; the colon of `gs://` separates nothing."""
    return [part for part in re.split(rf"{re.escape(os.pathsep)}(?!//)", text) if part.strip()]


def _addresses(env: Mapping[str, str]) -> tuple[str, ...]:
    parts = [part for part in _parts(env.get("GEMINI_BATCH_ROOTS", "").strip()) if part.startswith(_REMOTE)]
    if bare := next((part for part in parts if not part.partition("://")[2].strip("/.")), ""):
        raise ConfigurationError(f"GEMINI_BATCH_ROOTS holds {bare!r}, which names nothing.", "Name what may be used.")
    return tuple(part.rstrip("/.") + ("." if part.startswith("bq://") else "/") for part in parts)


def _roots(env: Mapping[str, str], home: Path, working_directory: Path, user_home: Path) -> tuple[Path, ...]:
    parts = [part for part in _parts(env.get("GEMINI_BATCH_ROOTS", "").strip()) if not part.startswith(_REMOTE)]
    if not parts:
        files = home / "files"
        wide = {Path(working_directory.anchor), user_home.resolve()}
        return (files,) if working_directory.resolve() in wide else (working_directory.resolve(), files)
    roots = tuple(Path(os.path.expanduser(part)) for part in parts)  # noqa: PTH111 -- as above
    for root in roots:
        if not root.is_absolute():
            raise ConfigurationError(
                f"GEMINI_BATCH_ROOTS holds {str(root)!r}, a relative path.", "Give absolute paths only."
            )
    return tuple(root.resolve() for root in roots)
