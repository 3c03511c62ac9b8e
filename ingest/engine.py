"""What a warehouse asks of the database engine under it. Each engine is a module of its own."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa

from ingest.errors import LoadError

RAW = "raw"


class Engine(ABC):
    """An open connection to one database, and what its engine does in a way of its own.

    `database` is how messages name it, `workspace` a folder for work in progress that is this
    load's alone, `error` the class or classes of the errors that the engine raises, `types` its
    names of the types that raw tables have, by dlt's. `has_marts` tells whether dbt builds in it.
    """

    database: str
    workspace: Path
    error: type[Exception] | tuple[type[Exception], ...]
    types: Mapping[str, str]
    has_marts: bool = True

    @abstractmethod
    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement, with a `?` for each parameter."""

    @abstractmethod
    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Return the rows that a statement answers, by column name."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """Make what is done in the block one transaction, undone where the block fails."""

    @abstractmethod
    def destination(self) -> Any:
        """Return the dlt destination, which makes the tables."""

    @abstractmethod
    def client(self, pipeline: Any) -> AbstractContextManager[Any]:
        """Open dlt's client; in the block, it and this engine work in the same session."""

    @abstractmethod
    def insert(self, table: str, parquets: Sequence[Path], load_id: str) -> None:
        """Add the rows of Parquet files, in bulk, to a raw table, each with the load id."""

    @abstractmethod
    def check(self, table: str, columns: Sequence[str], parquet: Path) -> None:
        """Raise FileRefused where the raw table cannot hold a file's rows.

        A file that passes is taken to be loaded with those that are checked after it.
        """

    def rows(self, sql: str) -> AbstractContextManager[pa.RecordBatchReader]:
        """Stream the rows that a query answers, each column in the type that the engine gives it.

        Raises LoadError where the engine cannot, or has a type that files do not.
        """
        raise LoadError(f"rows of {self.database} cannot be streamed")

    @abstractmethod
    def expect_columns(self, width: int) -> None:
        """Get ready for tables of so many columns."""

    def delete(self, table: str, where: str, parameters: Sequence[Any]) -> None:
        """Delete the rows of a raw table for which a condition holds, in a transaction."""
        self.execute(f'delete from {RAW}."{table}" where {where}', parameters)

    def count(self, table: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Return how many rows of a raw table have the same values in some columns of text.

        Each answer has these values and the `row_count`.
        """
        by = ", ".join(columns)
        return self.query(f'select {by}, count(*) as row_count from {RAW}."{table}" group by {by}')

    def is_interruption(self, error: BaseException) -> bool:
        """Tell whether an error is how the engine says that Ctrl-C was pressed."""
        return False

    def reason(self, error: Exception) -> str:
        """Say in one line what is wrong, given an error of the engine or the file system."""
        return str(error).strip().splitlines()[0]
