"""What holds for every file and every header: hypothesis looks for one for which it does not.

The same examples are tried each time. To look further, for minutes, with new ones each time:
HYPOTHESIS_PROFILE=long pytest tests/python/test_properties.py
"""

import bz2
import csv
import gzip
import io
import itertools
import os
import zipfile
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ingest import scan, unpack
from ingest.columns import FILE_ID, LOAD_ID, MAX_NAME_LENGTH, ROW_NUMBER, column_names, spellings
from ingest.errors import FileRefused
from ingest.read import Reject
from ingest.scan import DELIMITERS, Scan

from .conftest import Row, read

# Every example overwrites the files of the one before.
SHARED = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("default", settings(**SHARED, derandomize=True, max_examples=200))
settings.register_profile("long", settings(**SHARED, max_examples=5_000))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

LINE_ENDS = ("\n", "\r\n", "\r")
# Beside any letter: those that mean something to a CSV reader, or are taken for something.
PIECES = [*DELIMITERS, *"\"'\\# 0-x", '""', "NA", "NULL", "\\N", "ü", "東", "\U0001f6eb"]
PIECES += ["\ufeff", "\x1a", "\x1c", "\x85", "\u2028"]


def texts(line_ends: str) -> st.SearchStrategy[str]:
    """Texts that may hold some of the line ends."""
    letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n")
    pieces = st.sampled_from([*PIECES, *line_ends]) | letters
    return st.lists(pieces, max_size=6).map("".join)


@st.composite
def tables(draw: st.DrawFn, cells: st.SearchStrategy[str | None]) -> list[Row]:
    """Rows of the same width, some of which stand there many times."""
    width = draw(st.integers(1, 5))
    rows = draw(st.lists(st.tuples(*[cells] * width), max_size=8))
    return rows * draw(st.sampled_from([1, 1, 40]))


def header_of(width: int) -> Row:
    return tuple(f"column {number}" for number in range(1, width + 1))


def write_all(rows: Sequence[Row], delimiter: str, line_end: str, quoting: int | None) -> str:
    """Write rows as Python's csv does; without `quoting`, quote all that is not None."""
    if quoting is None:
        quoted = [
            ["" if cell is None else f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row]
            for row in rows
        ]
        return "".join(delimiter.join(row) + line_end for row in quoted)
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=line_end, quoting=quoting).writerows(rows)
    return text.getvalue()


def packed_zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def packed_zip(content: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("ü.csv", content)
    return archive.getvalue()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda content: gzip.compress(content, mtime=0),
    "bz2": bz2.compress,
    "zstd": packed_zstd,
    "zip": packed_zip,
}
MARKS = {"utf-8": b"", "utf-8-sig": b"", "utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}
QUOTINGS = (csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("properties")


@given(data=st.data())
def test_tables_come_back_equal(folder: Path, data: st.DataObject) -> None:
    """What a CSV writer writes comes back cell by cell, numbered from 1, nothing rejected.

    Also with the seams between the chunks of the byte scan anywhere. A bare empty cell is null, a
    quoted one is empty text.
    """
    line_end = data.draw(st.sampled_from(LINE_ENDS))
    quoting = data.draw(st.sampled_from(QUOTINGS))
    # An LF in a file whose lines end in CR alone is what no reader can tell from a line end; nor
    # is a CR in an LF file where the writer does not quote it.
    inside = line_end if quoting == csv.QUOTE_MINIMAL or line_end == "\r" else "\r\n"
    cells = texts(inside) if quoting is not None else texts(inside) | st.none()
    table = data.draw(tables(cells))
    header = header_of(len(table[0]) if table else 2)
    # A file of one column does not show its delimiter.
    delimiter = data.draw(st.sampled_from(DELIMITERS)) if len(header) > 1 else ","
    text = write_all([header, *table], delimiter, line_end, quoting)
    if data.draw(st.booleans()) and not text.endswith(delimiter + line_end):
        is_blank = len(header) == 1 and table and table[-1][0] is None
        text = text if is_blank else text.removesuffix(line_end)
    encoding = data.draw(st.sampled_from([*MARKS]))
    content = MARKS[encoding] + text.encode(encoding)
    packer = data.draw(st.sampled_from([None, *PACKERS]))
    content = PACKERS[packer](content) if packer else content
    is_bare = quoting == csv.QUOTE_MINIMAL and len(header) > 1
    expected = [tuple(None if is_bare and cell == "" else cell for cell in row) for row in table]

    chunk = data.draw(st.sampled_from([64, 65, 100, 1 << 20]))
    with patch.object(scan, "CHUNK_BYTES", chunk), patch.object(unpack, "CHUNK_BYTES", chunk):
        found, rows, rejects, numbers = read(folder, content)
    assert rejects == []
    assert rows == expected
    assert numbers == list(range(1, len(table) + 1))
    assert found.header == header
    if table:
        assert read(folder, content, is_slow=True)[1:] == (rows, [], numbers)


@given(header=st.lists(texts("\n"), min_size=1, max_size=6), line_end=st.sampled_from(LINE_ENDS))
def test_headers_come_back_equal(folder: Path, header: list[str], line_end: str) -> None:
    """Column names are what the file spells, also where they go over lines."""
    header = [name.replace("\n", line_end) for name in header]
    row = tuple("x" for _ in header)
    text = write_all([header, row], ",", line_end, csv.QUOTE_ALL)
    found, rows, rejects, _ = read(folder, text.encode())
    assert (list(found.header), rows, rejects) == (header, [row], [])


# --- Damage -----------------------------------------------------------------------------------


def fields_of(text: str, delimiter: str) -> Row | None:
    """Split the text of one record as RFC 4180 says; None for what is no record.

    One thing more is allowed: a quote inside a bare field is text.
    """
    fields: list[str | None] = []
    value, state = "", "start"
    for letter in text + delimiter:
        if state == "quoted":
            value, state = (value, "after") if letter == '"' else (value + letter, state)
        elif letter == delimiter:
            fields.append(None if state == "start" else value)
            value, state = "", "start"
        elif letter == '"' and state != "bare":
            value, state = (value + '"' if state == "after" else value), "quoted"
        elif state == "after" or letter in "\r\n\0":
            return None
        else:
            value, state = value + letter, "bare"
    return tuple(fields) if state == "start" and "\0" not in text else None


def as_line(text: str) -> str:
    """A physical line without its end."""
    return text.removesuffix("\n").removesuffix("\r")


def check_every_line(
    content: bytes, found: Scan, rows: list[Row], rejects: list[Reject], numbers: list[int]
) -> None:
    """Assert that every line is in exactly one row or reject, which says what the line says."""
    if found.encoding == "cp1252":
        text = content.decode("cp1252")
    else:
        text = content.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape")
    line_end = "\r" if "\r" in text and "\n" not in text else "\n"
    lines = [line + line_end for line in text.split(line_end)]
    last = lines.pop().removesuffix(line_end)
    lines += [last] if last else []
    width, done = len(found.header), found.header_lines

    def is_record(text: str) -> bool:
        fields = fields_of(as_line(text), found.delimiter)
        is_text = not any("\udc80" <= letter <= "\udcff" for letter in text)
        return is_text and fields is not None and len(fields) == width

    names = fields_of("".join(lines[:done]).rstrip("\r\n"), found.delimiter)
    assert names is not None
    assert found.header == tuple(name or "" for name in names)
    loaded, rejected = dict(zip(numbers, rows, strict=True)), deque(rejects)
    for number in range(1, len(rows) + len(rejects) + 1):
        while width > 1 and not lines[done].strip("\r\n"):
            done += 1
        if number in loaded:
            row = loaded[number]
            size = 1 + sum(cell.count(line_end) for cell in row if cell)
            record = "".join(lines[done : done + size])
            assert is_record(record)
            assert fields_of(as_line(record), found.delimiter) == row
        else:
            reject = rejected.popleft()
            size = 1 + reject.raw_text.count(line_end)
            record = "".join(lines[done : done + size])
            assert reject.line == done + 1
            assert reject.raw_text == shown(record)
            assert not is_record(record)
            assert size == 1 or not any(
                is_record(line) and line.count('"') % 2 == 0
                for line in lines[done + 1 : done + size]
            )
        done += size
    assert width == 1 or not "".join(lines[done:]).strip("\r\n")
    assert width > 1 or done == len(lines)


def shown(text: str) -> str:
    content = text.rstrip("\r\n").encode(errors="surrogateescape")
    return content.decode(errors="backslashreplace").replace("\0", "\\x00")


BAD_BYTES = [b'"', b'""', b"\0", b"\r", b"\n", b",", b" ", b"\xe9", b"\xc3", b"\xff", b"\xc3\xbc"]


@st.composite
def damaged(draw: st.DrawFn, content: bytes, pieces: st.SearchStrategy[bytes]) -> bytes:
    """Bytes in which a few places were overwritten, cut out, doubled, or had some put in."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from([0, 0, 1, 1, 2, 5, 1000])))
        put = draw(pieces | st.just(content[start:end] * 2) | st.just(b""))
        content = content[:start] + put + content[end:]
    return content


@given(data=st.data())
def test_no_damage_loses_a_line_in_silence(folder: Path, data: st.DataObject) -> None:
    """Whatever happens to a file: it is refused, or every line of it is accounted for.

    Each line after the header is part of exactly one row or one reject, in the file's order, or is
    blank in a file of several columns. A row is what its lines say, nothing else; a reject has its
    lines' text, and is no record. Both readers agree on all that.
    """
    line_end = data.draw(st.sampled_from(LINE_ENDS))
    delimiter = data.draw(st.sampled_from(DELIMITERS))
    table = data.draw(tables(texts(line_end) | st.none()))
    header = header_of(len(table[0]) if table else 2)
    quoting = data.draw(st.sampled_from(QUOTINGS))
    content = write_all([header, *table], delimiter, line_end, quoting).encode()
    pieces = st.sampled_from(BAD_BYTES) | st.binary(max_size=3)
    content = data.draw(damaged(content, pieces))
    try:
        found, rows, rejects, numbers = read(folder, content)
    except FileRefused:
        return
    if found.header:
        check_every_line(content, found, rows, rejects, numbers)
    if found.is_regular:
        assert read(folder, content, is_slow=True)[1:] == (rows, rejects, numbers)


PLAIN = st.text("axü東 0.-'\\#", max_size=4)


@given(data=st.data())
def test_damage_costs_its_own_record(folder: Path, data: st.DataObject) -> None:
    """Bytes changed in one record cost at most that one, all others are loaded as they were.

    That is: as long as no line end comes or goes, and either no value in the file holds a quote,
    delimiter or line end, where any byte may change, quotes too; or the damaged record has no
    quote before and after, where the other records may be any.
    """
    line_end = data.draw(st.sampled_from(LINE_ENDS))
    delimiter = data.draw(st.sampled_from(DELIMITERS))
    has_quotes = data.draw(st.booleans())
    quoting = data.draw(st.sampled_from(QUOTINGS))
    width = data.draw(st.integers(2, 4))
    any_rows = st.lists(st.tuples(*[PLAIN if has_quotes else texts(line_end)] * width), max_size=6)
    before, after = data.draw(any_rows), data.draw(any_rows)
    victim = data.draw(st.tuples(*[PLAIN] * width))

    def written(rows: Sequence[Row], quoting: int | None = quoting) -> bytes:
        return write_all(rows, delimiter, line_end, quoting).encode()

    record = written([victim], quoting if has_quotes else csv.QUOTE_MINIMAL)
    pieces = st.sampled_from(BAD_BYTES) | st.binary(max_size=3)
    kept_out = b"\r\n" if has_quotes else b'\r\n"'
    changed = data.draw(damaged(record.removesuffix(line_end.encode()), pieces))
    changed = changed.translate(None, kept_out)
    header = header_of(width)
    parts = [written([header, *before]), changed, line_end.encode(), written(after)]
    _, rows, rejects, numbers = read(folder, b"".join(parts))

    is_bare = quoting == csv.QUOTE_MINIMAL
    expected = [
        [tuple(None if is_bare and cell == "" else cell for cell in row) for row in rows]
        for rows in (before, after)
    ]
    assert rows[: len(before)] == expected[0]
    assert rows[len(rows) - len(after) :] == expected[1]
    of_the_record = len(rows) - len(before) - len(after)
    # A record of which nothing is left is a blank line.
    assert of_the_record + len(rejects) == (1 if changed else 0)
    assert numbers[: len(before)] == list(range(1, len(before) + 1))


# --- Compression ------------------------------------------------------------------------------

LINES = b"a,b\n" + b"".join(b"%d,%d\n" % (number, number**3) for number in range(60))


@pytest.mark.parametrize("packer", PACKERS)
def test_a_packed_file_cut_short_is_refused(packer: str, folder: Path) -> None:
    """At whatever byte it was cut, but within those by which it is known to be packed."""
    packed = PACKERS[packer](LINES)
    for end in range(4, len(packed)):
        with pytest.raises(FileRefused):
            read(folder, packed[:end])


@pytest.mark.parametrize("packer", ["gzip", "bz2", "zip"])
def test_a_bit_flipped_in_a_packed_file_is_no_other_value(packer: str, folder: Path) -> None:
    """It is refused, or the bit is not of the CSV. (zstd has a checksum only where asked for.)"""
    rows = [tuple(line.split(",")) for line in LINES.decode().splitlines()[1:]]
    packed = bytearray(PACKERS[packer](LINES))
    for position, bit in itertools.product(range(4, len(packed)), (0x10, 0x80)):
        packed[position] ^= bit
        with suppress(FileRefused):
            assert read(folder, bytes(packed))[1] == rows
        packed[position] ^= bit


@pytest.mark.parametrize("packer", ["gzip", "bz2", "zstd"])
def test_streams_packed_one_after_the_other_are_one_file(packer: str, folder: Path) -> None:
    """As parallel compressors and `cat` make them."""
    pack = PACKERS[packer]
    rows = read(folder, LINES)[1]
    assert read(folder, pack(b"") + pack(LINES[:99]) + pack(LINES[99:]))[1] == rows


# --- Names ------------------------------------------------------------------------------------

NAMES = st.text("aZ9_ -.%é日+()\n\"'", max_size=8) | st.text(max_size=90)
NAMES |= st.sampled_from(["", "a", "A", "a_2", "x" * 80, FILE_ID, ROW_NUMBER, LOAD_ID, "_dlt_id"])
HEADERS = st.lists(NAMES, min_size=1, max_size=12).map(tuple)


@given(header=HEADERS)
@example(header=("a" * 60 + "_b",) * 2)
def test_column_names_can_be_names(header: tuple[str, ...]) -> None:
    """They are unique, short, not those of the lineage, and what dlt keeps as it is."""
    from dlt.common.normalizers.naming.snake_case import NamingConvention

    names = column_names(header)
    assert len(names) == len(header) == len(set(names))
    assert all(0 < len(name.encode()) <= MAX_NAME_LENGTH for name in names)
    assert not {FILE_ID, ROW_NUMBER, LOAD_ID, "_dlt_id"} & set(names)
    assert [NamingConvention().normalize_identifier(name) for name in names] == names
    assert names == column_names(header)


@given(data=st.data(), header=HEADERS)
def test_column_names_stay_in_another_order(data: st.DataObject, header: tuple[str, ...]) -> None:
    """A column that is known by its name keeps its own in every later file."""
    known = dict(zip(spellings(header), column_names(header), strict=True))
    more = data.draw(st.lists(NAMES, max_size=3))
    later = tuple(data.draw(st.permutations([*header, *more])))
    names = dict(zip(spellings(later), column_names(later, known), strict=True))
    assert len(set(names.values())) == len(later)
    for spelling, name in known.items():
        if spelling[0].strip():
            assert names[spelling] == name
