"""The warehouse in a DuckDB file."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pyarrow as pa

from ingest.columns import LOAD_ID
from ingest.engine import RAW, Engine
from ingest.errors import LoadError
from ingest.profile import PROJECT, Target

# A statement for each small file would take most of the time, all in one too much memory.
FILES_AT_ONCE = 50


@contextmanager
def open_engine(target: Target, *, read_only: bool) -> Iterator["DuckDB"]:
    """Open the database file; while it is open for writing, no other process can open it.

    With `read_only`, a file that does not exist yet is an empty database. Raises LoadError where
    it is held open by another process, or cannot be opened.
    """
    database = database_path(target)
    try:
        if read_only:
            path = str(database) if database.exists() else ":memory:"
            connection = duckdb.connect(path, read_only=database.exists())
        else:
            database.parent.mkdir(parents=True, exist_ok=True)
            connection = duckdb.connect(str(database))
    except (duckdb.Error, OSError) as error:
        raise LoadError(why_not_opened(database, error)) from None
    try:
        yield DuckDB(database, connection)
    finally:
        connection.close()


def database_path(target: Target) -> Path:
    """Return the database file that a target names."""
    return PROJECT / target["path"]


def why_not_opened(database: Path, error: Exception) -> str:
    """Say why DuckDB cannot open a file: who holds it, where somebody does."""
    holder = re.search(r"held in (.*?)\W*PID (\d+)", str(error))
    if holder:
        program, pid = holder.groups()
        return (
            f"{database} is held open by another process: {program or 'unknown'}, pid {pid}."
            " Close it there, then run this again"
        )
    return f"{database} cannot be opened: {str(error).splitlines()[0]}"


def literal(text: str) -> str:
    """Return a text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


class DuckDB(Engine):
    """A DuckDB file, open in this process."""

    error = duckdb.Error
    types: ClassVar = {
        "text": "VARCHAR",
        "bigint": "BIGINT",
        "timestamp": "TIMESTAMP WITH TIME ZONE",
        "bool": "BOOLEAN",
    }

    def __init__(self, database: Path, connection: duckdb.DuckDBPyConnection):
        self.database = str(database)
        self.workspace = database.with_name(database.name + ".load")
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement."""
        self._connection.execute(sql, parameters)

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Return the rows that a statement answers."""
        # By way of Arrow: DuckDB's own Python objects need one more library for time zones.
        return self._connection.execute(sql, parameters).to_arrow_table().to_pylist()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make what is done in the block one transaction."""
        self._connection.begin()
        try:
            yield
        except BaseException:
            self._connection.rollback()
            raise
        self._connection.commit()

    def destination(self) -> Any:
        """Return the dlt destination of the same database."""
        import dlt

        return dlt.destinations.duckdb(self._connection)

    @contextmanager
    def client(self, pipeline: Any) -> Iterator[Any]:
        """Open dlt's client, whose connection is another one to the same database."""
        own = self._connection
        with pipeline.destination_client() as client:
            self._connection = client.sql_client.native_connection
            try:
                yield client
            finally:
                self._connection = own

    def insert(self, table: str, parquets: Sequence[Path], load_id: str) -> None:
        """Add the rows of Parquet files to a raw table, which may have more columns."""
        paths = [str(parquet) for parquet in parquets]
        for first in range(0, len(paths), FILES_AT_ONCE):
            self.execute(
                f'insert into {RAW}."{table}" by name select *, ? as {LOAD_ID}'
                " from read_parquet(?, union_by_name = true)",
                [load_id, paths[first : first + FILES_AT_ONCE]],
            )

    def check(self, table: str, columns: Sequence[str], parquet: Path) -> None:
        """Take everything: the rows were read by DuckDB itself."""

    @contextmanager
    def rows(self, sql: str) -> Iterator[pa.RecordBatchReader]:
        """Stream the rows that a query answers."""
        yield self._connection.execute(sql).to_arrow_reader()

    def expect_columns(self, width: int) -> None:
        """Set a limit to the memory that DuckDB may take for tables of `width` columns.

        Left alone, it keeps what it wrote in memory, up to most of the machine's. A column needs
        two blocks of 256 kB in each of a few threads.
        """
        # A limit below what it holds at the moment is refused: then the old one stays.
        with suppress(duckdb.OutOfMemoryException):
            self.execute(f"set memory_limit = '{400 + 2 * width}MB'")

    def is_interruption(self, error: BaseException) -> bool:
        """Tell whether DuckDB was stopped by Ctrl-C."""
        return isinstance(error, duckdb.InterruptException)
