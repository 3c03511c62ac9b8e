"""JSON lines as text: one object per line, each value as the file writes it.

A string is taken as what it says, a number, true and false as they are written, an object or list
as its JSON text; null is null, and so is a name that an object does not have.
"""

import json
import re
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from ingest.errors import FileRefused
from ingest.landing import JSON_LINES, LandedFile, Place
from ingest.read import BATCH_ROWS, MAX_RECORD_BYTES, PIECE_BYTES, Job, Reading, Reject, shown
from ingest.scan import Scan, encoding_by_mark
from ingest.unpack import CHUNK_BYTES, UTF8, UTF8_BOM, as_utf8, compression_of, open_csv

SPACE = "[ \t\r\n]*"
TEXT = r'"([^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*)"'
NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
# One member of an object: its name, and its value as a string, a plain word, or where one begins.
MEMBER = re.compile(
    f"{SPACE}{TEXT}{SPACE}:{SPACE}(?:{TEXT}|({NUMBER}(?![0-9.eE])|true|false|null)|(?=[\\[{{]))"
)
START, NEXT, END = (re.compile(f"{SPACE}{sign}{SPACE}") for sign in (r"\{", ",", r"\}"))


class _Broken(Exception):
    """A line is no JSON object; the message says why."""


def _no_number(text: str) -> str:
    raise ValueError(f"{text} is no JSON value")


NESTED = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_no_number)


def scan_json_lines(file: LandedFile) -> Scan:
    """Read a file of JSON lines once: its hash, its records, and the names of all members.

    A record is a line that is not blank. Raises FileRefused for a line that cannot be held in
    memory and for text in another encoding, and OSError where the file cannot be opened.
    """
    stamp = file.stamp
    compression = compression_of(file.path)
    encoding = encoding_by_mark(file, compression)
    names: dict[str, None] = {}
    count = records = 0
    with open_csv(file, compression) as stream:
        for line in _lines(stream, encoding):
            count += 1
            if line.strip():
                records += 1
                try:
                    names.update(dict.fromkeys(_parse(line)))
                except _Broken:
                    continue
        file_id = stream.digest.hexdigest()
    return Scan(
        file_id=file_id,
        place=Place.of(file.name, stamp, compression),
        encoding=encoding,
        header=tuple(names),
        lines=count,
        records=records,
        form=JSON_LINES,
    )


def read_json_lines(job: Job) -> Reading:
    """Write the records of a file of JSON lines in UTF-8 to Parquet.

    Raises FileRefused where too many records are broken or a line is not accounted for.
    """
    scan = job.scan
    number = lines = 0
    with job.path.open("rb") as stream, job.rows() as writer, job.rejects() as rejects:
        rows: list[dict[str, str | None]] = []
        numbers: list[int] = []
        size = 0

        def write() -> None:
            columns = [
                pa.array([row.get(name) for row in rows], pa.string()) for name in scan.header
            ]
            writer.write(columns, pa.array(numbers, pa.int64()))
            rows.clear()
            numbers.clear()

        for lines, line in enumerate(_lines(stream, "utf-8"), start=1):
            if not line.strip():
                continue
            number += 1
            job.progress(1)
            try:
                rows.append(_parse(line))
                numbers.append(number)
            except _Broken as error:
                rejects.write(Reject(lines, str(error), shown(line)))
            size += len(line)
            if size > PIECE_BYTES or len(rows) == BATCH_ROWS:
                write()
                size = 0
        write()
        if (lines, number) != (scan.lines, scan.records):
            raise FileRefused(
                f"it changed while it was read ({scan.lines:,} lines before, {lines:,} read"
                " since): load it again when it is complete"
            )
    return rejects.reading(number)


def _lines(stream: BinaryIO, encoding: str) -> Iterator[bytes]:
    """Yield the lines of a file, without their ends and a byte order mark, as UTF-8."""
    if encoding in UTF8:
        chunks = iter(lambda: stream.read(CHUNK_BYTES), b"")
    else:
        chunks = as_utf8(stream, encoding)
    count = 0
    rest = next(chunks, b"").removeprefix(UTF8_BOM)
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        count += len(lines)
        if len(rest) > MAX_RECORD_BYTES:
            raise FileRefused(
                f"line {count + 1} has more than {MAX_RECORD_BYTES >> 20} MB: expected JSON lines,"
                " one object on each"
            )
    if rest:
        yield from rest.removesuffix(b"\n").split(b"\n")


def _parse(line: bytes) -> dict[str, str | None]:
    """Return the members of the object on a line, by name. Raises _Broken where it is none."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise _Broken(f"byte 0x{line[error.start]:02x} is not valid UTF-8") from None
    start = START.match(text)
    if not start:
        raise _Broken("no JSON object: expected { at the start of the line")
    members: dict[str, str | None] = {}
    position = start.end()
    end = END.match(text, position)
    while not end:
        member = MEMBER.match(text, position)
        if not member:
            raise _Broken(f'character {position + 1}: expected "name": value')
        name, string, plain = member.groups()
        position = member.end()
        if plain:
            value = None if plain == "null" else plain
        elif string is not None:
            value = _unescaped(string)
        else:
            value, position = _nested(text, position)
        name = _unescaped(name)
        if name in members:
            raise _Broken(f"the name {name!r} occurs twice")
        members[name] = value
        end = END.match(text, position)
        if not end:
            following = NEXT.match(text, position)
            if not following:
                raise _Broken(f"character {position + 1}: expected , or }}")
            position = following.end()
    if end.end() < len(text):
        raise _Broken(f"character {end.end() + 1}: text after the object")
    return members


def _unescaped(string: str) -> str:
    """Return what a JSON string says. Raises _Broken where it says what no text can hold."""
    if "\\" not in string:
        return string
    try:
        text = json.loads(f'"{string}"')
        text.encode()
    except UnicodeEncodeError:
        raise _Broken("half a surrogate pair, which is no character") from None
    except ValueError as error:
        raise _Broken(f"a string that is no JSON: {error}") from None
    if "\0" in text:
        raise _Broken("a NUL character")
    return text


def _nested(text: str, position: int) -> tuple[str, int]:
    """Return the JSON text of the object or list that begins at a position, and where it ends."""
    try:
        _, end = NESTED.raw_decode(text, position)
    except (ValueError, RecursionError) as error:
        raise _Broken(f"character {position + 1}: a value that is no JSON: {error}") from None
    return text[position:end], end
