"""Turn one CSV file into Parquet, every value as the text that the file holds.

DuckDB's strict reader does the work. Where a file is irregular, or where that reader stops or
disagrees with the count of the byte scan, the file is read in pieces; those that are irregular are
taken record by record, so that a broken record costs itself and not its neighbours.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.columns import FILE_ID, ROW_NUMBER
from ingest.errors import FileRefused
from ingest.landing import InTable
from ingest.scan import Counts, Scan, Structure
from ingest.unpack import UTF8_BOM

BATCH_ROWS = 122_880
BATCH_BYTES = 64 << 20
PIECE_BYTES = 2 << 20
MAX_RECORD_BYTES = 16 << 20
REJECTS_GROUP = 20_000
REJECTS_SCHEMA = pa.schema(
    [
        ("file_id", pa.string()),
        ("source_name", pa.string()),
        ("table_name", pa.string()),
        ("line", pa.int64()),
        ("reason", pa.string()),
        ("raw_text", pa.string()),
    ]
)
WILDCARD = r"[*?\[]"

Record = list[str | None]
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Reject:
    """A record that could not be read: its first physical line (1-based), why, and its text."""

    line: int
    reason: str
    raw_text: str


@dataclass
class Reading:
    """What became of a file's records: how many are `rows` and how many `rejected`.

    `first_reject` is the first of these. All are in the Parquet file `rejects`, None for none.
    """

    rows: int = 0
    rejected: int = 0
    first_reject: Reject | None = None
    rejects: Path | None = None


@dataclass(frozen=True)
class Job:
    """A file to be read, and where its records go.

    The plain file `path`, which was scanned, goes to the Parquet file `parquet`, with the columns
    `names` as text, `_file_id`, and `_row_number`, the 1-based record number. Broken records go to
    a Parquet file beside it, as rows of `raw.rejected_rows` for `table`, `max_rejects` at most.
    `progress` is called with the number of records done since its last call.
    """

    path: Path
    scan: Scan
    table: InTable
    names: Sequence[str]
    parquet: Path
    max_rejects: int
    progress: Progress

    @property
    def schema(self) -> pa.Schema:
        """The columns of the Parquet file: text, and the lineage of each row."""
        lineage = [(FILE_ID, pa.string()), (ROW_NUMBER, pa.int64())]
        return pa.schema([*((name, pa.string()) for name in self.names), *lineage])

    def rows(self) -> "RowWriter":
        """Open the Parquet file for rows."""
        return RowWriter(self.parquet, self.schema, self.scan.file_id)

    def rejects(self) -> "RejectWriter":
        """Open the file for broken records, which is made once there is one."""
        broken = self.parquet.with_suffix(".rejects")
        return RejectWriter(broken, self.table, self.scan.file_id, self.max_rejects)


def read_file(job: Job) -> Reading:
    """Write the records of a CSV file in UTF-8 to Parquet.

    Raises FileRefused where too many records are broken or a line is not accounted for.
    """
    scan = job.scan
    if not scan.header or scan.lines == scan.header_lines:
        pq.write_table(job.schema.empty_table(), job.parquet)
        return Reading()
    if scan.is_regular:
        with suppress(*NOT_AS_COUNTED):
            return _read_whole(job)
    return _read_in_pieces(job)


class _CountsDiffer(Exception):
    """The parser saw another number of records, or of line ends in them, than the byte scan."""


NOT_AS_COUNTED = (
    duckdb.InvalidInputException,
    duckdb.ConversionException,
    # DuckDB's message shows the line, cut at a number of bytes.
    UnicodeDecodeError,
    _CountsDiffer,
)


def _read_whole(job: Job) -> Reading:
    """Read a regular file in one go. Raises one of NOT_AS_COUNTED where it turns out not to be."""
    path, scan = plainly_named(job.path, job.parquet.with_suffix(".csv")), job.scan
    with job.rows() as writer:
        number = 0
        for batch in _parsed(path, scan, scan, job.schema, header=True):
            writer.write(batch.columns, pa.arange(number + 1, number + 1 + batch.num_rows))
            number += batch.num_rows
            job.progress(batch.num_rows)
            if number > scan.records:
                # It grows: there is no need to wait for its end.
                raise _CountsDiffer
    return Reading(number)


def _parsed(
    path: Path, scan: Scan, counts: Scan | Counts, schema: pa.Schema, *, header: bool
) -> Iterator[pa.RecordBatch]:
    """Yield the records of a regular file, or piece of one, as DuckDB parses them.

    Raises one of NOT_AS_COUNTED, perhaps only at the end, where DuckDB does not see what was
    counted.
    """
    records, line_ends = 0, counts.quoted_line_ends
    batches = (
        engine()
        .read_csv(
            as_pattern(path),
            columns=dict.fromkeys(schema.names[:-2], "VARCHAR"),
            auto_detect=False,
            header=header,
            sep=scan.delimiter,
            quotechar='"',
            escapechar='"',
            na_values="",
            allow_quoted_nulls=False,
            null_padding=False,
            strict_mode=True,
            hive_partitioning=False,
            compression="none",
            parallel=not counts.quoted_line_ends,
        )
        .to_arrow_reader(BATCH_ROWS)
    )
    for batch in batches:
        records += batch.num_rows
        if counts.quoted_line_ends:
            line_ends -= sum(_count(scan.line_end, column) for column in batch.columns)
        yield batch
    if records != counts.records or line_ends:
        raise _CountsDiffer


def plainly_named(path: Path, link: Path) -> Path:
    """Return a path of the file that can be written as a pattern: `link` where its own cannot.

    In a pattern, DuckDB takes a backslash for the end of a folder's name.
    """
    if "\\" not in str(path) or not re.search(WILDCARD, str(path)):
        return path
    link.unlink(missing_ok=True)
    link.symlink_to(path.absolute())
    return link


def as_pattern(path: Path) -> str:
    """Return the pattern that this path alone matches: DuckDB takes every path for one."""
    return re.sub(WILDCARD, r"[\g<0>]", str(path))


@cache
def engine() -> duckdb.DuckDBPyConnection:
    """Return the DuckDB that parses, with nothing in it but what the package brings."""
    # Pieces of files follow each other under one name: what was read before must not come back.
    # An extension for time zones would turn a Parquet file's times into those of this machine.
    return duckdb.connect(
        config={"enable_external_file_cache": False, "autoload_known_extensions": False}
    )


def _count(mark: bytes, column: pa.Array) -> int:
    return pc.sum(pc.count_substring(column, mark.decode())).as_py() or 0


class RowWriter:
    """Writes rows to Parquet in groups of the size that DuckDB stores, beside the reading."""

    def __init__(self, parquet: Path, schema: pa.Schema, file_id: str):
        self._schema, self._file_id = schema, file_id
        self._file = pq.ParquetWriter(parquet, schema, write_statistics=False)
        self._beside = ThreadPoolExecutor(1)
        self._written: Future | None = None
        self._batches: list[pa.RecordBatch] = []

    def write(self, columns: Sequence[pa.Array], numbers: pa.Array) -> None:
        """Take rows: their data columns, and their record numbers."""
        lineage = [pa.repeat(self._file_id, len(numbers)), numbers]
        self._batches.append(pa.record_batch([*columns, *lineage], schema=self._schema))
        while sum(batch.num_rows for batch in self._batches) >= BATCH_ROWS:
            self._write_group()
        if sum(batch.nbytes for batch in self._batches) > BATCH_BYTES:
            self._write_group()

    def _write_group(self, *, is_last: bool = False) -> None:
        table = pa.Table.from_batches(self._batches)
        self._batches = table.slice(BATCH_ROWS).to_batches()
        if self._written:
            self._written.result()
        group = table.slice(0, BATCH_ROWS).combine_chunks()
        if is_last:
            # A small file is written before a thread would have started.
            self._file.write_table(group, BATCH_ROWS)
        else:
            self._written = self._beside.submit(self._file.write_table, group, BATCH_ROWS)

    def __enter__(self) -> "RowWriter":
        """Return it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write what waits, unless something failed, and close the file."""
        # The file is closed last: a group may still be on its way into it.
        with self._file, self._beside:
            if kind is None and self._batches:
                self._write_group(is_last=True)
            elif kind is None and self._written:
                self._written.result()


class RejectWriter:
    """Writes broken records to Parquet, in groups, once there is one."""

    def __init__(self, parquet: Path, table: InTable, file_id: str, allowed: int):
        self._of_file = {
            "file_id": file_id,
            "source_name": table.source,
            "table_name": table.table,
        }
        self._parquet, self._allowed = parquet, allowed
        self._file: pq.ParquetWriter | None = None
        self._waiting: list[Reject] = []
        self._waiting_size = 0
        self.count = 0
        self.first: Reject | None = None

    def write(self, reject: Reject) -> None:
        """Take a broken record. Raises FileRefused where it is one too many."""
        self.count += 1
        self.first = self.first or reject
        if self.count > self._allowed:
            is_encoding = "UTF-8" in reject.reason
            hint = ", or name the file's encoding in ingest/sources.toml" * is_encoding
            raise FileRefused(
                f"line {reject.line}: {reject.reason}; that is more broken records than the"
                f" {self._allowed} allowed: mend the file{hint}, or set --max-rejects"
            )
        self._waiting.append(reject)
        self._waiting_size += len(reject.raw_text)
        if len(self._waiting) >= REJECTS_GROUP or self._waiting_size > PIECE_BYTES:
            self._write_group()

    def reading(self, records: int) -> Reading:
        """Return what became of so many records, once the file is closed."""
        rejects = self._parquet if self.count else None
        return Reading(records - self.count, self.count, self.first, rejects)

    def _write_group(self) -> None:
        rows = [self._of_file | vars(reject) for reject in self._waiting]
        group = pa.Table.from_pylist(rows, REJECTS_SCHEMA)
        self._file = self._file or pq.ParquetWriter(self._parquet, REJECTS_SCHEMA)
        self._file.write_table(group)
        self._waiting, self._waiting_size = [], 0

    def __enter__(self) -> "RejectWriter":
        """Return it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write what waits, unless something failed, and close the file."""
        if kind is None and self._waiting:
            self._write_group()
        if self._file:
            self._file.close()


def _read_in_pieces(job: Job) -> Reading:
    """Read a file of which something is odd: what is regular fast, the rest record by record."""
    scan, schema = job.scan, job.schema
    width = len(schema) - 2
    number = 0
    with job.path.open("rb") as stream, job.rows() as writer, job.rejects() as rejects:
        lines = _Lines(stream, scan.line_end)
        lines.drop(scan.header_lines)
        while lines.done <= scan.lines and (piece := lines.piece()):
            before = number
            fast = _parsed_piece(piece, scan, schema, job.parquet.with_suffix(".piece"))
            if fast is not None:
                batches, count = fast
                for batch in batches:
                    numbers = pa.arange(number + 1, number + 1 + batch.num_rows)
                    writer.write(batch.columns, numbers)
                    number += batch.num_rows
                lines.drop_piece(piece, count.lines)
                job.progress(number - before)
                continue
            records, numbers = [], []
            for record in _records(lines, len(piece), scan.delimiter, width):
                number += 1
                if isinstance(record, Reject):
                    rejects.write(record)
                else:
                    records.append(record)
                    numbers.append(number)
            if records:
                columns = [pa.array(column, pa.string()) for column in zip(*records, strict=True)]
                writer.write(columns, pa.array(numbers, pa.int64()))
            job.progress(number - before)
        if lines.done != scan.lines:
            raise FileRefused(
                f"it changed while it was read ({scan.lines:,} lines before, {lines.done:,} read"
                " since): load it again when it is complete"
            )
    return rejects.reading(number)


def _parsed_piece(
    piece: bytes, scan: Scan, schema: pa.Schema, path: Path
) -> tuple[list[pa.RecordBatch], Counts] | None:
    """Parse a piece of a file the fast way; None where it is not regular."""
    structure = Structure(scan.delimiter, scan.line_end)
    structure.see(piece)
    counts = structure.count(len(schema) - 2)
    # DuckDB takes a byte order mark at the start of a file for no part of it.
    if not counts.is_regular or piece.startswith(UTF8_BOM):
        return None
    path.write_bytes(piece)
    try:
        return list(_parsed(path, scan, counts, schema, header=False)), counts
    except NOT_AS_COUNTED:
        return None
    finally:
        path.unlink()


class _Lines:
    """The physical lines of a file, to be taken in pieces or one by one, with a look ahead.

    `done` is the number of lines that were taken.
    """

    def __init__(self, stream: BinaryIO, line_end: bytes):
        self._stream, self._line_end = stream, line_end
        self._ahead: list[bytes] = []
        self._next = 0
        self._rest = b""
        self._is_at_end = False
        self.done = 0

    def piece(self) -> bytes:
        """Return whole lines, PIECE_BYTES or one line of them at least; they are not taken yet."""
        self._rest = b"".join(self._ahead[self._next :]) + self._rest
        self._ahead, self._next = [], 0
        size = self._fill()
        return self._rest[:size]

    def drop_piece(self, piece: bytes, lines: int) -> None:
        """Take a piece of so many lines."""
        self._rest = self._rest[len(piece) :]
        self.done += lines

    def peek(self, index: int) -> bytes | None:
        """Return one of the next lines with its end, None after the last."""
        while len(self._ahead) <= self._next + index:
            size = self._fill()
            if not size:
                return None
            *lines, last = self._rest[:size].split(self._line_end)
            self._ahead.extend(line + self._line_end for line in lines)
            if last:
                self._ahead.append(last)
            self._rest = self._rest[size:]
        return self._ahead[self._next + index]

    def drop(self, count: int) -> int:
        """Take the next lines; return their size in bytes."""
        self.peek(count - 1)
        size = sum(map(len, self._ahead[self._next : self._next + count]))
        self._next += count
        self.done += count
        return size

    def _fill(self) -> int:
        """Have whole lines ready in the rest; return the size that they take there."""
        parts = [self._rest]
        size, has_line = len(self._rest), self._line_end in self._rest
        while not self._is_at_end and (size < PIECE_BYTES or not has_line):
            chunk = self._stream.read(PIECE_BYTES)
            self._is_at_end = not chunk
            parts.append(chunk)
            size += len(chunk)
            has_line = has_line or self._line_end in chunk
        self._rest = b"".join(parts)
        if self._is_at_end:
            return size
        return self._rest.rfind(self._line_end) + len(self._line_end)


def _records(lines: _Lines, size: int, delimiter: str, width: int) -> Iterator[Record | Reject]:
    """Take the records that start within `size` bytes; yield their fields, or why not.

    A record that opens a quote goes on over the next lines until the quote is closed. Where the
    result is no valid record, only its first line is rejected and reading starts again on the
    next one: a stray quote does not swallow what follows. (But a record with the wrong number of
    fields, of whose further lines none could be a record, is rejected as a whole.) A blank line is
    no record, unless the file has one column.
    """
    while size > 0 and (line := lines.peek(0)) is not None:
        if width > 1 and not line.strip(b"\r\n"):
            size -= lines.drop(1)
            continue
        fields, problem = _parse(line, delimiter)
        text, length = [line], len(line)
        while problem is _OPEN and length < MAX_RECORD_BYTES and (more := lines.peek(len(text))):
            text.append(more)
            length += len(more)
            if b'"' in more.replace(b'""', b""):
                fields, problem = _parse(b"".join(text), delimiter)
        if problem is None and len(fields) != width:
            problem = f"{len(fields)} fields found, {width} expected"
            if any(_could_be_record(more, delimiter, width) for more in text[1:]):
                problem, text = _OPEN, [line]
        elif problem and len(text) > 1:
            problem, text = _OPEN, [line]
        yield Reject(lines.done + 1, problem, shown(b"".join(text))) if problem else fields
        size -= lines.drop(len(text))


_OPEN = "a quote is opened and not closed"


def _could_be_record(line: bytes, delimiter: str, width: int) -> bool:
    """Tell whether a line by itself is a record with its quotes in balance."""
    fields, problem = _parse(line, delimiter)
    return problem is None and len(fields) == width and line.count(b'"') % 2 == 0


def shown(raw: bytes) -> str:
    """A broken record as text: what cannot stand in text is shown as an escape."""
    return raw.rstrip(b"\r\n").decode(errors="backslashreplace").replace("\0", "\\x00")


def _parse(line: bytes, delimiter: str) -> tuple[Record, str | None]:
    """Split one record into its fields; return them and what is wrong, if anything.

    An empty field is None, a quoted empty one the empty string.
    """
    if b"\0" in line:
        return [], "a NUL byte"
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return [], f"byte 0x{line[error.start]:02x} is not valid UTF-8"
    text = text.removesuffix("\n").removesuffix("\r")
    field = _field_pattern(delimiter)
    fields: Record = []
    position = 0
    while match := field.match(text, position):
        quoted, bare, end = match.groups()
        fields.append(bare if quoted is None else quoted.replace('""', '"'))
        position = match.end()
        if not end:
            return fields, None
    if re.fullmatch(r'"[^"]*(?:""[^"]*)*', text[position:]):
        return [], _OPEN
    is_quoted = text.startswith('"', position)
    problem = "text after the closing quote" if is_quoted else "a line end outside quotes"
    return [], f"field {len(fields) + 1}: {problem}"


@cache
def _field_pattern(delimiter: str) -> re.Pattern:
    mark = re.escape(delimiter)
    return re.compile(rf'(?:"([^"]*(?:""[^"]*)*)"|([^"\r\n{mark}][^\r\n{mark}]*)?)({mark}|\Z)')
