"""A batch as several jobs: cut on line borders, about equal, never above a limit, and read only as it was checked."""

import hashlib
import io
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemini_batch_mcp.errors import PathError, UsageError
from gemini_batch_mcp.intake.requests.shards import Shard, ShardReader, cut, split
from support.extent import in_part, tries

FAST = settings(max_examples=tries(150, 25), suppress_health_check=[HealthCheck.function_scoped_fixture])
CHUNK_BYTES = 8 * 1024**2


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write(path: Path, content: bytes) -> dict[str, Any]:
    """Write a request file; return what is known of it."""
    path.write_bytes(content)
    count = content.count(b"\n") + (not content.endswith(b"\n"))
    return {"size_bytes": len(content), "count": count, "sha256": digest(content)}


def check(shards: tuple[Shard, ...], content: bytes) -> list[bytes]:
    """Return the bytes of each shard, after checking that they are the file and are described rightly."""
    parts = [content[shard.first_byte : shard.first_byte + shard.size_bytes] for shard in shards]
    rows = content.split(b"\n")[: -1 if content.endswith(b"\n") else None]
    assert b"".join(parts) == content
    assert [shard.number for shard in shards] == list(range(1, len(shards) + 1))
    assert all(part.endswith(b"\n") for part in parts[:-1])
    for shard, part in zip(shards, parts, strict=True):
        assert part.removesuffix(b"\n").split(b"\n") == rows[shard.first_row : shard.first_row + shard.count]
        assert (shard.size_bytes, shard.sha256) == (len(part), digest(part))
    return parts


LINES = st.lists(st.integers(0, 40), min_size=1, max_size=60)


@in_part
@FAST
@given(
    sizes=LINES,
    ends=st.booleans(),
    max_bytes=st.integers(42, 400),
    max_tokens=st.none() | st.integers(1, 100),
    tokens_per_byte=st.sampled_from([0.0, 0.25, 1.7]),
    max_rows=st.none() | st.integers(1, 9),
)
def test_any_file_is_cut_on_line_borders_below_every_limit(
    tmp_path: Path,
    sizes: list[int],
    ends: bool,
    max_bytes: int,
    max_tokens: int | None,
    tokens_per_byte: float,
    max_rows: int | None,
) -> None:
    content = b"\n".join(b"x" * (size + 1) for size in sizes)[:-1] + (b"\n" if ends else b"x")
    path = tmp_path / "requests.jsonl"
    shards = cut(
        path,
        **write(path, content),
        max_bytes=max_bytes,
        max_tokens=max_tokens,
        tokens_per_byte=tokens_per_byte,
        max_rows=max_rows,
    )

    check(shards, content)
    for shard in shards:
        assert shard.count and shard.size_bytes <= max_bytes
        assert shard.count <= (max_rows or 60)
        assert shard.input_tokens == round(shard.size_bytes * tokens_per_byte)
        assert shard.count == 1 or max_tokens is None or shard.size_bytes * tokens_per_byte <= max_tokens


def test_five_gigabytes_at_two_become_three_equal_jobs(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    content = b"".join(b'{"key":"row-%05d"}%s\n' % (number, b" " * (number % 7)) for number in range(20_000))
    shards = cut(path, **write(path, content), max_bytes=len(content) * 2 // 5, max_tokens=None, tokens_per_byte=0.25)

    sizes = [len(part) for part in check(shards, content)]
    assert len(sizes) == 3
    assert max(sizes) - min(sizes) < 100


def test_tokens_and_rows_decide_as_well_as_bytes(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    content = b"x" * 99 + b"\n"
    known = write(path, content * 1000)
    wide: dict[str, Any] = {"max_bytes": 10**9, "tokens_per_byte": 0.5}

    assert [shard.count for shard in cut(path, **known, **wide, max_tokens=20_000)] == [334, 333, 333]
    assert [shard.count for shard in cut(path, **known, **wide, max_tokens=None, max_rows=300)] == [250] * 4
    assert len(cut(path, **known, **wide, max_tokens=0)) == 1000


def test_a_line_above_the_tokens_of_a_job_is_a_job_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    small, large = b"x" * 9 + b"\n", b"y" * 499 + b"\n"
    content = small * 30 + large + small * 10 + large
    shards = cut(path, **write(path, content), max_bytes=10**9, max_tokens=100, tokens_per_byte=1.0)

    parts = check(shards, content)
    assert parts.count(large) == 2
    assert all(len(part) <= 100 for part in parts if b"y" not in part)


def test_a_line_above_the_bytes_of_a_file_is_refused_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    known = write(path, b"x\n" * 5 + b"y" * 300 + b"\n" + b"x\n" * 5)

    with pytest.raises(UsageError, match=r"Line 6 of requests\.jsonl has 301 bytes; a batch file has at most 200"):
        cut(path, **known, max_bytes=200, max_tokens=None, tokens_per_byte=0.25)


def test_what_fits_one_job_is_not_read(tmp_path: Path) -> None:
    shards = cut(
        tmp_path / "not there",
        size_bytes=2_000_000_000,
        count=7,
        sha256="c0ffee",
        max_bytes=2_000_000_000,
        max_tokens=500_000_000,
        tokens_per_byte=0.25,
        max_rows=7,
    )

    assert shards == (Shard(1, 0, 7, 0, 2_000_000_000, "c0ffee", 500_000_000),)


def test_a_hash_that_is_not_known_is_computed(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    known = write(path, b"a\nb") | {"sha256": ""}

    [shard] = cut(path, **known, max_bytes=100, max_tokens=None, tokens_per_byte=0.25)

    assert shard == Shard(1, 0, 2, 0, 3, digest(b"a\nb"), 1)


def test_shards_of_long_lines_over_many_blocks_are_whole(tmp_path: Path) -> None:
    choose = random.Random(5)
    content = b"".join(bytes([97 + number % 26]) * choose.choice([10, 5000, 3_000_000]) + b"\n" for number in range(30))
    path = tmp_path / "requests.jsonl"
    shards = cut(path, **write(path, content), max_bytes=7_000_000, max_tokens=None, tokens_per_byte=0.25)

    assert all(len(part) <= 7_000_000 for part in check(shards, content))


@pytest.mark.parametrize(
    "changed",
    [b"a\nb\nX\n", b"a\nb\n", b"a\n\nbc\n", b"a", b"abcdef", b""],
    ids=["another byte", "shorter", "another count", "one line", "no line end", "empty"],
)
def test_a_file_that_changed_since_it_was_checked_is_refused(tmp_path: Path, changed: bytes) -> None:
    path = tmp_path / "requests.jsonl"
    known = write(path, b"a\nb\nc\n")
    path.write_bytes(changed)

    for sha256 in (known["sha256"], "") if changed.count(b"\n") != 3 else (known["sha256"],):
        with pytest.raises(UsageError, match=r"requests\.jsonl has changed since it was checked; these lines were not"):
            cut(path, **known | {"sha256": sha256}, max_bytes=10, max_tokens=4, tokens_per_byte=1.0)


def test_what_was_added_to_a_file_after_its_check_belongs_to_no_shard(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    known = write(path, b"a\nb\nc\n")
    path.write_bytes(b"a\nb\nc\nd\n")

    shards = cut(path, **known, max_bytes=4, max_tokens=None, tokens_per_byte=0.25)

    assert [shard.size_bytes for shard in shards] == [4, 2]


def test_a_line_too_long_for_any_request_is_no_checked_line(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    known = write(path, b"a\n" + b"x" * (21 * 1024**2) + b"\nb\n")

    with pytest.raises(UsageError, match="has changed since it was checked"):
        cut(path, **known, max_bytes=10**6, max_tokens=None, tokens_per_byte=0.25)


def test_a_shard_is_split_into_smaller_ones(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    content = b"".join(b'{"key":"%05d"}\n' % number for number in range(3000))
    [_, shard, _] = cut(path, **write(path, content), max_bytes=16_000, max_tokens=None, tokens_per_byte=1.0)

    parts = split(path, shard, max_tokens=6_000, tokens_per_byte=1.0)

    assert [part.number for part in parts] == [1, 2, 3]
    assert sum(part.count for part in parts) == shard.count == 1000
    assert parts[0].first_row == shard.first_row == 1000
    assert parts[0].first_byte == shard.first_byte
    whole = content[shard.first_byte : shard.first_byte + shard.size_bytes]
    assert b"".join(content[part.first_byte : part.first_byte + part.size_bytes] for part in parts) == whole
    assert [part.input_tokens for part in parts] == [part.size_bytes for part in parts]
    path.write_bytes(content.replace(b"01500", b"0150O"))
    with pytest.raises(UsageError, match="has changed"):
        split(path, shard, max_tokens=6_000, tokens_per_byte=1.0)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    shard = Shard(1, 0, 1, 0, 5, "", 0)
    for path in (tmp_path / "gone.jsonl", tmp_path):
        with pytest.raises(PathError, match="cannot be read"):
            split(path, shard, max_tokens=1, tokens_per_byte=1.0)
        with pytest.raises(PathError, match="cannot be read"):
            ShardReader(path, shard)


def shards_of(path: Path, content: bytes, max_bytes: int) -> tuple[Shard, ...]:
    return cut(path, **write(path, content), max_bytes=max_bytes, max_tokens=None, tokens_per_byte=0.25)


@in_part
@FAST
@given(sizes=LINES, read_bytes=st.integers(1, 300))
def test_the_readers_of_all_shards_hand_out_the_file(tmp_path: Path, sizes: list[int], read_bytes: int) -> None:
    content = b"".join(b"x" * size + b"\n" for size in sizes)
    path = tmp_path / "requests.jsonl"
    handed = []
    for shard in shards_of(path, content, 120):
        with ShardReader(path, shard) as reader:
            handed += list(iter(lambda: reader.read(read_bytes), b""))

    assert b"".join(handed) == content


def test_a_large_shard_is_read_in_whole_chunks_and_again_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    content = b"".join(b"%07d" % number + b"x" * 992 + b"\n" for number in range(40_000))
    _, shard = shards_of(path, content, len(content) * 2 // 3)
    expected = content[shard.first_byte :]
    with ShardReader(path, shard) as reader:
        assert reader.readable() and reader.seekable()
        assert reader.read(10) == expected[:10]
        assert reader.seek(0) == 0
        chunks = list(iter(lambda: reader.read(CHUNK_BYTES), b""))
        assert b"".join(chunks) == expected
        assert [len(chunk) for chunk in chunks[:-1]] == [CHUNK_BYTES] * 2
        assert reader.read(1) == b""
        reader.seek(0)
        assert reader.read() == expected
        reader.seek(0)
        buffer = bytearray(1000)
        assert reader.readinto(buffer) == 1000 and buffer == expected[:1000]
        for offset, whence in ((1, os.SEEK_SET), (0, os.SEEK_END)):
            with pytest.raises(io.UnsupportedOperation):
                reader.seek(offset, whence)
    reader.close()


@pytest.mark.parametrize("at", [0.0, 0.5, 0.999999])
@pytest.mark.parametrize("size", [100, 30_000_000])
def test_the_last_bytes_of_a_changed_shard_are_never_handed_out(tmp_path: Path, at: float, size: int) -> None:
    path = tmp_path / "requests.jsonl"
    content = (b"x" * 99 + b"\n") * (size // 100)
    [shard] = shards_of(path, content, size)
    with path.open("r+b") as file:
        file.seek(int(size * at))
        file.write(b"y")

    handed = 0
    with ShardReader(path, shard) as reader:
        with pytest.raises(UsageError, match=r"requests\.jsonl has changed since it was checked; these lines were not"):
            while data := reader.read(CHUNK_BYTES):
                handed += len(data)
        assert handed <= size - size % CHUNK_BYTES
        with pytest.raises(UsageError, match="has changed"):
            reader.read(1)


def test_a_shard_that_lost_its_end_is_refused_and_one_that_grew_is_not(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    content = (b"x" * 99 + b"\n") * 100
    first, second = shards_of(path, content, 5_000)
    path.write_bytes(content[:9_000])
    with ShardReader(path, second) as reader, pytest.raises(UsageError, match="has changed"):
        reader.read()
    with ShardReader(path, first) as reader:
        assert reader.read() == content[:5_000]
    path.write_bytes(content + b"more\n")
    with ShardReader(path, second) as reader:
        assert reader.read() == content[5_000:]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens and cannot be read")
def test_a_disk_that_fails_while_it_is_read_is_said() -> None:
    path, shard = Path(f"/proc/{os.getpid()}/mem"), Shard(1, 0, 1, 0, 10, "", 0)

    with ShardReader(path, shard) as reader, pytest.raises(PathError, match="mem cannot be read: Input/output error"):
        reader.read()
    with pytest.raises(PathError, match="mem cannot be read: Input/output error"):
        split(path, shard, max_tokens=5, tokens_per_byte=1.0)
