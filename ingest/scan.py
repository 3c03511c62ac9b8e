"""One pass over a file's bytes, before any parser: what it is, and how many records it holds."""

import csv
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from ingest.errors import FileRefused

CHUNK_BYTES = 1 << 20
DELIMITERS = ",;\t|"
UTF8_BOM = b"\xef\xbb\xbf"
OTHER_FORMATS = {
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "Parquet",
}


@dataclass(frozen=True)
class Scan:
    """What the bytes of one CSV file say.

    `file_id` is the SHA-256 of the bytes as delivered, `size` their number, `modified_us` the
    modification time in microseconds since 1970 (UTC). `header` holds the column names as the
    file spells them, on `header_lines` physical lines out of `lines`; `line_end` is the byte that
    ends a line (LF, or CR in a file without LF). `records` is the number of records after the
    header, counted by line ends outside quotes; `quoted_line_ends` are the others. `is_regular`
    tells that this count holds and that the fast reader takes every record as it stands: quotes in
    balance with no space beside them, as many delimiters as such records have, one kind of line
    end, no NUL, no blank line.
    """

    file_id: str
    size: int
    modified_us: int
    encoding: str
    delimiter: str
    header: tuple[str, ...]
    header_lines: int
    line_end: bytes
    lines: int
    records: int
    quoted_line_ends: int
    is_regular: bool


def file_stamp(path: Path) -> tuple[int, int]:
    """Return a file's size in bytes and its modification time in microseconds since 1970."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns // 1000


def scan_file(path: Path) -> Scan:
    """Read a file once, in constant memory but for one byte per line and stray quote.

    Raises FileRefused for a file that is not CSV text or whose header cannot be read, and OSError
    where it cannot be opened.
    """
    size, modified_us = file_stamp(path)
    if not path.is_file():
        raise FileRefused("is not a regular file")
    digest = hashlib.sha256()
    structure: list[bytes] = []
    delimiters = 0
    is_quoted = has_nul = has_blank_line = has_space_at_quote = False
    before = b"\n"
    with path.open("rb") as stream:
        start = chunk = stream.read(CHUNK_BYTES)
        _refuse_other_formats(start)
        line_end = b"\r" if b"\r" in start and b"\n" not in start else b"\n"
        header, header_lines, delimiter = _read_header(start, line_end, is_whole=len(start) == size)
        mark = delimiter.encode()
        # Without all other bytes, records and fields can be counted; a pair of quotes that then
        # has nothing between holds none of these marks.
        not_marks = bytes(set(range(256)) - set(b'"\r\n' + mark))
        space_at_quote = re.compile(b'(?:["\r\n%b]|^) +"|" +(?:[\r\n%b]|$)' % (mark, mark))
        while chunk:
            digest.update(chunk)
            marks = chunk.translate(None, not_marks).replace(b'""', b"")
            parts = marks.split(b'"')
            delimiters += sum(part.count(mark) for part in parts[is_quoted::2])
            is_quoted ^= len(parts) % 2 == 0
            structure.append(marks.translate(None, mark).replace(b'""', b""))
            seamless = before + chunk
            has_nul = has_nul or b"\0" in chunk
            has_blank_line = has_blank_line or any(
                blank in seamless for blank in (b"\n\n", b"\n\r\n", b"\r\r")
            )
            has_space_at_quote = has_space_at_quote or (
                (b' "' in seamless or b'" ' in seamless) and bool(space_at_quote.search(seamless))
            )
            before = seamless[-2:]
            chunk = stream.read(CHUNK_BYTES)
    marks = b"".join(structure)
    returns, pairs, feeds = (marks.count(mark) for mark in (b"\r", b"\r\n", b"\n"))
    one_kind_of_line_end = returns == 0 or feeds == 0 or returns == pairs == feeds
    unended = int(size > 0 and not before.endswith(line_end))
    line_ends_outside, line_ends_inside = _count_by_quoting(marks, line_end)
    records = max(line_ends_outside + unended - 1, 0)
    return Scan(
        file_id=digest.hexdigest(),
        size=size,
        modified_us=modified_us,
        encoding="utf-8-sig" if start.startswith(UTF8_BOM) else "utf-8",
        delimiter=delimiter,
        header=header,
        header_lines=header_lines,
        line_end=line_end,
        lines=marks.count(line_end) + unended,
        records=records,
        quoted_line_ends=line_ends_inside,
        is_regular=(
            not is_quoted
            and delimiters == (records + 1) * (len(header) - 1)
            and one_kind_of_line_end
            and not (has_nul or has_blank_line or has_space_at_quote)
        ),
    )


def _refuse_other_formats(start: bytes) -> None:
    for magic, name in OTHER_FORMATS.items():
        if start.startswith(magic):
            raise FileRefused(f"holds {name}: expected CSV text in UTF-8; unpack or convert it")


def _count_by_quoting(marks: bytes, line_end: bytes) -> tuple[int, int]:
    """Count the line ends outside and inside quotes."""
    parts = marks.split(b'"')
    outside = sum(part.count(line_end) for part in parts[::2])
    return outside, marks.count(line_end) - outside


def _read_header(
    start: bytes, line_end: bytes, *, is_whole: bool
) -> tuple[tuple[str, ...], int, str]:
    """Return the column names, the number of physical lines they take, and the delimiter."""
    if not start:
        raise FileRefused("is empty: expected a line with the column names")
    text = start.removeprefix(UTF8_BOM).decode(errors="surrogateescape")
    lines = text.split(line_end.decode())
    unquoted = re.sub('"[^"]*("|$)', "", lines[0])
    delimiter = max(DELIMITERS, key=unquoted.count)
    reader = csv.reader((line + "\n" for line in lines), delimiter=delimiter, strict=True)
    try:
        header = tuple(next(reader))
    except csv.Error as error:
        raise FileRefused(f"line 1: the header cannot be read as CSV: {error}") from None
    if reader.line_num == len(lines) and not is_whole:
        raise FileRefused(f"line 1: the header does not end within {CHUNK_BYTES:,} bytes")
    if not header:
        raise FileRefused("line 1: found a blank line, expected the column names")
    if any(character == "\0" or "\udc80" <= character <= "\udcff" for character in "".join(header)):
        raise FileRefused("line 1: the header is not valid UTF-8 text: save the file as UTF-8")
    return header, reader.line_num, delimiter
