"""The warehouse: what it holds, and how a batch of files gets into it, whole or not at all."""

import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import astuple, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.columns import FILE_ID, LOAD_ID, ROW_NUMBER, column_names, known_sources
from ingest.errors import LoadError
from ingest.landing import InTable, LandedFile, Place
from ingest.read import Reject
from ingest.scan import Scan

PROJECT = Path(__file__).resolve().parent.parent
RAW = "raw"
# A statement for each small file would take most of the time, all in one too much memory.
FILES_AT_ONCE = 50
OF_VERSION = "source_name || '_' || table_name = ? and file_id = ?"
# dlt's names of the types that the raw schema uses.
TEXT, BIGINT, TIMESTAMP, BOOL = "text", "bigint", "timestamp", "bool"
ARROW_TYPES = {
    TEXT: pa.string(),
    BIGINT: pa.int64(),
    TIMESTAMP: pa.timestamp("us", "UTC"),
    BOOL: pa.bool_(),
}
SQL_TYPES = {
    TEXT: "VARCHAR",
    BIGINT: "BIGINT",
    TIMESTAMP: "TIMESTAMP WITH TIME ZONE",
    BOOL: "BOOLEAN",
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
    "column_names": TEXT,
    "column_changes": TEXT,
    "encoding": TEXT,
    "delimiter": TEXT,
    "compression": TEXT,
    "records_read": BIGINT,
    "rows_loaded": BIGINT,
    "rows_rejected": BIGINT,
    "tags": TEXT,
    "places": TEXT,
    "is_current": BOOL,
    "retired_at": TIMESTAMP,
    "retired_because": TEXT,
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


REPLACED, FORGOTTEN = "replaced", "forgotten"


@dataclass(frozen=True)
class Version(InTable):
    """One file version in the registry, `raw.landed_files`.

    `header` holds the columns as the file spells them, `columns` their names in the raw table.
    `places` are all where these bytes were seen; `name` is that of the first.
    """

    file_id: str
    header: tuple[str, ...]
    columns: tuple[str, ...]
    rows: int
    rejected: int
    places: tuple[Place, ...]
    changes: Mapping[str, object] = field(hash=False)
    is_current: bool
    is_forgotten: bool

    @property
    def name(self) -> str:
        """The name by which the registry lists the version."""
        return self.places[0].name

    @property
    def content(self) -> tuple[str, str]:
        """What identifies the version: its raw table and the SHA-256 of its bytes."""
        return self.raw_table, self.file_id


@dataclass(frozen=True)
class PreparedFile:
    """A file that was read to the end and waits as Parquet for its place in the warehouse.

    `columns` are its columns' names in the raw table, `changes` how they differ from those of the
    file before. `places` are all where its bytes lie, its own first. `rejects` is a Parquet file of
    its rejected records, None for none; `first_reject` is the first of them.
    """

    file: LandedFile
    scan: Scan
    columns: tuple[str, ...]
    changes: Mapping[str, object]
    places: tuple[Place, ...]
    parquet: Path
    rows: int
    rejected: int
    first_reject: Reject | None
    rejects: Path | None


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
        raise LoadError(why_not_opened(database, error)) from None
    try:
        yield Warehouse(connection, workspace)
    except Exception as error:
        causes = list(_causes(error))
        if any(isinstance(each, KeyboardInterrupt | duckdb.InterruptException) for each in causes):
            raise KeyboardInterrupt from error
        for cause in causes:
            if isinstance(cause, OSError | duckdb.Error):
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


class Warehouse:
    """An open warehouse and a folder beside it for work in progress."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, workspace: Path):
        self.connection = connection
        self.workspace = workspace
        # Versions whose table somebody dropped: current in the registry, and nowhere else.
        self.lost: list[Version] = []

    def versions(self) -> list[Version]:
        """Return the registry's file versions, those first that were loaded first.

        One whose table is gone does not count as current.
        """
        tables = self._tables()
        if "landed_files" not in tables:
            return []
        # Whatever columns there are: a registry that an earlier release wrote has fewer.
        rows = self.connection.execute(
            f"select *, epoch_us(modified_at) as modified_us from {RAW}.landed_files"
            " order by loaded_at, path"
        ).to_arrow_table()
        versions = [_version(row) for row in rows.to_pylist()]
        lost = [each for each in versions if each.is_current and each.raw_table not in tables]
        self.lost = lost
        return [replace(each, is_current=False) if each in lost else each for each in versions]

    def is_incomplete(self) -> bool:
        """Tell whether a known source's table, or the registry itself, is still to be made."""
        known = {table for table, source in known_sources().items() if source.columns}
        return not known <= set(self._tables()) or not self._has_own_registry()

    def _has_own_registry(self) -> bool:
        """Tell whether the registry has all columns; that of an earlier release has fewer."""
        rows = self.connection.execute(
            "select column_name from information_schema.columns"
            " where table_schema = $1 and table_name = 'landed_files'",
            [RAW],
        ).fetchall()
        return set(LANDED_FILES) <= {name for (name,) in rows}

    def _change_registry(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """Open a transaction in which the registry's entries can be changed."""
        if not self._has_own_registry():
            self.commit([], [])
        return _transaction(self.connection)

    def note_moved(self, moved: dict[Version, tuple[Place, ...]]) -> None:
        """Record where known bytes lie now."""
        if not moved:
            return
        with self._change_registry() as connection:
            for version, places in moved.items():
                first = places[0]
                connection.execute(
                    f"update {RAW}.landed_files set path = ?, bytes = ?,"
                    " modified_at = make_timestamp(?) at time zone 'UTC', compression = ?,"
                    f" places = ? where {OF_VERSION}",
                    [
                        first.name,
                        first.size,
                        first.modified_us,
                        first.compression,
                        _places_json(places),
                        *version.content,
                    ],
                )

    def retire(self, versions: list[Version], because: str) -> None:
        """Remove the rows of file versions, and record in the registry when and why."""
        if not versions:
            return
        with self._change_registry() as connection:
            for version in versions:
                _retire(connection, version, because)

    def miscounted(self) -> list[str]:
        """Compare each raw table with the registry, by counting; say each file that differs."""
        versions = [version for version in self.versions() if version.is_current]
        found = [
            f"raw.{version.raw_table} is gone, and raw.landed_files lists {version.name} as"
            f" current, with {version.rows:,} rows: load it again"
            for version in self.lost
        ]
        for table in sorted({version.raw_table for version in versions}):
            rows = self.connection.execute(
                f'select {FILE_ID}, count(*) from {RAW}."{table}" group by {FILE_ID}'
            ).fetchall()
            held = dict(rows)
            for version in versions:
                if version.raw_table == table:
                    count = held.pop(version.file_id, 0)
                    if count != version.rows:
                        found.append(
                            f"raw.{table} holds {count:,} rows of {version.name}, and"
                            f" raw.landed_files says {version.rows:,}: load it again with"
                            " --full-refresh and its path"
                        )
            found += [
                f"raw.{table} holds {count:,} rows of the file id {file_id}, which"
                " raw.landed_files does not list as current"
                for file_id, count in held.items()
            ]
        if versions:
            rejects = self.connection.execute(
                f"select source_name || '_' || table_name, file_id, count(*)"
                f" from {RAW}.rejected_rows group by all"
            ).fetchall()
            counts = {(table, file_id): count for table, file_id, count in rejects}
            found += [
                f"raw.rejected_rows holds {counts.get(version.content, 0):,} records of"
                f" {version.name}, and raw.landed_files says {version.rejected:,}: load it again"
                " with --full-refresh and its path"
                for version in versions
                if counts.get(version.content, 0) != version.rejected
            ]
        return found

    def wrong_types(self, tables: set[str]) -> list[str]:
        """Say each column of these raw tables that somebody gave another type."""
        rows = self.connection.execute(
            "select table_name, column_name, data_type from information_schema.columns"
            " where table_schema = $1 order by table_name, ordinal_position",
            [RAW],
        ).fetchall()
        registry = {"landed_files": LANDED_FILES, "rejected_rows": REJECTED_ROWS}
        found = []
        for table, column, kind in rows:
            if table not in tables:
                continue
            expected = SQL_TYPES[registry.get(table, LINEAGE).get(column, TEXT)]
            if kind != expected:
                found.append(
                    f"{RAW}.{table}.{column} is {kind}, expected {expected}: change it back with"
                    f' `alter table {RAW}.{table} alter column "{column}" type {expected}`, then'
                    " run with --full-refresh, since other types do not keep the files' text"
                )
        return found

    def commit(self, files: list[PreparedFile], retired: list[Version]) -> None:
        """Put a batch of files into the warehouse in one transaction.

        Their rows, their rejected rows, their entries in the registry, the removal of the rows of
        the versions that they replace, and dlt's own record of the load appear together or not at
        all.
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
        paths_by_table = defaultdict(list)
        for job in pipeline.get_load_package_info(load_id).jobs["new_jobs"]:
            paths_by_table[job.job_file_info.table_name].append(job.file_path)
        with pipeline.destination_client() as client:
            client.initialize_storage()
            # By force: dlt else takes it that the tables that it once made are still there.
            client.update_stored_schema(force=True)
            with client.sql_client.begin_transaction():
                connection = client.sql_client.native_connection
                width = max((len(prepared.columns) for prepared in files), default=0)
                connection.execute(f"set memory_limit = '{_memory_mb(width)}MB'")
                for version in self.lost:
                    _note_retired(connection, version, REPLACED)
                for version in retired:
                    _retire(connection, version, REPLACED)
                # These bytes may have been here before, and been replaced since.
                contents = [(each.file.raw_table, each.scan.file_id) for each in files]
                for registry in ("landed_files", "rejected_rows"):
                    connection.execute(
                        f"delete from {RAW}.{registry} where (source_name || '_' || table_name,"
                        " file_id) in (select unnest(?::varchar[]), unnest(?::varchar[]))",
                        [[table for table, _ in contents], [file_id for _, file_id in contents]],
                    )
                for table, paths in paths_by_table.items():
                    for first in range(0, len(paths), FILES_AT_ONCE):
                        connection.execute(
                            f'insert into {RAW}."{table}" by name select *, ? as {LOAD_ID}'
                            " from read_parquet(?, union_by_name = true)",
                            [load_id, paths[first : first + FILES_AT_ONCE]],
                        )
                client.complete_load(load_id)
        with suppress(duckdb.OutOfMemoryException):
            # Closing the file writes what the transaction left behind, in all memory that it may.
            self.connection.execute(f"set memory_limit = '{_memory_mb(0)}MB'")
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
        columns |= {"landed_files": LANDED_FILES, "rejected_rows": REJECTED_ROWS}
        entries = [_registry_entry(prepared) for prepared in files]
        parquets["landed_files"] = [self._write_rows("landed_files", LANDED_FILES, entries)]
        parquets["rejected_rows"] = [each.rejects for each in files if each.rejects]

        def resource(table: str) -> Any:
            # A table without a file is made all the same, by a file without rows.
            ready = parquets[table] or [self._write_rows(table, columns[table], [])]
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


def known_columns() -> dict[str, dict[str, str]]:
    """Return the columns of each known source's raw table, all text, by table name."""
    return {
        table: dict.fromkeys(column_names(source.columns), TEXT)
        for table, source in known_sources().items()
        if source.columns
    }


def _version(row: dict[str, Any]) -> Version:
    """Read a row of `raw.landed_files`."""
    header = tuple(json.loads(row["header"]))
    names = json.loads(row.get("column_names") or "null") or column_names(header)
    own = Place(row["path"], row["bytes"], row["modified_us"], row["compression"])
    places = tuple(Place(*place) for place in json.loads(row.get("places") or "[]")) or (own,)
    return Version(
        source=row["source_name"],
        table=row["table_name"],
        file_id=row["file_id"],
        header=header,
        columns=tuple(names),
        rows=row["rows_loaded"],
        rejected=row["rows_rejected"],
        places=places,
        changes=json.loads(row.get("column_changes") or "{}"),
        is_current=row["is_current"],
        is_forgotten=row.get("retired_because") == FORGOTTEN,
    )


def _registry_entry(prepared: PreparedFile) -> dict[str, Any]:
    """The row of `raw.landed_files` that records a file version as loaded."""
    file, scan, place = prepared.file, prepared.scan, prepared.places[0]
    return {
        "file_id": scan.file_id,
        "source_name": file.source,
        "table_name": file.table,
        "path": place.name,
        "bytes": place.size,
        "modified_at": place.modified_us,
        "loaded_at": datetime.now(UTC),
        "header": _json(scan.header),
        "column_names": _json(prepared.columns),
        "column_changes": _json(prepared.changes) if prepared.changes else None,
        "encoding": scan.encoding,
        "delimiter": scan.delimiter,
        "compression": place.compression,
        "records_read": prepared.rows + prepared.rejected,
        "rows_loaded": prepared.rows,
        "rows_rejected": prepared.rejected,
        "places": _places_json(prepared.places),
        "is_current": True,
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _places_json(places: tuple[Place, ...]) -> str:
    return _json([astuple(place) for place in places])


def _memory_mb(width: int) -> int:
    """The memory in MB that DuckDB may take for tables of `width` columns.

    Left alone, it keeps what it wrote in memory, up to most of the machine's. A column needs two
    blocks of 256 kB in each of a few threads.
    """
    return 400 + 2 * width


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


def _retire(connection: duckdb.DuckDBPyConnection, version: Version, because: str) -> None:
    """Remove a version's rows, and note in the registry that it is no longer current."""
    connection.execute(
        f'delete from {RAW}."{version.raw_table}" where {FILE_ID} = ?', [version.file_id]
    )
    _note_retired(connection, version, because)


def _note_retired(connection: duckdb.DuckDBPyConnection, version: Version, because: str) -> None:
    key = version.content
    connection.execute(f"delete from {RAW}.rejected_rows where {OF_VERSION}", key)
    connection.execute(
        f"update {RAW}.landed_files set is_current = false, retired_at = now(),"
        f" retired_because = ? where {OF_VERSION}",
        [because, *key],
    )
