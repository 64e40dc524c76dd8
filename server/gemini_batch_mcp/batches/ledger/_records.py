"""Between rows of the database and the values of `entries.py`."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import msgspec

from gemini_batch_mcp.batches.ledger.entries import BatchEntry, JobEntry, Lack, NewBatch, Stage
from gemini_batch_mcp.domain import JobError, JobState, Order, RowCounts
from gemini_batch_mcp.intake.prices.estimate import Estimate


def batch_entry(row: Mapping[Any, Any], jobs: tuple[JobEntry, ...]) -> BatchEntry:
    """Return the batch that a row of `batches` describes."""
    return BatchEntry(
        id=row["id"],
        order_sha256=row["order_sha256"],
        display_name=row["display_name"],
        model=row["model"],
        task=row["task"],
        delivery=row["delivery"],
        source=row["source"],
        created_at=row["created_at"].replace(tzinfo=UTC),
        request_count=row["request_count"],
        size_bytes=row["size_bytes"],
        request_sha256=row["request_sha256"],
        is_ours=row["is_ours"],
        warnings=tuple(json.loads(row["warnings"])),
        failure=row["failure"],
        jobs=jobs,
        order=msgspec.convert(json.loads(row["order_json"]), Order) if row["order_json"] else None,
        content_sha256=row["content_sha256"],
        request_path=row["request_path"],
        estimate=msgspec.convert(json.loads(row["estimate_json"]), Estimate) if row["estimate_json"] else None,
    )


def batch_values(new: NewBatch, batch_id: str) -> dict[str, Any]:
    """Return the row of a batch that is being reserved."""
    return {
        "id": batch_id,
        "order_sha256": new.order_sha256,
        "display_name": new.display_name,
        "model": new.model,
        "task": new.task,
        "delivery": new.delivery,
        "source": new.source,
        "is_ours": new.is_ours,
        "created_at": datetime.now(UTC),
        # As ASCII: text that a client sent may hold half a surrogate pair, which the database does not take.
        "order_json": json.dumps(asdict(new.order)) if new.order is not None else "",
        "content_sha256": new.content_sha256,
        "estimate_json": json.dumps(asdict(new.estimate)) if new.estimate is not None else "",
    }


def job_entry(row: Mapping[Any, Any]) -> JobEntry:
    """Return the job that a row of `jobs` describes."""
    return JobEntry(
        id=row["id"],
        batch_id=row["batch_id"],
        shard=row["shard"],
        attempt=row["attempt"],
        stage=Stage(row["stage"]),
        state=JobState(row["state"]),
        wire_state=row["wire_state"],
        name=row["name"] or "",
        uploaded_file=row["uploaded_file"],
        responses_file=row["responses_file"],
        request_count=row["request_count"],
        counts=RowCounts(row["rows_total"], row["rows_succeeded"], row["rows_failed"], row["rows_pending"]),
        error=JobError(row["error_code"], row["error_message"]) if row["error_message"] else None,
        created_at=utc(row["created_at"]),
        ended_at=utc(row["ended_at"]),
        answers_digest=row["answers_digest"],
        model=row["model"],
        first_row=row["first_row"],
        first_byte=row["first_byte"],
        size_bytes=row["size_bytes"],
        sha256=row["sha256"],
        input_tokens=row["input_tokens"],
        wait_reason=row["wait_reason"],
        wait_until=utc(row["wait_until"]),
        waits=row["waits"],
        moved_at=utc(row["moved_at"]),
        lack=Lack(row["lack"]),
        looks=row["looks"],
        look_again_at=utc(row["look_again_at"]),
        seen_digest=row["seen_digest"],
        answer_count=row["answer_count"],
    )


def utc(value: datetime | None) -> datetime | None:
    """Return a time from the database, which keeps no zone, as what it is: UTC."""
    return value.replace(tzinfo=UTC) if value is not None else None
