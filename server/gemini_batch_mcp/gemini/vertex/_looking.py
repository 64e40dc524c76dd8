"""BigQuery looked at before anything is ordered from it: each finding ends with the one command that mends it."""

import re
import shlex
from collections.abc import Sequence
from typing import Any, Final

from gemini_batch_mcp.errors import AccessDenied, BatchError, ConfigurationError, NotFound
from gemini_batch_mcp.gemini.service import Finding
from gemini_batch_mcp.text import plain_text

SERVICE: Final = "bigquery"
_DATASET: Final = "dataset"
#: A dataset as `GEMINI_BATCH_ROOTS` names it, with or without a table's beginning behind; a project may have a domain.
_NAMED: Final = re.compile(r"bq://(?P<project>(?:[a-z0-9.-]+:)?[a-z0-9-]+)\.(?P<dataset>[A-Za-z0-9_]+)(?:\.|$)")
#: What Google says of a service that nobody has switched on in a project.
_SWITCHED_OFF: Final = re.compile(r"has not been used in project|is disabled", re.IGNORECASE)
_ONLY_FOR_TABLES: Final = "Only orders from bq://… need it. "


def datasets_of(prefixes: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return project and dataset of each `bq://project.dataset` that may be read beside the project's own."""
    found = (_NAMED.match(prefix) for prefix in prefixes)
    return tuple(dict.fromkeys((named["project"], named["dataset"]) for named in found if named is not None))


def member_of(credentials: Any) -> str:
    """Return who these credentials stand for, as part of a command: a service account, or whoever gcloud knows."""
    email = str(getattr(credentials, "service_account_email", "") or "")
    if re.fullmatch(r"[\w.+-]+@[\w.-]+", email):
        return f"serviceAccount:{email}"
    return "user:$(gcloud config get-value account)"


def can_run(project: str, *, has_datasets: bool) -> Finding:
    """Say that statements can run."""
    unsure = "whether tables may be made in one shows with the first order from it"
    named = "" if has_datasets else f". No bq://project.dataset is in GEMINI_BATCH_ROOTS: {unsure}"
    return Finding(
        SERVICE,
        True,
        f"statements can run in project {_shown(project)}: one was priced by a dry run, which bills nothing{named}",
    )


def cannot_run(error: BatchError, project: str, member: str, *, is_used: bool) -> Finding:
    """Say why none can run, which is a fault only where tables are ordered from."""
    text = str(error)
    if isinstance(error, AccessDenied):
        enable = f"gcloud services enable bigquery.googleapis.com --project={shlex.quote(project)}"
        grant = (
            f'gcloud projects add-iam-policy-binding {shlex.quote(project)} --member="{member}" '
            "--role=roles/bigquery.jobUser"
        )
        mended = enable if _SWITCHED_OFF.search(error.message) else grant
        text = f"{error.message} {'' if is_used else _ONLY_FOR_TABLES}To allow it: {mended}"
    elif isinstance(error, ConfigurationError) and not is_used:
        text = f"{error.message} {_ONLY_FOR_TABLES}{error.next_step}"
    return Finding(SERVICE, not is_used, text)


def found(project: str, dataset: str, location: str) -> Finding:
    """Say that a dataset is there, and what no call tells."""
    return Finding(
        _DATASET,
        True,
        f"{_shown(project)}.{dataset} is there, in {_shown(location)}. Whether its tables may be read, and others be "
        "made beside them, shows with the first order: no call tells that makes nothing",
    )


def not_found(error: BatchError, project: str, dataset: str, member: str) -> Finding:
    """Say why a dataset that the settings name cannot be used."""
    text = str(error)
    if isinstance(error, NotFound):
        name = shlex.quote(f"{project}:{dataset}")
        made = f"bq mk --dataset --location=US {name}"
        text = f"there is no {_shown(project)}.{dataset}. To make it, where the data is: {made}"
    elif isinstance(error, AccessDenied):
        grant = rf"GRANT \`roles/bigquery.dataEditor\` ON SCHEMA \`{project}.{dataset}\` TO '{member}'"
        text = f'{error.message} To allow it: bq query --use_legacy_sql=false "{grant}"'
    return Finding(_DATASET, False, text)


def _shown(name: str) -> str:
    return plain_text(name, 100)
