"""Turn one CSV file into Parquet, every value as the text that the file holds.

DuckDB's strict reader does the work. Where a file is irregular, or where that reader stops or
disagrees with the count of the byte scan, a slower reader takes the file record by record, so
that a broken record costs itself and not its neighbours.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.columns import FILE_ID, ROW_NUMBER
from ingest.errors import FileRefused
from ingest.scan import Scan
from ingest.unpack import UTF8_BOM

BATCH_ROWS = 122_880
BATCH_BYTES = 64 << 20
MAX_RECORD_BYTES = 16 << 20

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
    """What became of a file's records: `rows` written to Parquet, and the rejected ones."""

    rows: int = 0
    rejects: list[Reject] = field(default_factory=list)


def read_file(
    path: Path,
    scan: Scan,
    names: Sequence[str],
    parquet: Path,
    max_rejects: int,
    progress: Progress,
) -> Reading:
    """Write the records of the plain UTF-8 file `path` to the Parquet file `parquet`.

    It gets the columns `names` as text, `_file_id`, and `_row_number`, the 1-based record number.
    `progress` is called with the number of records done since its last call. Raises FileRefused
    where more than `max_rejects` records are broken or a line is not accounted for.
    """
    schema = pa.schema(
        [*((name, pa.string()) for name in names), (FILE_ID, pa.string()), (ROW_NUMBER, pa.int64())]
    )
    if not scan.header or scan.lines == scan.header_lines:
        pq.write_table(schema.empty_table(), parquet)
        return Reading()
    if scan.is_regular:
        with suppress(duckdb.InvalidInputException, duckdb.ConversionException, _CountsDiffer):
            return _read_regular(path, scan, schema, parquet, progress)
    return _read_record_by_record(path, scan, schema, parquet, max_rejects, progress)


class _CountsDiffer(Exception):
    """The parser saw another number of records, or of line ends in them, than the byte scan."""


def _read_regular(
    path: Path, scan: Scan, schema: pa.Schema, parquet: Path, progress: Progress
) -> Reading:
    names = schema.names[:-2]
    reading = Reading()
    line_ends = scan.quoted_line_ends - (scan.header_lines - 1)
    with (
        duckdb.connect() as engine,
        ThreadPoolExecutor(1) as beside,
        _parquet_writer(parquet, schema) as writer,
    ):
        written = beside.submit(lambda: None)
        batches = engine.read_csv(
            re.sub(r"([*?\[])", r"[\1]", str(path)),
            columns=dict.fromkeys(names, "VARCHAR"),
            auto_detect=False,
            header=True,
            sep=scan.delimiter,
            quotechar='"',
            escapechar='"',
            na_values="",
            allow_quoted_nulls=False,
            null_padding=False,
            strict_mode=True,
            hive_partitioning=False,
            compression="none",
            parallel=not scan.quoted_line_ends,
        ).to_arrow_reader(BATCH_ROWS)
        for batch in batches:
            first = reading.rows + 1
            reading.rows += batch.num_rows
            if line_ends:
                line_ends -= sum(_count(scan.line_end, column) for column in batch.columns)
            lineage = [pa.repeat(scan.file_id, batch.num_rows), pa.arange(first, reading.rows + 1)]
            rows = pa.record_batch([*batch.columns, *lineage], schema=schema)
            # One batch is written while DuckDB reads the next.
            written.result()
            written = beside.submit(writer.write_batch, rows)
            progress(batch.num_rows)
        written.result()
    if reading.rows != scan.records or line_ends:
        raise _CountsDiffer
    return reading


def _parquet_writer(parquet: Path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(parquet, schema, write_statistics=False)


def _count(mark: bytes, column: pa.Array) -> int:
    return pc.sum(pc.count_substring(column, mark.decode())).as_py() or 0


def _read_record_by_record(
    path: Path, scan: Scan, schema: pa.Schema, parquet: Path, max_rejects: int, progress: Progress
) -> Reading:
    reading = Reading()
    batch: list[Record] = []
    batch_bytes = 0

    with _parquet_writer(parquet, schema) as writer:

        def write_batch() -> None:
            nonlocal batch_bytes
            columns = zip(*batch, strict=True)
            arrays = map(pa.array, columns, schema.types)
            writer.write_batch(pa.record_batch(list(arrays), schema=schema))
            progress(len(batch))
            batch.clear()
            batch_bytes = 0

        for number, record in enumerate(_records(path, scan, len(schema) - 2), start=1):
            if isinstance(record, Reject):
                reading.rejects.append(record)
                if len(reading.rejects) > max_rejects:
                    raise FileRefused(
                        f"line {record.line}: {record.reason}; that is more broken records than"
                        f" the {max_rejects} allowed: mend the file, or set --max-rejects"
                    )
            else:
                batch.append([*record, scan.file_id, number])
                batch_bytes += sum(map(len, filter(None, record)))
                reading.rows += 1
            if len(batch) == BATCH_ROWS or batch_bytes > BATCH_BYTES:
                write_batch()
        if batch:
            write_batch()
    return reading


def _records(path: Path, scan: Scan, width: int) -> Iterator[Record | Reject]:
    """Yield every record after the header: its fields, or why it is rejected.

    A record that opens a quote goes on over the next lines until the quote is closed. Where the
    result is no valid record, only its first line is rejected and reading starts again on the
    next one: a stray quote does not swallow what follows. (But a record with the wrong number of
    fields, of whose further lines none could be a record, is rejected as a whole.) A blank line is
    no record, unless the file has one column.
    """
    source = _physical_lines(path, scan.line_end)
    ahead: deque[bytes] = deque()
    done = 0

    def peek(index: int) -> bytes | None:
        while len(ahead) <= index and (line := next(source, None)) is not None:
            ahead.append(line)
        return ahead[index] if index < len(ahead) else None

    while (line := peek(0)) is not None:
        used = 1
        if done < scan.header_lines or (width > 1 and not line.strip(b"\r\n")):
            pass
        else:
            fields, problem = _parse(line, scan.delimiter)
            text, size = [line], len(line)
            while problem is _OPEN and size < MAX_RECORD_BYTES and (more := peek(len(text))):
                text.append(more)
                size += len(more)
                if b'"' in more.replace(b'""', b""):
                    fields, problem = _parse(b"".join(text), scan.delimiter)
            if problem is None and len(fields) != width:
                problem = f"{len(fields)} fields found, {width} expected"
                if any(_could_be_record(more, scan.delimiter, width) for more in text[1:]):
                    problem, text = _OPEN, [line]
            elif problem and len(text) > 1:
                problem, text = _OPEN, [line]
            used = len(text)
            yield Reject(done + 1, problem, _shown(b"".join(text))) if problem else fields
        for _ in range(used):
            ahead.popleft()
        done += used
    if done != scan.lines:
        raise FileRefused(f"{done} of {scan.lines} lines read: load it when it is complete")


_OPEN = "a quote is opened and not closed"


def _could_be_record(line: bytes, delimiter: str, width: int) -> bool:
    """Tell whether a line by itself is a record with its quotes in balance."""
    fields, problem = _parse(line, delimiter)
    return problem is None and len(fields) == width and line.count(b'"') % 2 == 0


def _shown(raw: bytes) -> str:
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


def _physical_lines(path: Path, line_end: bytes) -> Iterator[bytes]:
    """Yield the lines of a file with their ends, without its byte order mark."""
    with path.open("rb") as stream:
        if stream.read(len(UTF8_BOM)) != UTF8_BOM:
            stream.seek(0)
        if line_end == b"\n":
            yield from stream
            return
        rest = b""
        while chunk := stream.read(1 << 20):
            *lines, rest = (rest + chunk).split(line_end)
            yield from (line + line_end for line in lines)
        if rest:
            yield rest
