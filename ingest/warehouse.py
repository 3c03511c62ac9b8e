"""The warehouse: what it holds, and how a batch of files gets into it, whole or not at all."""

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import astuple, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.columns import (
    BIGINT,
    BOOL,
    FILE_ID,
    LANDED_FILES,
    LINEAGE,
    LOAD_ID,
    REJECTED_ROWS,
    TEXT,
    TIMESTAMP,
    column_names,
    known_sources,
)
from ingest.engine import RAW, Engine
from ingest.errors import LoadError
from ingest.landing import CSV, OTHER, InTable, LandedFile, Note, Place
from ingest.profile import read_target
from ingest.read import Reject
from ingest.scan import Scan

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
OF_VERSION = "source_name || '_' || table_name = ? and file_id = ?"
ARROW_TYPES = {
    TEXT: pa.string(),
    BIGINT: pa.int64(),
    TIMESTAMP: pa.timestamp("us", "UTC"),
    BOOL: pa.bool_(),
}
REPLACED, FORGOTTEN = "replaced", "forgotten"


@dataclass(frozen=True)
class Version(InTable):
    """One file version in the registry, `raw.landed_files`.

    `header` holds the columns as the file spells them, `columns` their names in the raw table.
    `places` are all where these bytes were seen; `name` is that of the first. `form` is the format;
    one that is OTHER has no rows, and its table may not be there. `landed` is what was noted of it.
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
    form: str = CSV
    landed: Note | None = field(default=None, hash=False)

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

    One that cannot be loaded and is only to be listed has no `parquet`.

    `columns` are its columns' names in the raw table, `changes` how they differ from those of the
    file before. `places` are all where its bytes lie, its own first. `rejects` is a Parquet file of
    its rejected records, None for none; `first_reject` is the first of them.
    """

    file: LandedFile
    scan: Scan
    columns: tuple[str, ...]
    changes: Mapping[str, object]
    places: tuple[Place, ...]
    parquet: Path | None
    rows: int
    rejected: int
    first_reject: Reject | None
    rejects: Path | None
    landed: Note | None = None


def open_engine(target: str | None, *, read_only: bool = False) -> AbstractContextManager[Engine]:
    """Open the database of a target in `profiles.yml`. Raises LoadError where it cannot be."""
    settings = read_target(target)
    engines = {"duckdb": "on_duckdb", "postgres": "on_postgres", "spark": "on_lake"}
    kind = settings["type"]
    if kind not in engines:
        raise LoadError(
            f"target {settings.name!r} in {settings.profile} is of type {kind}: the loader knows"
            f" {', '.join(engines)}"
        )
    # An engine's driver is imported only by who uses it.
    module = import_module(f"ingest.{engines[kind]}")
    return module.open_engine(settings, read_only=read_only)


@contextmanager
def open_warehouse(target: str | None, *, read_only: bool = False) -> Iterator["Warehouse"]:
    """Open the warehouse of a target in `profiles.yml`; one process at a time can write to it.

    With `read_only`, a warehouse that does not exist yet is an empty one. Raises LoadError where
    it is another process's, cannot be reached or written to, or the disk is full.
    """
    with open_engine(target, read_only=read_only) as engine:
        try:
            if not read_only:
                shutil.rmtree(engine.workspace, ignore_errors=True)
                engine.workspace.mkdir(parents=True)
            yield Warehouse(engine)
        except LoadError:
            raise
        except Exception as error:
            if known := _known(error, engine):
                raise known from error
            raise
        finally:
            # Before the database is closed: after it, the folder may be another load's.
            if not read_only:
                shutil.rmtree(engine.workspace, ignore_errors=True)


def _known(error: Exception, engine: Engine) -> BaseException | None:
    """Return what an error amounts to for the user; None where it is one of the program."""
    causes = list(_causes(error))
    if any(isinstance(each, KeyboardInterrupt) or engine.is_interruption(each) for each in causes):
        return KeyboardInterrupt()
    for cause in causes:
        if isinstance(cause, (OSError, engine.error)):
            is_full = "No space left on device" in str(cause)
            reason = f"the disk of {engine.database} is full" if is_full else engine.reason(cause)
            return LoadError(
                f"{reason}: nothing of the running batch was loaded, the files committed before it"
                " stay; run again when it is mended"
            )
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what caused it: dlt wraps what it does not know."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class Warehouse:
    """An open warehouse."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self.workspace = engine.workspace
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
        rows = self.engine.query(f"select * from {RAW}.landed_files order by loaded_at, path")
        versions = [_version(row) for row in rows]
        lost = [
            each
            for each in versions
            if each.is_current and each.form != OTHER and each.raw_table not in tables
        ]
        self.lost = lost
        return [replace(each, is_current=False) if each in lost else each for each in versions]

    def is_incomplete(self) -> bool:
        """Tell whether a known source's table, or the registry itself, is still to be made."""
        known = {table for table, source in known_sources().items() if source.columns}
        return not known <= self._tables() or not self._has_own_registry()

    def _has_own_registry(self) -> bool:
        """Tell whether the registry has all columns; that of an earlier release has fewer."""
        rows = self.engine.query(
            "select column_name from information_schema.columns"
            " where table_schema = ? and table_name = 'landed_files'",
            [RAW],
        )
        return set(LANDED_FILES) <= {row["column_name"] for row in rows}

    def _change_registry(self) -> AbstractContextManager[None]:
        """Open a transaction in which the registry's entries can be changed."""
        if not self._has_own_registry():
            self.commit([], [])
        return self.engine.transaction()

    def note_places(self, seen: dict[Version, tuple[tuple[Place, ...], Note | None]]) -> None:
        """Record where known bytes lie now, and what is noted of them there."""
        if not seen:
            return
        with self._change_registry():
            for version, (places, note) in seen.items():
                first = places[0]
                noted = _noted(note or version.landed)
                self.engine.execute(
                    f"update {RAW}.landed_files set path = ?, bytes = ?,"
                    " modified_at = cast(? as timestamp with time zone), compression = ?,"
                    " places = ?, object_id = ?, media_type = ?,"
                    " received_at = cast(? as timestamp with time zone), landed_by = ?, tags = ?"
                    f" where {OF_VERSION}",
                    [
                        first.name,
                        first.size,
                        (EPOCH + timedelta(microseconds=first.modified_us)).isoformat(),
                        first.compression,
                        _places_json(places),
                        *noted.values(),
                        *version.content,
                    ],
                )

    def retire(self, versions: list[Version], because: str) -> None:
        """Remove the rows of file versions, and record in the registry when and why."""
        if not versions:
            return
        with self._change_registry():
            for version in versions:
                self._retire(version, because)

    def miscounted(self) -> list[str]:
        """Compare each raw table with the registry, by counting; say each file that differs."""
        versions = [each for each in self.versions() if each.is_current and each.form != OTHER]
        found = [
            f"raw.{version.raw_table} is gone, and raw.landed_files lists {version.name} as"
            f" current, with {version.rows:,} rows: load it again"
            for version in self.lost
        ]
        for table in sorted({version.raw_table for version in versions}):
            rows = self.engine.count(table, [FILE_ID])
            held = {row[FILE_ID]: row["row_count"] for row in rows}
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
            rejects = self.engine.count("rejected_rows", ["source_name", "table_name", "file_id"])
            counts = {
                (f"{row['source_name']}_{row['table_name']}", row["file_id"]): row["row_count"]
                for row in rejects
            }
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
        rows = self.engine.query(
            "select table_name, column_name, data_type from information_schema.columns"
            " where table_schema = ? order by table_name, ordinal_position",
            [RAW],
        )
        registry = {"landed_files": LANDED_FILES, "rejected_rows": REJECTED_ROWS}
        found = []
        for row in rows:
            table, column, kind = row["table_name"], row["column_name"], row["data_type"]
            if table not in tables:
                continue
            expected = self.engine.types[registry.get(table, LINEAGE).get(column, TEXT)]
            if kind != expected:
                found.append(
                    f"{RAW}.{table}.{column} is {kind}, expected {expected}: change it back with"
                    f' `alter table {RAW}.{table} alter column "{column}" type {expected}`, then'
                    " run with --full-refresh, since other types do not keep the files' text"
                )
        return found

    def check(self, prepared: PreparedFile) -> None:
        """Raise FileRefused where the engine cannot hold what a file brings."""
        if prepared.parquet:
            self.engine.check(prepared.file.raw_table, prepared.columns, prepared.parquet)

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
            destination=self.engine.destination(),
            dataset_name=RAW,
        )
        pipeline.config.restore_from_destination = False
        pipeline.runtime_config.intercept_signals = False
        pipeline.extract(self._source(files))
        pipeline.normalize()
        (load_id,) = pipeline.list_normalized_load_packages()
        parquets: dict[str, list[Path]] = defaultdict(list)
        for job in pipeline.get_load_package_info(load_id).jobs["new_jobs"]:
            parquets[job.job_file_info.table_name].append(Path(job.file_path))
        with self.engine.client(pipeline) as client:
            client.initialize_storage()
            # By force: dlt else takes it that the tables that it once made are still there.
            client.update_stored_schema(force=True)
            with self.engine.transaction():
                self.engine.expect_columns(
                    max((len(prepared.columns) for prepared in files), default=0)
                )
                for version in self.lost:
                    self._note_retired(version, REPLACED)
                for version in retired:
                    self._retire(version, REPLACED)
                # These bytes may have been here before, and been replaced since.
                contents = [(each.file.raw_table, each.scan.file_id) for each in files]
                for registry in ("landed_files", "rejected_rows"):
                    self.engine.delete(
                        registry,
                        "(source_name || '_' || table_name, file_id) in"
                        " (select unnest(?::varchar[]), unnest(?::varchar[]))",
                        [[table for table, _ in contents], [file_id for _, file_id in contents]],
                    )
                for table, ready in parquets.items():
                    self.engine.insert(table, ready, load_id)
                client.complete_load(load_id)
        # Closing a file writes what the transaction left behind, in all memory that it may.
        self.engine.expect_columns(0)
        self.lost = []
        # The next batch starts from an empty folder, and finds no package of this one.
        shutil.rmtree(pipeline.pipelines_dir)

    def _source(self, files: list[PreparedFile]) -> Any:
        """Build the dlt source: one resource per raw table, its rows ready as Parquet files."""
        import dlt

        columns = {table: dict(known, **LINEAGE) for table, known in known_columns().items()}
        parquets: dict[str, list[Path]] = {table: [] for table in columns}
        for prepared in (each for each in files if each.parquet):
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

    def _tables(self) -> set[str]:
        rows = self.engine.query(
            "select table_name from information_schema.tables where table_schema = ?", [RAW]
        )
        return {row["table_name"] for row in rows}

    def _retire(self, version: Version, because: str) -> None:
        """Remove a version's rows, and note in the registry that it is no longer current."""
        if version.form != OTHER:
            self.engine.delete(version.raw_table, f"{FILE_ID} = ?", [version.file_id])
        self._note_retired(version, because)

    def _note_retired(self, version: Version, because: str) -> None:
        self.engine.delete("rejected_rows", OF_VERSION, version.content)
        self.engine.execute(
            f"update {RAW}.landed_files set is_current = false, retired_at = now(),"
            f" retired_because = ? where {OF_VERSION}",
            [because, *version.content],
        )


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
    modified_us = (row["modified_at"] - EPOCH) // timedelta(microseconds=1)
    own = Place(row["path"], row["bytes"], modified_us, row["compression"])
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
        form=row.get("file_format") or CSV,
        landed=_note(row),
    )


def _note(row: dict[str, Any]) -> Note | None:
    """Read what a row of `raw.landed_files` says of a landed file; None where it was not landed."""
    if not row.get("landed_by"):
        return None
    received = row["received_at"].astimezone(UTC).isoformat(timespec="microseconds")
    tags = json.loads(row["tags"] or "{}")
    return Note(row["object_id"], row["media_type"], received, row["landed_by"], tags)


def _noted(note: Note | None) -> dict[str, Any]:
    """Return what a row of `raw.landed_files` says of a landed file."""
    if not note:
        return dict.fromkeys(("object_id", "media_type", "received_at", "landed_by", "tags"))
    noted = vars(note)
    return noted | {"tags": json.dumps(note.tags, ensure_ascii=False) if note.tags else None}


def _registry_entry(prepared: PreparedFile) -> dict[str, Any]:
    """The row of `raw.landed_files` that records a file version as loaded."""
    file, scan, place = prepared.file, prepared.scan, prepared.places[0]
    noted = _noted(prepared.landed)
    if prepared.landed:
        noted["received_at"] = datetime.fromisoformat(prepared.landed.received_at)
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
        "file_format": scan.form,
        "places": _places_json(prepared.places),
        "is_current": True,
        **noted,
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _places_json(places: tuple[Place, ...]) -> str:
    return _json([astuple(place) for place in places])
