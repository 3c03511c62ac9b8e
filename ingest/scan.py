"""One pass over a file's bytes, before any parser: what it is, and how many records it holds."""

import codecs
import csv
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from ingest.columns import Source, is_delimiter
from ingest.errors import FileRefused
from ingest.landing import LandedFile, Place
from ingest.unpack import (
    CHUNK_BYTES,
    UTF8,
    UTF8_BOM,
    UTF16_BOMS,
    as_utf8,
    compression_of,
    open_csv,
)

# By more than what a column could be called.
OTHER_FORMATS = {
    rb"PAR1\x15": "Parquet",
    rb"%PDF-\d": "PDF",
    rb"version https://git-lfs": "a pointer of Git LFS",
    rb"\xd0\xcf\x11\xe0": "an Excel workbook",
    rb"SQLite format 3\0": "an SQLite database",
    rb"(\xef\xbb\xbf)?\s*<(!doctype\s|html[\s>])": "an HTML page",
    rb"(\xef\xbb\xbf)?\s*<\?xml\s": "XML",
    rb'(\xef\xbb\xbf)?\s*(\[\s*)?\{\s*"': "JSON",
}
UNKNOWN = Source()
DELIMITERS = ",;\t|"
# How many records are looked at to tell which of the delimiters in a header is one.
SAMPLE = 100
# What spreadsheets take for the name of the delimiter, and never for a record.
DECLARATION = re.compile('"?sep=(.?)"?', re.IGNORECASE)
SINGLE_BYTE = "cp1252"
# What is no character in this encoding, or hardly one: 0xff is what damage leaves behind.
NOT_IN_SINGLE_BYTE = frozenset(b"\x81\x8d\x8f\x90\x9d\xff")
# Python decodes a byte that is not UTF-8 to a lone surrogate: those of bytes that are letters in
# the single-byte encoding, an apostrophe or a dash, next to a letter of ASCII.
_LETTERS = "".join(
    chr(0xDC00 + byte)
    for byte in {*range(0x80, 0xFF)} - NOT_IN_SINGLE_BYTE
    if bytes([byte]).decode(SINGLE_BYTE).isalpha() or byte in b"\x92\x96"
)
_IN_A_WORD = re.compile(f"(?<=[A-Za-z])[{_LETTERS}]|[{_LETTERS}](?=[A-Za-z])")
_BAD = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True)
class Scan:
    """What the bytes of one CSV file say.

    `file_id` is the SHA-256 of the CSV's bytes as delivered (of a compressed file: as unpacked),
    `place` where they lie. `encoding` is a Python codec; `bad_byte` is a byte for which the file is
    not UTF-8 and was taken as another encoding. `header` holds the column names as the file spells
    them, on `header_lines` physical lines out of `lines`; a line above that declares the delimiter
    (`sep=;`) is one of them. `line_end` is the byte that ends a line (LF, or CR in a file without
    LF). `records` is the number of records after the header, counted by line ends outside quotes,
    `quoted_line_ends` of those inside. `is_regular` tells that this
    count holds and that the fast reader takes every record as it stands: quotes in balance with no
    space beside them, as many delimiters as such records have, one kind of line end, no NUL, no
    blank line. A file without any byte has an empty header.
    """

    file_id: str
    place: Place
    encoding: str
    bad_byte: int | None
    delimiter: str
    header: tuple[str, ...]
    header_lines: int
    line_end: bytes
    lines: int
    records: int
    quoted_line_ends: int
    is_regular: bool

    @property
    def about(self) -> int:
        """How many records there may be: in an irregular file, quotes tell nothing."""
        return self.records if self.is_regular else max(self.lines - self.header_lines, 0)


def scan_file(file: LandedFile, source: Source = UNKNOWN) -> Scan:
    """Read a file once, in constant memory but for one byte per line and stray quote.

    `source` has the encoding and the delimiter, where they are known. Without an encoding, a byte
    order mark tells, else the bytes: UTF-8, or Windows-1252 where no letter in the file is UTF-8;
    the fallback is taken in its place, for any bytes that are not UTF-8 in such a file. Raises
    FileRefused for a file that is not CSV text or whose header cannot be read, and OSError where it
    cannot be opened.
    """
    encoding, fallback = source.encoding, source.fallback_encoding
    stamp = file.stamp
    compression = compression_of(file.path)
    is_guessed = encoding is None
    encoding = encoding or _encoding_by_mark(file, compression)
    utf8 = _Utf8Check()
    with open_csv(file, compression) as stream:
        if encoding in UTF8:
            chunks = iter(lambda: stream.read(CHUNK_BYTES), b"")
        else:
            chunks = as_utf8(stream, encoding)
        start = chunk = next(chunks, b"")
        _refuse_other_formats(start)
        line_end = b"\r" if b"\r" in start and b"\n" not in start else b"\n"
        header = _read_header(start, line_end, source.delimiter)
        structure = Structure(header.delimiter, line_end)
        while chunk:
            if is_guessed:
                utf8.see(chunk)
            structure.see(chunk)
            chunk = next(chunks, b"")
        if is_guessed:
            utf8.see(b"", is_end=True)
        file_id = stream.digest.hexdigest()
    counts = structure.count(len(header.names))
    other = SINGLE_BYTE if utf8.looks_single_byte else None
    if fallback and utf8.bad and not utf8.has_good:
        other = fallback
    return Scan(
        file_id=file_id,
        place=Place(file.name, stamp.size, stamp.modified_us, compression, etag=stamp.etag),
        encoding=other or encoding,
        bad_byte=utf8.bad_byte if other else None,
        delimiter=header.delimiter,
        header=_decoded(header.names, other or "utf-8"),
        header_lines=header.lines,
        line_end=line_end,
        lines=counts.lines,
        records=max(counts.records - 1, 0),
        quoted_line_ends=counts.quoted_line_ends - max(header.lines - 1, 0),
        # The fast reader would take a declaration for the header.
        is_regular=counts.is_regular and not header.is_declared,
    )


@dataclass(frozen=True)
class Counts:
    """What `Structure` counted: physical lines, records, line ends in quotes, and regularity."""

    lines: int
    records: int
    quoted_line_ends: int
    is_regular: bool


class Structure:
    """Counts the records of CSV text, which it sees chunk by chunk, without parsing it."""

    def __init__(self, delimiter: str, line_end: bytes):
        self._mark, self._line_end = delimiter.encode(), line_end
        # Without all other bytes, records and fields can be counted; a pair of quotes that then
        # has nothing between holds none of these marks.
        self._not_marks = bytes(set(range(256)) - set(b'"\r\n' + self._mark))
        self._space_at_quote = re.compile(
            b'(?:["\r\n%b]|^) +"|" +(?:[\r\n%b]|$)' % ((re.escape(self._mark),) * 2)
        )
        self._marks: list[bytes] = []
        self._delimiters = 0
        self._is_quoted = self._is_odd = False
        self._before = b"\n"

    def see(self, chunk: bytes) -> None:
        """Take the next chunk, which is not empty."""
        marks = chunk.translate(None, self._not_marks).replace(b'""', b"")
        parts = marks.split(b'"')
        self._delimiters += sum(part.count(self._mark) for part in parts[self._is_quoted :: 2])
        self._is_quoted ^= len(parts) % 2 == 0
        self._marks.append(marks.translate(None, self._mark).replace(b'""', b""))
        before = self._before
        self._is_odd = (
            self._is_odd
            or 0 in chunk
            or _has_blank_line(chunk)
            or _has_blank_line(before + chunk[:2])
            or ((b'"' in chunk or b'"' in before) and self._has_space_at_quote(before + chunk))
        )
        self._before = (before + chunk[-2:])[-2:]

    def _has_space_at_quote(self, text: bytes) -> bool:
        return (b' "' in text or b'" ' in text) and bool(self._space_at_quote.search(text))

    def count(self, width: int) -> Counts:
        """Return the counts of what was seen, for records of `width` fields."""
        marks = b"".join(self._marks)
        returns, pairs, feeds = (marks.count(mark) for mark in (b"\r", b"\r\n", b"\n"))
        one_kind_of_line_end = returns == 0 or feeds == 0 or returns == pairs == feeds
        unended = int(bool(self._marks) and not self._before.endswith(self._line_end))
        lines = marks.count(self._line_end) + unended
        outside = sum(part.count(self._line_end) for part in marks.split(b'"')[::2])
        records = outside + unended
        return Counts(
            lines=lines,
            records=records,
            quoted_line_ends=lines - records,
            is_regular=(
                not self._is_quoted
                and not self._is_odd
                and one_kind_of_line_end
                and self._delimiters == records * (width - 1)
            ),
        )


def _encoding_by_mark(file: LandedFile, compression: str | None) -> str:
    with open_csv(file, compression) as stream:
        start = stream.read(len(UTF8_BOM))
    if start.startswith(UTF16_BOMS):
        return "utf-16"
    return "utf-8-sig" if start == UTF8_BOM else "utf-8"


class _Utf8Check:
    """Looks on while a file's chunks pass: are its letters beyond ASCII those of UTF-8?"""

    def __init__(self) -> None:
        self.decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.has_good = False
        self.bad: Counter[str] = Counter()
        self.in_words = 0

    @property
    def looks_single_byte(self) -> bool:
        """Tell whether bytes that are not UTF-8 are a single-byte encoding's letters, or damage.

        They are letters where nothing in the file is a letter of UTF-8, which would be misread,
        most stand in words, and all could be characters. Words without a letter of ASCII could be
        in any encoding.
        """
        bytes_found = {ord(letter) - 0xDC00 for letter in self.bad}
        return (
            bool(self.bad)
            and not self.has_good
            and 2 * self.in_words >= self.bad.total()
            and not NOT_IN_SINGLE_BYTE & bytes_found
        )

    @property
    def bad_byte(self) -> int | None:
        """The most frequent byte that is not UTF-8."""
        return ord(self.bad.most_common(1)[0][0]) - 0xDC00 if self.bad else None

    def see(self, chunk: bytes, *, is_end: bool = False) -> None:
        """Take the next chunk, or the end of the file."""
        if chunk.isascii() and not self.decoder.getstate()[0] and not is_end:
            return
        text = self.decoder.decode(chunk, final=is_end)
        try:
            self.has_good |= len(text.encode()) > len(text)
        except UnicodeEncodeError:
            bad = _BAD.findall(text)
            self.bad.update(bad)
            self.in_words += len(_IN_A_WORD.findall(text))
            self.has_good |= len(text.encode(errors="ignore")) + len(bad) > len(text)


def _has_blank_line(text: bytes) -> bool:
    return b"\n\n" in text or (b"\r" in text and (b"\n\r\n" in text or b"\r\r" in text))


def _refuse_other_formats(start: bytes) -> None:
    for pattern, found in OTHER_FORMATS.items():
        if re.match(pattern, start, re.IGNORECASE):
            raise FileRefused(f"holds {found}: expected CSV text; convert it, or fetch it again")


@dataclass(frozen=True)
class _Header:
    """The column names, the physical lines down to their end, and the delimiter."""

    names: tuple[str, ...] = ()
    lines: int = 0
    delimiter: str = DELIMITERS[0]
    is_declared: bool = False


def _read_header(start: bytes, line_end: bytes, delimiter: str | None) -> _Header:
    """Read the header of CSV text that begins with `start`; a file without text has no column.

    `delimiter` is the one that the source is known to have, unless the file itself declares one.
    Bytes that are not UTF-8 come back as lone surrogates.
    """
    text = start.removeprefix(UTF8_BOM).decode(errors="surrogateescape")
    if not text:
        return _Header()
    end = line_end.decode()
    lines = [line + end for line in text.split(end)]
    declared = DECLARATION.fullmatch(lines[0].rstrip("\r\n"))
    above = int(bool(declared))
    if declared:
        delimiter = declared[1]
        if not is_delimiter(delimiter):
            raise FileRefused(
                f"line 1: declares {delimiter!r} to be the delimiter: expected a sign"
            )
    line, lines = f"line {above + 1}", lines[above:]
    delimiter = delimiter or _delimiter(lines if len(start) < CHUNK_BYTES else lines[:-1])
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = tuple(next(reader, ()))
    except csv.Error as error:
        reason = str(error)
        if "new-line" in reason:
            reason = "a CR without LF, and an LF elsewhere; save it with one kind of line end"
        raise FileRefused(f"{line}: the header cannot be read as CSV: {reason}") from None
    if reader.line_num == len(lines) and len(start) >= CHUNK_BYTES:
        raise FileRefused(f"{line}: the header does not end within {CHUNK_BYTES:,} bytes")
    if not header:
        raise FileRefused(f"{line}: found a blank line, expected the column names")
    if "\0" in "".join(header):
        raise FileRefused(
            f"{line}: the header holds NUL bytes: expected text; if it is UTF-16 without byte order"
            " mark, say so in ingest/sources.toml"
        )
    return _Header(header, above + reader.line_num, delimiter, bool(declared))


def _delimiter(lines: list[str]) -> str:
    """Return the delimiter of CSV text that begins with these lines, the header first.

    That is the one that gives the header the most fields and at least half of the first records as
    many; of equal ones, the one of which more records are so. Raises FileRefused where neither
    tells.
    """
    fits = {}
    for delimiter in DELIMITERS:
        widths = []
        with suppress(csv.Error):
            for record in islice(csv.reader(lines, delimiter=delimiter, strict=True), 1 + SAMPLE):
                widths.append(len(record))
        width, *others = [width for width in widths if width] or [0]
        share = others.count(width) / len(others) if others else 0
        if width > 1:
            fits[delimiter] = (share >= 0.5, width, share)
    if not fits:
        return DELIMITERS[0]
    best, *others = sorted(fits, key=fits.get, reverse=True)
    if others and fits[others[0]] == fits[best]:
        raise FileRefused(
            f"line 1: {best!r} or {others[0]!r} may be the delimiter, and the lines that follow do"
            " not tell: name it in ingest/sources.toml"
        )
    return best


def _decoded(header: tuple[str, ...], encoding: str) -> tuple[str, ...]:
    """Return the column names in the file's encoding, once it is known."""
    try:
        return tuple(name.encode(errors="surrogateescape").decode(encoding) for name in header)
    except UnicodeDecodeError as error:
        raise FileRefused(
            f"the header is not valid UTF-8: byte 0x{error.object[error.start]:02x}; save"
            " the file as UTF-8, or name its encoding in ingest/sources.toml"
        ) from None
