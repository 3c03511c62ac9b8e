"""What a file was delivered in: plain, compressed or in a zip archive, in some encoding."""

import codecs
import errno
import hashlib
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import pyarrow as pa

from ingest.errors import FileRefused, Unread
from ingest.landing import CSV, ENDINGS, JSON_LINES, LandedFile, form_of

CHUNK_BYTES = 1 << 20
ZIP = "zip"
COMPRESSIONS = {
    rb"\x1f\x8b": "gzip",
    rb"BZh([1-9]|\Z)": "bz2",
    rb"\x28\xb5\x2f\xfd": "zstd",
    rb"PK(\x03\x04|\x05\x06)": ZIP,
}
# Every document of Microsoft Office is a zip archive with this member.
OFFICE = "[Content_Types].xml"
# The last two come of a zip archive's directory: a version that Python does not know, or a name
# that is no text.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    UnicodeDecodeError,
)
UTF8_BOM = b"\xef\xbb\xbf"
UTF16_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
UTF8 = ("utf-8", "utf-8-sig")


class NoData(FileRefused):
    """A zip archive holds nothing that can be loaded."""


def compression_of(path: Path) -> str | None:
    """Return how a file is packed, by its first bytes: gzip, bz2, zstd, zip, or None for not."""
    with path.open("rb") as stream:
        start = stream.read(10)
    return next((name for magic, name in COMPRESSIONS.items() if re.match(magic, start)), None)


def unfold(file: LandedFile) -> tuple[list[LandedFile], list[str]]:
    """Return the CSV files that a delivered file holds, and the names of its other members.

    Only a zip archive holds more than itself. Raises FileRefused for one that cannot be read or
    holds no CSV file, and OSError where the file cannot be opened.
    """
    if not file.path.is_file():
        file.path.stat()
        raise FileRefused("is not a regular file")
    if compression_of(file.path) != ZIP:
        return [file], []
    with _damage_refused(ZIP), zipfile.ZipFile(file.path) as archive:
        names = sorted(entry.filename for entry in archive.infolist() if not entry.is_dir())
    data = [name for name in names if _is_data(name)]
    if OFFICE in names:
        raise NoData("holds an Excel workbook: expected CSV text; save it as CSV")
    if not data:
        held = ", ".join(names[:3]) or "nothing"
        raise NoData(f"a zip archive without a CSV file (it holds {held}): expected one")
    if len(set(data)) < len(data):
        raise FileRefused("a zip archive with two members of one name: pack it anew")
    members = [replace(file, name=f"{file.name}/{name}", member=name) for name in data]
    return members, [name for name in names if not _is_data(name)]


def _is_data(name: str) -> bool:
    """Tell whether an archive's member is data: macOS adds hidden twins of each file."""
    path = PurePosixPath(name)
    is_hidden = path.name.startswith(".") or "__MACOSX" in path.parts
    return form_of(name) in (CSV, JSON_LINES) and path.suffix.lower() in ENDINGS and not is_hidden


class Hashed(io.BufferedIOBase):
    """A stream that is read through; `digest` has seen every byte that was read."""

    def __init__(self, stream: BinaryIO):
        self.stream = stream
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        """Return True: it is read from the start to the end."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the next `size` bytes, fewer only at the end."""
        chunk = self.stream.read(size)
        self.digest.update(chunk)
        return chunk

    read1 = read


@contextmanager
def open_csv(file: LandedFile, compression: str | None) -> Iterator[Hashed]:
    """Open a CSV file as it was delivered, unpacked but in its own encoding.

    Raises FileRefused, also while it is read, for a damaged archive, and OSError where the file
    cannot be opened.
    """
    with _damage_refused(compression), file.path.open("rb") as packed:
        if compression is None:
            yield Hashed(packed)
        elif compression == ZIP:
            with zipfile.ZipFile(packed) as archive, _open_member(archive, file.member) as stream:
                yield Hashed(stream)
        else:
            with pa.CompressedInputStream(packed, compression) as stream:
                yield Hashed(stream)


def _open_member(archive: zipfile.ZipFile, member: str) -> BinaryIO:
    try:
        return archive.open(member)
    except (KeyError, RuntimeError) as error:
        # Gone since it was listed; encrypted, or packed by a method that Python does not know.
        reason = error.args[0] if error.args else error
        raise FileRefused(f"a zip archive that cannot be unpacked: {reason}") from error


@contextmanager
def _damage_refused(compression: str | None) -> Iterator[None]:
    """Turn what the libraries say of a damaged archive into FileRefused."""
    try:
        yield
    except (*DAMAGE, OSError) as error:
        # The operating system's errors have a number, those of a decompressor have none; but an
        # invalid argument is an offset that only the damaged directory of a zip archive gives.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise FileRefused(f"a damaged {compression} file: {error}; deliver it again") from error


def as_utf8(stream: BinaryIO, encoding: str) -> Iterator[bytes]:
    """Yield a stream's text as UTF-8 without byte order mark, in chunks.

    Raises FileRefused at the first byte that is not valid in `encoding`.
    """
    text = io.TextIOWrapper(stream, encoding, newline="")
    lines = 1
    try:
        while chunk := text.read(CHUNK_BYTES):
            lines += chunk.count("\n")
            yield chunk.encode()
    except UnicodeError as error:
        found = f"byte 0x{error.object[error.start]:02x}" if _has_byte(error) else str(error)
        raise FileRefused(
            f"is not valid {encoding}: {found} after line {lines}; mend the file, or name its"
            " encoding in ingest/sources.toml"
        ) from None
    finally:
        text.detach()


def _has_byte(error: UnicodeError) -> bool:
    return isinstance(error, UnicodeDecodeError) and error.start < len(error.object)


@contextmanager
def utf8_file(
    file: LandedFile, compression: str | None, encoding: str | None, file_id: str, workspace: Path
) -> Iterator[Path]:
    """Give the path of a plain UTF-8 file: the delivered one, or a copy made in `workspace`.

    A file without `encoding` is no text, and given as it is.
    Raises FileRefused where the bytes are no longer those that had the SHA-256 `file_id`.
    """
    if compression is None and encoding in (*UTF8, None):
        yield file.path
        return
    copy = workspace / "unpacked.csv"
    with open_csv(file, compression) as stream, copy.open("wb") as unpacked:
        for chunk in (
            iter(lambda: stream.read(CHUNK_BYTES), b"")
            if encoding in UTF8
            else as_utf8(stream, encoding)
        ):
            unpacked.write(chunk)
    try:
        if stream.digest.hexdigest() != file_id:
            raise Unread("it changed while it was read: load it again when it is complete")
        yield copy
    finally:
        copy.unlink()
