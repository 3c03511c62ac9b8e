"""Publish the marts as Parquet files, for Athena, DuckDB and whatever else reads files.

\b
    python ingest/publish.py --to s3://bucket/marts       what changed since the last time
    python ingest/publish.py --to published               into a folder on this machine
    python ingest/publish.py --to ... --full-refresh      everything anew
    python ingest/publish.py --to ... --glue-database D   and tell the Glue catalog, for Athena
    python ingest/publish.py --to ... --ducklake postgres:   as a DuckLake: snapshots, time travel

Each mart is a folder. A run writes what it publishes beside what is there, as a new version:

\b
    <mart>/_latest.json                                   which version counts, and its files
    <mart>/<version>/part.parquet
    <mart>/<version>/flight_month=2013-01-01/*.parquet    facts of flights, one folder a month

and then changes _latest.json, and the table in Glue, in one step each: a reader has the old version
or the new one. The version before stays for readers that are under way; older ones, and what a
killed run left, are removed. Of the facts, only months that were built anew are written; the files
of the others are copied in the store.

With --ducklake, a catalog says which files count, and all marts change in one transaction. It is a
file, or `postgres:` for a schema in the warehouse's database. The files have a folder of their own.

Exit codes: 0 published, or nothing was new; 1 something failed, and the message says what: readers
still have the old version of each mart that was not said to be published; 2 the command line is
wrong; 130 interrupted.
"""

import json
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # Run as a script, Python looks for modules in this folder; `ingest` itself lies above it.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from ingest import interrupts

    interrupts.end_at_once()

import click
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from ingest import interrupts
from ingest.engine import Engine
from ingest.errors import LoadError
from ingest.marts import MEMORY_LIMIT, MONTH, Mart, marts
from ingest.options import target_option
from ingest.warehouse import open_engine

LATEST = "_latest.json"


@dataclass(frozen=True)
class Version:
    """A published version of a mart: what `_latest.json` holds.

    `files` have a `path` from the mart's folder, `rows` and `bytes`; `columns` is {name: type in
    Glue}; `months` is that of Mart, `previous` the name of the version before.
    """

    version: str = "00000000"
    previous: str = ""
    published_at: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    partitioned_by: list[str] = field(default_factory=list)
    months: dict[str, str] = field(default_factory=dict)
    files: list[dict[str, Any]] = field(default_factory=list)

    @property
    def next(self) -> str:
        """A name for the version after this one. No two runs give the same."""
        return f"{int(self.version[:8]) + 1:08d}-{secrets.token_hex(4)}"

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return sum(file["rows"] for file in self.files)


@click.command(help=__doc__)
@click.option(
    "--to",
    required=True,
    envvar="ONTIME_MARTS",
    metavar="URL",
    help="A folder, or a place in a store such as s3://bucket/marts.  [environment: ONTIME_MARTS]",
)
@target_option
@click.option(
    "--glue-database",
    envvar="ONTIME_GLUE_DATABASE",
    metavar="NAME",
    help="Database in the AWS Glue catalog, which exists.  [environment: ONTIME_GLUE_DATABASE]",
)
@click.option(
    "--ducklake",
    envvar="ONTIME_DUCKLAKE",
    metavar="CATALOG",
    help="Catalog of the DuckLake whose files are there.  [environment: ONTIME_DUCKLAKE]",
)
@click.option(
    "--full-refresh", is_flag=True, help="Write everything anew, also what did not change."
)
def main(
    to: str,
    target: str | None,
    glue_database: str | None,
    ducklake: str | None,
    full_refresh: bool,
) -> None:
    """Run the command. The text of `--help` is the module's."""
    if ducklake and glue_database:
        raise click.UsageError("Athena reads no DuckLake: expected --ducklake or --glue-database")
    interrupts.raise_them()
    try:
        with open_engine(target, read_only=True) as engine, told_plainly(engine, to):
            if not engine.has_marts:
                raise LoadError(
                    f"the marts made of {engine.database} are tables of Spark, and Parquet files"
                    " already: expected a target of another type, such as --target duckdb"
                )
            if ducklake:
                from ingest.ducklake import publish

                said = publish(engine, target, ducklake, to, full_refresh=full_refresh)
            else:
                publish_versions(engine, to, glue_database, full_refresh=full_refresh)
                said = []
        for line in said:
            click.echo(line)
    except KeyboardInterrupt:
        click.echo("Interrupted. Readers have whole versions; run again for the rest.", err=True)
        # At once: threads that still read ahead would abort the process on its way out.
        os._exit(interrupts.INTERRUPTED)


def publish_versions(
    engine: Engine, to: str, glue_database: str | None, *, full_refresh: bool
) -> None:
    """Publish each mart as a version of its own, and say so."""
    store = Store(to)
    glue = Glue(glue_database, store) if glue_database else None
    with engine.transaction():
        found = marts(engine)
        written = [write(mart, engine, store, full_refresh=full_refresh) for mart in found]
    # All at the end: marts of one build become visible as close together as can be.
    for mart, (old, new) in zip(found, written, strict=True):
        store.switch(mart.name, old, new)
        if glue:
            glue.register(mart.name, new)
        store.clean(mart.name, new)
        state = "unchanged" if new is old else f"published as {new.version}"
        click.echo(f"{mart.name}: {new.rows:,} rows, {len(new.files)} files, {state}")


@contextmanager
def told_plainly(engine: Engine, to: str) -> Iterator[None]:
    """Turn the errors of the database, the store and the disk into a LoadError."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError

        of_aws: tuple[type[Exception], ...] = (BotoCoreError, ClientError)
    except ImportError:
        of_aws = ()
    try:
        yield
    except Exception as error:
        if is_interruption(error):
            raise KeyboardInterrupt from error
        if not isinstance(error, (engine.error, duckdb.Error, pa.ArrowException, OSError, *of_aws)):
            raise
        raise LoadError(
            f"{engine.reason(error)}: what was not said to be published to {to} is there as it was"
        ) from error


def is_interruption(error: BaseException | None) -> bool:
    """Tell whether Ctrl-C is behind an error: DuckDB gives it another class on its way."""
    while error:
        if isinstance(error, (KeyboardInterrupt, duckdb.InterruptException)):
            return True
        if str(error) == "Query interrupted" or "KeyboardInterrupt" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


class Store:
    """Where the marts are published: a folder of this machine, or one in an object store."""

    def __init__(self, url: str):
        try:
            self.files, self.root = url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise LoadError(
                f"{url}: {error}: expected a folder, or an address whose fsspec package is"
                ' installed, such as by pip install -e ".[s3]" for s3://'
            ) from error
        self.url = url.rstrip("/")
        self.is_local = "file" in self.files.protocol

    def latest(self, table: str) -> Version | None:
        """Return the version of a mart that readers have; None where there is none."""
        try:
            return Version(**json.loads(self.files.cat_file(f"{self.root}/{table}/{LATEST}")))
        except FileNotFoundError:
            return None
        except (TypeError, ValueError) as error:
            raise LoadError(
                f"{self.url}/{table}/{LATEST} is none that this command wrote: {error}: move the"
                " folder away, then run this again"
            ) from None

    def put(self, local: Path, path: str) -> None:
        """Bring a file into the store."""
        self._make_folder_of(path)
        self.files.put_file(str(local), f"{self.root}/{path}")

    def copy(self, path: str, other: str) -> None:
        """Copy a file within the store."""
        self._make_folder_of(other)
        self.files.cp_file(f"{self.root}/{path}", f"{self.root}/{other}")

    def _make_folder_of(self, path: str) -> None:
        """Make the folder of a file. A bucket has none, and to ask for it takes more rights."""
        if self.is_local:
            self.files.makedirs(f"{self.root}/{path}".rpartition("/")[0], exist_ok=True)

    def switch(self, table: str, old: Version | None, new: Version) -> None:
        """Give readers a new version, in one step. Raises LoadError where `old` is not the last."""
        if new is old:
            return
        if self.latest(table) != old:
            raise LoadError(
                f"another run published {table} to {self.url} meanwhile: its version stays; run"
                " this again, one at a time"
            )
        path, text = f"{self.root}/{table}/{LATEST}", json.dumps(vars(new), indent=1).encode()
        if self.is_local:
            # Writing takes more than one step there, giving a name does not. A fact without any
            # month has no folder yet.
            self.files.makedirs(f"{self.root}/{table}", exist_ok=True)
            self.files.pipe_file(f"{path}.new", text)
            Path(f"{path}.new").replace(path)
        else:
            self.files.pipe_file(path, text)

    def clean(self, table: str, new: Version) -> None:
        """Remove what is neither the version that counts nor the one before."""
        for path in self.files.ls(f"{self.root}/{table}", detail=False):
            if path.rstrip("/").rpartition("/")[2] not in (LATEST, new.version, new.previous):
                self.files.rm(path, recursive=True)


def write(
    mart: Mart, engine: Engine, store: Store, *, full_refresh: bool
) -> tuple[Version | None, Version]:
    """Write a new version of a mart beside the others; return the one before, and it.

    Where nothing changed, both are the same one, and nothing is written.
    """
    old = store.latest(mart.name)
    columns = {column.name: glue_type(column) for column in mart.columns}
    partitioned_by = [MONTH] if mart.by_month else []
    kept = {}
    if old and not full_refresh and (old.columns, old.partitioned_by) == (columns, partitioned_by):
        kept = {month: old.months[month] for month in old.months.keys() & mart.months.keys()
                if old.months[month] == mart.months[month]}  # fmt: skip
        if mart.months and kept == mart.months == old.months:
            return old, old
    version = (old or Version()).next
    files = []
    for file in old.files if old else []:
        if month_of(file) in kept:
            path = file["path"].replace(old.version, version, 1)
            store.copy(f"{mart.name}/{file['path']}", f"{mart.name}/{path}")
            files.append({**file, "path": path})
    due = sorted(mart.months.keys() - kept.keys()) if kept else None
    if due != []:
        with tempfile.TemporaryDirectory(prefix="ontime-publish-") as folder:
            for local in to_parquet(mart, engine, due, Path(folder)):
                path = f"{version}/{local.relative_to(Path(folder, 'mart'))}"
                store.put(local, f"{mart.name}/{path}")
                rows = pq.read_metadata(local).num_rows
                files.append({"path": path, "rows": rows, "bytes": local.stat().st_size})
    return old, Version(
        version=version,
        previous=old.version if old else "",
        published_at=datetime.now(UTC).isoformat(timespec="seconds"),
        columns=columns,
        partitioned_by=partitioned_by,
        months=mart.months,
        files=sorted(files, key=lambda file: file["path"]),
    )


def month_of(file: dict[str, Any]) -> str:
    """Return the month in a published file's path; blank where it has none."""
    return file["path"].rpartition("/")[0].partition(f"/{MONTH}=")[2]


def to_parquet(mart: Mart, engine: Engine, months: list[str] | None, folder: Path) -> list[Path]:
    """Write a mart's rows, or those of some months, into Parquet files below `folder`/mart."""
    target = folder / "mart"
    options = "format parquet, compression zstd"
    if mart.by_month:
        options += f", partition_by ({MONTH}), filename_pattern 'part_{{i}}'"
    else:
        target.mkdir()
    path = target if mart.by_month else target / "part.parquet"
    with duckdb.connect() as writer, engine.rows(mart.select(months)) as rows:
        writer.execute(f"set memory_limit = '{MEMORY_LIMIT}'")
        writer.execute(f"set temp_directory = '{folder / 'spilled'}'")
        writer.register("mart", rows)
        writer.execute(f"copy mart to '{path}' ({options})")
    return sorted(target.rglob("*.parquet"))


def glue_type(column: pa.Field) -> str:
    """Return what Glue and Athena call the type of a column. Raises LoadError for others."""
    kind = column.type
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    if pa.types.is_timestamp(kind):
        return "timestamp"
    names = {
        pa.bool_(): "boolean",
        pa.int8(): "tinyint",
        pa.int16(): "smallint",
        pa.int32(): "int",
        pa.int64(): "bigint",
        pa.float32(): "float",
        pa.float64(): "double",
        pa.string(): "string",
        pa.date32(): "date",
    }
    if kind not in names:
        raise LoadError(
            f"column {column.name} is {kind}, which Athena does not read: cast it in its model"
        )
    return names[kind]


class Glue:
    """The tables of one database in the Glue catalog, which Athena reads."""

    def __init__(self, database: str, store: Store):
        try:
            from botocore.session import get_session
        except ImportError:
            raise LoadError(
                'Glue needs what the extra `aws` brings, such as by pip install -e ".[aws]"'
            ) from None
        self.database = database
        self.url = store.url
        self.client = get_session().create_client("glue")

    def register(self, table: str, version: Version) -> None:
        """Have a table read a version of a mart, in one step; make it where it is not there."""
        table_input = self.table_input(table, version)
        try:
            known = self.client.get_table(DatabaseName=self.database, Name=table)["Table"]
        except self.client.exceptions.EntityNotFoundException:
            self.client.create_table(DatabaseName=self.database, TableInput=table_input)
            return
        if known["StorageDescriptor"]["Location"] != table_input["StorageDescriptor"]["Location"]:
            self.client.update_table(
                DatabaseName=self.database, TableInput=table_input, SkipArchive=True
            )

    def table_input(self, table: str, version: Version) -> dict[str, Any]:
        """Describe a version of a mart as Glue has it.

        Months are computed from the table's properties (partition projection), so that a version
        is switched to in one call, however many months it has.
        """
        location = f"{self.url}/{table}/{version.version}/"
        parameters = {"classification": "parquet", "EXTERNAL": "TRUE"}
        months = sorted(map(month_of, version.files))
        if version.partitioned_by and months:
            parameters |= {
                "projection.enabled": "true",
                f"projection.{MONTH}.type": "date",
                f"projection.{MONTH}.format": "yyyy-MM-dd",
                f"projection.{MONTH}.range": f"{months[0]},{months[-1]}",
                f"projection.{MONTH}.interval": "1",
                f"projection.{MONTH}.interval.unit": "MONTHS",
                "storage.location.template": f"{location}{MONTH}=${{{MONTH}}}/",
            }
        columns = [{"Name": name, "Type": kind} for name, kind in version.columns.items()]
        of_hive = "org.apache.hadoop.hive.ql.io.parquet"
        return {
            "Name": table,
            "TableType": "EXTERNAL_TABLE",
            "Parameters": parameters,
            "PartitionKeys": [each for each in columns if each["Name"] in version.partitioned_by],
            "StorageDescriptor": {
                "Columns": [each for each in columns if each["Name"] not in version.partitioned_by],
                "Location": location,
                "InputFormat": f"{of_hive}.MapredParquetInputFormat",
                "OutputFormat": f"{of_hive}.MapredParquetOutputFormat",
                "SerdeInfo": {"SerializationLibrary": f"{of_hive}.serde.ParquetHiveSerDe"},
            },
        }


if __name__ == "__main__":
    main()
