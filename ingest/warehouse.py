"""The warehouse: what it holds, and how a batch of files gets into it, whole or not at all."""

import json
import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.errors import LoadError
from ingest.landing import InTable, LandedFile
from ingest.read import FILE_ID, LOAD_ID, ROW_NUMBER, Reject, column_names
from ingest.scan import Scan

PROJECT = Path(__file__).resolve().parent.parent
RAW = "raw"
OF_VERSION = "source_name || '_' || table_name = ? and file_id = ?"
# dlt's names of the types that the raw schema uses.
TEXT, BIGINT, TIMESTAMP, BOOL = "text", "bigint", "timestamp", "bool"
ARROW_TYPES = {
    TEXT: pa.string(),
    BIGINT: pa.int64(),
    TIMESTAMP: pa.timestamp("us", "UTC"),
    BOOL: pa.bool_(),
}
LINEAGE = {FILE_ID: TEXT, ROW_NUMBER: BIGINT, LOAD_ID: TEXT}
LANDED_FILES = {
    "file_id": TEXT,
    "source_name": TEXT,
    "table_name": TEXT,
    "path": TEXT,
    "bytes": BIGINT,
    "modified_at": TIMESTAMP,
    "loaded_at": TIMESTAMP,
    "header": TEXT,
    "encoding": TEXT,
    "delimiter": TEXT,
    "compression": TEXT,
    "records_read": BIGINT,
    "rows_loaded": BIGINT,
    "rows_rejected": BIGINT,
    "tags": TEXT,
    "is_current": BOOL,
    LOAD_ID: TEXT,
}
REJECTED_ROWS = {
    "file_id": TEXT,
    "source_name": TEXT,
    "table_name": TEXT,
    "line": BIGINT,
    "reason": TEXT,
    "raw_text": TEXT,
    LOAD_ID: TEXT,
}


@dataclass(frozen=True)
class Version(InTable):
    """One current file version in the registry: `raw.landed_files`."""

    file_id: str
    name: str
    size: int
    modified_us: int
    rows: int
    rejected: int


@dataclass(frozen=True)
class PreparedFile:
    """A file that was read to the end and waits as Parquet for its place in the warehouse.

    `replaces` names the file versions whose rows it takes the place of.
    """

    file: LandedFile
    scan: Scan
    columns: list[str]
    parquet: Path
    rows: int
    rejects: list[Reject]
    replaces: tuple[Version, ...]


def database_path(target: str | None) -> Path:
    """Return the database file that `profiles.yml` has for a target (default: its own).

    Raises LoadError where the file cannot be read, and for a target that is not there, or not one
    that the loader can write to.
    """
    import jinja2
    import yaml

    path = Path(os.environ.get("DBT_PROFILES_DIR", PROJECT), "profiles.yml")

    def env_var(name: str, default: str | None = None) -> str:
        value = os.environ.get(name, default)
        if value is None:
            raise LoadError(f"{path} asks for the environment variable {name}: set it")
        return value

    def render(text: str) -> str:
        return jinja2.Template(text, undefined=jinja2.StrictUndefined).render(env_var=env_var)

    try:
        profile = yaml.safe_load(path.read_text())["ontime"]
        target = target or render(profile["target"])
        outputs = profile["outputs"]
        if target not in outputs:
            raise LoadError(f"no target {target!r} in {path}: expected one of {', '.join(outputs)}")
        if render(outputs[target]["type"]) != "duckdb":
            raise LoadError(f"target {target!r} in {path} is not DuckDB: the loader knows no other")
        return PROJECT / render(outputs[target]["path"])
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, jinja2.TemplateError, ValueError, KeyError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise LoadError(f"{path} is not a dbt profile for ontime: {reason}") from error


@contextmanager
def open_warehouse(target: str | None, *, read_only: bool = False) -> Iterator["Warehouse"]:
    """Open the warehouse; while it is open for writing, no other process can open it.

    With `read_only`, a warehouse that does not exist yet is an empty one. Raises LoadError where
    it is held open by another process, cannot be written to, or the disk is full.
    """
    database = database_path(target)
    workspace = database.with_name(database.name + ".load")
    try:
        if read_only:
            path = str(database) if database.exists() else ":memory:"
            connection = duckdb.connect(path, read_only=database.exists())
        else:
            database.parent.mkdir(parents=True, exist_ok=True)
            connection = duckdb.connect(str(database))
            shutil.rmtree(workspace, ignore_errors=True)
            workspace.mkdir()
    except (duckdb.Error, OSError) as error:
        raise LoadError(_why_not_opened(database, error)) from None
    try:
        yield Warehouse(connection, workspace)
    except Exception as error:
        causes = list(_causes(error))
        if any(isinstance(each, KeyboardInterrupt | duckdb.InterruptException) for each in causes):
            raise KeyboardInterrupt from error
        for cause in causes:
            if isinstance(cause, OSError | duckdb.OperationalError | duckdb.FatalException):
                is_full = "No space left on device" in str(cause)
                reason = (
                    f"the disk of {database} is full" if is_full else str(cause).splitlines()[0]
                )
                raise LoadError(
                    f"{reason}: nothing of the running batch was loaded, the files committed"
                    " before it stay; run again when it is mended"
                ) from error
        raise
    finally:
        # In this order: once the connection is closed, the folder may be another load's.
        if not read_only:
            shutil.rmtree(workspace, ignore_errors=True)
        connection.close()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what caused it: dlt wraps what it does not know."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _why_not_opened(database: Path, error: Exception) -> str:
    holder = re.search(r"held in (.*?)\W*PID (\d+)", str(error))
    if holder:
        program, pid = holder.groups()
        return (
            f"{database} is held open by another process: {program or 'unknown'}, pid {pid}."
            " Close it there, then run this again"
        )
    return f"{database} cannot be opened: {str(error).splitlines()[0]}"


class Warehouse:
    """An open warehouse and a folder beside it for work in progress."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, workspace: Path):
        self.connection = connection
        self.workspace = workspace
        # Versions whose table somebody dropped: current in the registry, and nowhere else.
        self.lost: list[Version] = []

    def current_versions(self) -> list[Version]:
        """Return the registry's current file versions, but for those whose table is gone."""
        tables = self._tables()
        if "landed_files" not in tables:
            return []
        rows = self.connection.execute(
            f"""
            select
                source_name, table_name, file_id, path, bytes, epoch_us(modified_at),
                rows_loaded, rows_rejected
            from {RAW}.landed_files
            where is_current
            """
        ).fetchall()
        versions = [Version(*row) for row in rows]
        self.lost = [version for version in versions if version.raw_table not in tables]
        return [version for version in versions if version.raw_table in tables]

    def lacks_known_tables(self) -> bool:
        """Tell whether a known source's table, or the registry itself, is still to be made."""
        known = {*known_headers(), "landed_files", "rejected_rows"}
        return not known <= set(self._tables())

    def note_renamed(self, renamed: dict[Version, tuple[str, int]]) -> None:
        """Record new names and modification times (microseconds since 1970) of known bytes."""
        with _transaction(self.connection) as connection:
            for version, (name, modified_us) in renamed.items():
                connection.execute(
                    f"update {RAW}.landed_files set path = ?,"
                    f" modified_at = make_timestamp(?) at time zone 'UTC'"
                    f" where is_current and {OF_VERSION}",
                    [name, modified_us, version.raw_table, version.file_id],
                )

    def retire(self, versions: list[Version]) -> None:
        """Remove the rows of file versions whose bytes are gone for ones already loaded."""
        with _transaction(self.connection) as connection:
            for version in versions:
                _retire(connection, version)

    def commit(self, files: list[PreparedFile]) -> None:
        """Put a batch of files into the warehouse in one transaction.

        Their rows, their rejected rows, their entries in the registry, the removal of the rows
        that they replace, and dlt's own record of the load appear together or not at all.
        """
        os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
        os.environ.setdefault("RUNTIME__LOG_LEVEL", "ERROR")
        import dlt

        pipeline = dlt.pipeline(
            "ontime",
            pipelines_dir=str(self.workspace / "dlt"),
            destination=dlt.destinations.duckdb(self.connection),
            dataset_name=RAW,
        )
        pipeline.config.restore_from_destination = False
        pipeline.runtime_config.intercept_signals = False
        pipeline.extract(self._source(files))
        pipeline.normalize()
        (load_id,) = pipeline.list_normalized_load_packages()
        jobs = pipeline.get_load_package_info(load_id).jobs["new_jobs"]
        with pipeline.destination_client() as client:
            client.initialize_storage()
            # By force: dlt else takes it that the tables that it once made are still there.
            client.update_stored_schema(force=True)
            with client.sql_client.begin_transaction():
                connection = client.sql_client.native_connection
                for version in self.lost:
                    _note_retired(connection, version)
                for prepared in files:
                    for version in prepared.replaces:
                        _retire(connection, version)
                    # These bytes may have been here before, and been replaced since.
                    for registry in ("landed_files", "rejected_rows"):
                        connection.execute(
                            f"delete from {RAW}.{registry} where {OF_VERSION}",
                            [prepared.file.raw_table, prepared.scan.file_id],
                        )
                for job in jobs:
                    connection.execute(
                        f'insert into {RAW}."{job.job_file_info.table_name}" by name'
                        f" select *, ? as {LOAD_ID} from read_parquet(?)",
                        [load_id, job.file_path],
                    )
                client.complete_load(load_id)
        self.lost = []
        # The next batch starts from an empty folder, and finds no package of this one.
        shutil.rmtree(pipeline.pipelines_dir)

    def _source(self, files: list[PreparedFile]) -> Any:
        """Build the dlt source: one resource per raw table, its rows ready as Parquet files."""
        import dlt

        columns = {table: dict(known, **LINEAGE) for table, known in known_columns().items()}
        parquets: dict[str, list[Path]] = {table: [] for table in columns}
        for prepared in files:
            table = prepared.file.raw_table
            columns.setdefault(table, {}).update(dict.fromkeys(prepared.columns, TEXT), **LINEAGE)
            parquets.setdefault(table, []).append(prepared.parquet)
        registry = {
            "landed_files": (LANDED_FILES, [_registry_entry(prepared) for prepared in files]),
            "rejected_rows": (REJECTED_ROWS, [row for each in files for row in _reject_rows(each)]),
        }
        for table, (kinds, rows) in registry.items():
            columns[table] = kinds
            parquets[table] = [self._write_rows(table, kinds, rows)]

        def resource(table: str) -> Any:
            # A table without a file is made all the same, by a file without rows.
            ready = parquets[table] or [self._write_rows(table, LINEAGE, [])]
            marks = [dlt.mark.with_file_import(str(parquet), "parquet") for parquet in ready]
            hints = {name: {"data_type": kind} for name, kind in columns[table].items()}
            return dlt.resource(marks, name=table, columns=hints, file_format="parquet")

        @dlt.source(name=RAW, max_table_nesting=0)
        def landing_zone() -> list[Any]:
            return [resource(table) for table in columns]

        return landing_zone()

    def _write_rows(self, table: str, kinds: dict[str, str], rows: list[dict]) -> Path:
        """Write rows as a Parquet file, all columns but the load id, which dlt has yet to give."""
        parquet = self.workspace / f"{table}.parquet"
        fields = [(name, ARROW_TYPES[kind]) for name, kind in kinds.items() if name != LOAD_ID]
        pq.write_table(pa.Table.from_pylist(rows, pa.schema(fields)), parquet)
        return parquet

    def _tables(self) -> list[str]:
        rows = self.connection.execute(
            "select table_name from information_schema.tables where table_schema = $1", [RAW]
        ).fetchall()
        return [name for (name,) in rows]


def known_headers() -> dict[str, list[str]]:
    """Return the documented header of each known source's files, by raw table."""
    with (Path(__file__).parent / "sources.toml").open("rb") as stream:
        sources = tomllib.load(stream)
    return {
        f"{source}_{table}": header
        for source, tables in sources.items()
        for table, header in tables.items()
    }


def known_columns() -> dict[str, dict[str, str]]:
    """Return the columns of each known source's raw table, all text, by table name."""
    return {
        table: dict.fromkeys(column_names(tuple(header)), TEXT)
        for table, header in known_headers().items()
    }


def _registry_entry(prepared: PreparedFile) -> dict[str, Any]:
    """The row of `raw.landed_files` that records a file version as loaded."""
    file, scan = prepared.file, prepared.scan
    return {
        "file_id": scan.file_id,
        "source_name": file.source,
        "table_name": file.table,
        "path": file.name,
        "bytes": scan.size,
        "modified_at": scan.modified_us,
        "loaded_at": datetime.now(UTC),
        "header": json.dumps(scan.header, ensure_ascii=False),
        "encoding": scan.encoding,
        "delimiter": scan.delimiter,
        "records_read": prepared.rows + len(prepared.rejects),
        "rows_loaded": prepared.rows,
        "rows_rejected": len(prepared.rejects),
        "is_current": True,
    }


def _reject_rows(prepared: PreparedFile) -> Iterator[dict[str, Any]]:
    """The rows of `raw.rejected_rows` for one file."""
    for reject in prepared.rejects:
        yield {
            "file_id": prepared.scan.file_id,
            "source_name": prepared.file.source,
            "table_name": prepared.file.table,
            "line": reject.line,
            "reason": reject.reason,
            "raw_text": reject.raw_text,
        }


@contextmanager
def _transaction(
    connection: duckdb.DuckDBPyConnection,
) -> Iterator[duckdb.DuckDBPyConnection]:
    connection.begin()
    try:
        yield connection
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def _retire(connection: duckdb.DuckDBPyConnection, version: Version) -> None:
    """Remove a version's rows, and note in the registry that it is no longer current."""
    connection.execute(
        f'delete from {RAW}."{version.raw_table}" where {FILE_ID} = ?', [version.file_id]
    )
    _note_retired(connection, version)


def _note_retired(connection: duckdb.DuckDBPyConnection, version: Version) -> None:
    key = [version.raw_table, version.file_id]
    connection.execute(f"delete from {RAW}.rejected_rows where {OF_VERSION}", key)
    connection.execute(f"update {RAW}.landed_files set is_current = false where {OF_VERSION}", key)
