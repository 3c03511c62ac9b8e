"""Give back the space that the warehouse's file no longer needs.

\b
    python ingest/compact.py --dry-run     say what the file holds, and what would be gained
    python ingest/compact.py               write it anew, without the gaps

A DuckDB file never gets smaller: what loads and builds replace leaves free blocks in it, for later
rows. This writes the whole warehouse into a new file beside the old one, compares the two, and only
then gives the new file the old one's name. Nobody else may have the file open meanwhile.

Exit codes: 0 the file was compacted, or there was nothing to gain; 1 it was left as it was, and the
message says why; 2 the command line is wrong; 130 interrupted. Whatever happens, the file is whole:
the old one or the new one. What a killed run leaves behind is removed by the next.
"""

import fcntl
import glob
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    # Run as a script, Python looks for modules in this folder; `ingest` itself lies above it.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from ingest import interrupts

    interrupts.end_at_once()

import click
import duckdb

from ingest import interrupts
from ingest.errors import LoadError
from ingest.landing import sync
from ingest.on_duckdb import database_path, literal, why_not_opened
from ingest.options import target_option
from ingest.profile import read_target
from ingest.report import Report

# What DuckDB may take, whatever the size of the file: left alone, it takes most of the machine's.
MEMORY_LIMIT = "1GB"
# How much larger than the blocks in use the new file may get: compression is chosen anew.
SPARE = 1.1
# Where DuckDB lists what a database holds.
CATALOG = (
    *("duckdb_schemas", "duckdb_tables", "duckdb_columns", "duckdb_constraints", "duckdb_indexes"),
    *("duckdb_views", "duckdb_sequences", "duckdb_types", "duckdb_functions"),
)
# What it lists with them that is another in another file.
OF_THE_FILE = r"(^|_)oids?$|^(database_name|estimated_size|constraint_index)$"

Table = tuple[str, str]
Stamp = tuple[int, int, int, bool]


@dataclass(frozen=True)
class Space:
    """How a DuckDB file is filled; all sizes are in bytes."""

    size: int
    used: int
    free: int


@click.command(help=__doc__)
@target_option
@click.option("--dry-run", is_flag=True, help="Say what would likely be gained, do nothing.")
def main(target: str | None, dry_run: bool) -> None:
    """Run the command. The text of `--help` is the module's."""
    interrupts.raise_them()
    try:
        settings = read_target(target)
        if settings["type"] != "duckdb":
            raise LoadError(
                f"target {settings.name!r} is no DuckDB file, and only such a file is compacted:"
                " a server gives back space by itself"
            )
        database = database_path(settings)
        if database.name == ":memory:":
            raise LoadError("a warehouse in memory has no file to compact: name another target")
        if not database.exists():
            raise LoadError(f"there is no warehouse {database}: `python ingest/load.py` makes it")
        with told_plainly(database):
            if dry_run:
                look(database)
            else:
                compact(database, Report())
    except KeyboardInterrupt:
        click.echo("Interrupted. The warehouse is whole.", err=True)
        sys.exit(interrupts.INTERRUPTED)


@contextmanager
def told_plainly(database: Path) -> Iterator[None]:
    """Turn the errors of DuckDB and of the disk into a LoadError, and Ctrl-C into what it is."""
    try:
        yield
    except (duckdb.Error, OSError, RuntimeError) as error:
        if isinstance(error, duckdb.InterruptException) or "interrupted" in str(error).lower():
            raise KeyboardInterrupt from error
        reason = str(error).splitlines()[0]
        if isinstance(error, OSError):
            reason = f"{error.filename or database}: {(error.strerror or reason).lower()}"
        if "No space left on device" in str(error):
            reason = f"the disk of {database} is full"
        raise LoadError(f"{reason}. The warehouse is whole") from error


def look(database: Path) -> None:
    """Say what the file holds, and what compacting it would likely gain."""
    with opened(database, read_only=True) as connection:
        space = space_of(connection, database)
        click.echo(f"{database}: {in_mb(space.size)}, {content_in_words(connection)}")
    wal = wal_of(database)
    if wal.exists():
        click.echo(f"{wal}: {in_mb(wal.stat().st_size)} that are not in the file yet")
    click.echo(
        f"Would give back {in_mb(space.free)} of free blocks, and what deleted rows left in others;"
        f" may need {in_mb(needed(space))} of disk space meanwhile."
    )


def compact(database: Path, report: Report) -> None:
    """Write the warehouse into a new file, compare, and put that into the old one's place.

    Raises LoadError where another process has the file open, where there is not enough disk space,
    and where the new file does not hold what the old one does.
    """
    started = time.perf_counter()
    # A link stays one: the file that it leads to is replaced.
    database = database.resolve()
    # Of this process alone: what another one has under way is never removed with it.
    folder = database.with_name(f"{database.name}.compact-{os.getpid()}")
    new = folder / database.name
    try:
        with opened(database) as connection:
            # Nobody else can have it open now: a folder that is there is a leftover.
            for leftover in database.parent.glob(f"{glob.escape(database.name)}.compact*"):
                shutil.rmtree(leftover, ignore_errors=True)
            connection.execute("checkpoint")
            space = space_of(connection, database)
            check_disk(database, space)
            content = content_in_words(connection)
            report.say("compacting", f"{database}: {content}, {in_mb(space.size)}")
            folder.mkdir()
            write_copy(connection, new, report)
            gain = space.size - new.stat().st_size
            # Only looked at: DuckDB would lose its lock if this process opened and closed the file.
            stamp = stamp_of(database)
        if gain > 0:
            with locked(database, stamp):
                # On the disk before it has the name. The new one is the old one's in all but size.
                shutil.copystat(database, new)
                os.chown(new, database.stat().st_uid, database.stat().st_gid)
                sync(new)
                new.replace(database)
                sync(database.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.perf_counter() - started
    if gain > 0:
        result = f"{in_mb(space.size)} before, {in_mb(space.size - gain)} after"
    else:
        result = f"{in_mb(space.size)}, no smaller when written anew, so left as it was"
    click.echo(f"{database}: {result}; {seconds:.1f} s")


@contextmanager
def opened(database: Path, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the file, unless somebody else has it open. Raises LoadError."""
    try:
        connection = duckdb.connect(str(database), read_only=read_only)
    except (duckdb.Error, OSError) as error:
        raise LoadError(why_not_opened(database, error)) from None
    with connection:
        yield connection


@contextmanager
def locked(database: Path, stamp: Stamp) -> Iterator[None]:
    """Keep DuckDB in other processes from opening the file, by the kind of lock that it uses.

    Raises LoadError where one has opened it already, or changed it since it had this `stamp`.
    """
    with database.open("rb+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            is_free = False
        else:
            is_free = stamp_of(database) == stamp
        if not is_free:
            raise LoadError(
                f"another process opened {database} just now: it stays as it was. Close it there,"
                " then run this again"
            )
        yield


def stamp_of(database: Path) -> Stamp:
    """Return what changes when somebody writes to the warehouse."""
    status = database.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, wal_of(database).exists()


def wal_of(database: Path) -> Path:
    """Return where DuckDB keeps what was committed and is not in the file yet."""
    return database.with_name(f"{database.name}.wal")


def space_of(connection: duckdb.DuckDBPyConnection, database: Path) -> Space:
    """Return how the open file is filled."""
    block, used, free = connection.sql(
        "select block_size, used_blocks, free_blocks from pragma_database_size()"
        " where database_name = current_database()"
    ).fetchone()
    return Space(database.stat().st_size, used * block, free * block)


def needed(space: Space) -> int:
    """Return how many bytes of disk space the new file may take."""
    return int(space.used * SPARE)


def check_disk(database: Path, space: Space) -> None:
    """Raise LoadError where the new file would not fit on the disk."""
    free = shutil.disk_usage(database.parent).free
    if free < needed(space):
        raise LoadError(
            f"the disk of {database} has {in_mb(free)} free, and the new file may need"
            f" {in_mb(needed(space))}: make room first"
        )


def content_in_words(connection: duckdb.DuckDBPyConnection) -> str:
    """Say how much the open database holds."""
    database = name_of(connection)
    found = tables(connection, database)
    rows = sum(count(connection, database, table) for table in found)
    views = connection.sql(
        "select count(*) from duckdb_views() where database_name = $1 and not internal",
        params=[database],
    ).fetchone()[0]
    return f"{len(found)} tables with {rows:,} rows, {views} views"


def write_copy(connection: duckdb.DuckDBPyConnection, new: Path, report: Report) -> None:
    """Write all that the open database holds into a new file, and compare.

    COPY FROM DATABASE keeps the order of rows, constraints, comments and the SQL of views, which
    have the database's name in it, word by word. Raises LoadError where something differs.
    """
    old = name_of(connection)
    # The new file has the same name, and cannot have it while both are open.
    copy = f"{old} compacted"
    connection.execute(f"set memory_limit = '{MEMORY_LIMIT}'")
    connection.execute(f"set temp_directory = {literal(str(new.with_name('spilled')))}")
    version = literal(storage(connection))
    connection.execute(f"attach {literal(str(new))} as {quoted(copy)} (storage_version {version})")
    report.say("copying", "writing it anew")
    connection.execute(f"copy from database {quoted(old)} to {quoted(copy)}")
    connection.execute(f"checkpoint {quoted(copy)}")
    for function in CATALOG:
        compare(function, *(listed(connection, function, each) for each in (old, copy)))
    found = tables(connection, old)
    rows = sum(count(connection, old, table) for table in found)
    with report.progress("comparing", rows, "rows") as advance:
        for table in found:
            of_old, of_copy = (checksum(connection, each, table) for each in (old, copy))
            compare(".".join(table), of_old, of_copy)
            advance(of_old[0])
    connection.execute(f"detach {quoted(copy)}")


def compare(what: str, old: object, new: object) -> None:
    """Raise LoadError where the new file does not hold what the old one does."""
    if old != new:
        raise LoadError(
            f"{what} is not the same in the new file: the old one stays in its place."
            " Please report this, with the version of DuckDB"
        )


def listed(connection: duckdb.DuckDBPyConnection, function: str, database: str) -> list[tuple]:
    """Return what DuckDB lists in one of its catalog functions for a database."""
    return connection.sql(
        f"select columns(lambda name: not regexp_matches(name, {literal(OF_THE_FILE)}))"
        f" from {function}() where database_name = $1 order by all",
        params=[database],
    ).fetchall()


def tables(connection: duckdb.DuckDBPyConnection, database: str) -> list[Table]:
    """Return the schema and the name of each table."""
    return connection.sql(
        "select schema_name, table_name from duckdb_tables() where database_name = $1 order by all",
        params=[database],
    ).fetchall()


def count(connection: duckdb.DuckDBPyConnection, database: str, table: Table) -> int:
    """Return the number of rows of a table."""
    return connection.sql(f"select count(*) from {quoted(database, *table)}").fetchone()[0]


def checksum(
    connection: duckdb.DuckDBPyConnection, database: str, table: Table
) -> tuple[int, int | None]:
    """Return the number of rows of a table, and a number that changes with any value in it."""
    return connection.sql(
        f"select count(*), sum(hash(*columns(*))::hugeint) from {quoted(database, *table)}"
    ).fetchone()


def storage(connection: duckdb.DuckDBPyConnection) -> str:
    """Return the version of the open file's format, which the same tools are to read after."""
    (version,) = connection.sql(
        "select tags['storage_version'] from duckdb_databases()"
        " where database_name = current_database()"
    ).fetchone()
    return version.removesuffix("+")


def name_of(connection: duckdb.DuckDBPyConnection) -> str:
    """Return the name that the open database has in SQL."""
    return connection.sql("select current_database()").fetchone()[0]


def quoted(*names: str) -> str:
    """Return a name of one or several parts as SQL has it."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def in_mb(size: int) -> str:
    """Say a number of bytes in megabytes."""
    return f"{size / 1e6:,.1f} MB"


if __name__ == "__main__":
    main()
