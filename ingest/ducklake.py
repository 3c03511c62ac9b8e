"""The marts in a DuckLake: Parquet files, and a catalog in a database that says which count.

Everything that a run changes is one transaction and one snapshot of the lake. Like raw loads, it is
seen by others whole or not at all. The table `published_months` says of what build each month is.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import duckdb
import pyarrow as pa
from fsspec.core import url_to_fs

from ingest.engine import Engine
from ingest.errors import LoadError
from ingest.marts import MONTH, Mart, marts

LAKE = "lake"
RECORD = "published_months"
OF_POSTGRES = "postgres:"
# In a database that holds other tables, too, the catalog has a schema of its own.
SCHEMA = "ducklake"
MEMORY_LIMIT = "1GB"


def publish(engine: Engine, catalog: str, url: str, *, full_refresh: bool) -> list[str]:
    """Bring the marts of a warehouse into a lake; return a line about each, and the snapshot's.

    `catalog` is what DuckLake calls it: a file, or `postgres:` with what libpq shall know beyond
    its variables. `url` is where the files are. Raises LoadError, also where another run published
    at the same time.
    """
    with open_lake(catalog, url) as lake, engine.transaction():
        before = newest_snapshot(lake)
        lake.begin()
        lake.execute(
            f"create table if not exists {LAKE}.{RECORD}"
            " (mart varchar, flight_month varchar, built varchar)"
        )
        said = []
        for mart in marts(engine):
            is_new = write(mart, engine, lake, full_refresh=full_refresh)
            [(rows,)] = lake.execute(f"select count(*) from {LAKE}.{mart.name}").fetchall()
            said.append(f"{mart.name}: {rows:,} rows, {'published' if is_new else 'unchanged'}")
        try:
            lake.commit()
        except duckdb.TransactionException as error:
            raise LoadError(
                f"another run published to {catalog} meanwhile: its snapshot stays; run this"
                f" again, one at a time ({str(error).splitlines()[0]})"
            ) from None
        after = newest_snapshot(lake)
        return [*said, f"snapshot {after}" + (", as before" if after == before else "")]


@contextmanager
def open_lake(catalog: str, url: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Attach a lake, which is made where there is none, as `lake`."""
    files, folder = files_of(url)
    if not files:
        # A catalog keeps the folder that it was made with: one that cannot be, shall not be in it.
        Path(folder).mkdir(parents=True, exist_ok=True)
    options = [f"data_path {quoted(folder)}", "data_inlining_row_limit 0"]
    with (
        tempfile.TemporaryDirectory(prefix="ontime-ducklake-") as spilled,
        duckdb.connect() as lake,
    ):
        lake.execute(f"set memory_limit = '{MEMORY_LIMIT}'")
        lake.execute(f"set temp_directory = {quoted(spilled)}")
        load_extension(lake, "ducklake")
        if catalog.startswith(OF_POSTGRES):
            load_extension(lake, "postgres_scanner")
            options.append(f"metadata_schema {quoted(SCHEMA)}")
        if files:
            lake.register_filesystem(files)
            load_extension(lake, "httpfs")
        lake.execute(f"attach {quoted('ducklake:' + catalog)} as {LAKE} ({', '.join(options)})")
        yield lake


def files_of(url: str) -> tuple[object | None, str]:
    """Return the file system of a store, None for this machine's own, and the folder in it."""
    try:
        files, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise LoadError(
            f"{url}: {error}: expected a folder, or an address whose fsspec package is"
            ' installed, such as by pip install -e ".[s3]" for s3://'
        ) from error
    return (None, f"{path}/") if "file" in files.protocol else (files, f"{url.rstrip('/')}/")


def load_extension(lake: duckdb.DuckDBPyConnection, name: str) -> None:
    """Load an extension from the package that carries it, or else one that DuckDB has installed."""
    package = find_spec(f"duckdb_extension_{name}")
    paths = package.submodule_search_locations if package else None
    version = f"extensions/v{duckdb.__version__}/{name}.duckdb_extension"
    carried = [path for folder in paths or () if (path := Path(folder, version)).exists()]
    try:
        lake.load_extension(str(carried[0]) if carried else name)
    except duckdb.Error as error:
        raise LoadError(
            f"DuckDB {duckdb.__version__} has no extension {name}: expected it to be installed,"
            ' such as by pip install -e ".[ducklake]"'
        ) from error


def write(
    mart: Mart, engine: Engine, lake: duckdb.DuckDBPyConnection, *, full_refresh: bool
) -> bool:
    """Bring into the lake what changed in a mart, in the transaction that is open.

    Returns whether anything did: which months were built since, where that is known, else whether
    any row differs.
    """
    name = f"{LAKE}.{mart.name}"
    is_same = has_columns(mart, lake)
    published = dict(
        lake.execute(
            f"select flight_month, built from {LAKE}.{RECORD} where mart = ?", [mart.name]
        ).fetchall()
    )
    due = sorted(dict(published.items() ^ mart.months.items()))
    by_month = bool(is_same and published and mart.months and not full_refresh)
    if by_month and not due:
        return False
    with engine.rows(mart.select(due if by_month else None)) as rows:
        lake.register("rows", rows)
        source = "rows"
        if is_same and not by_month and not full_refresh:
            lake.execute("create or replace temp table fresh as from rows")
            source = "fresh"
            if not differs(name, source, lake):
                return False
        if is_same:
            where = f" where {MONTH} in ({', '.join(map(quoted, due))})" if by_month else ""
            lake.execute(f"delete from {name}{where}")
        else:
            lake.execute(f"create or replace table {name} as from shape")
            if mart.by_month:
                lake.execute(f"alter table {name} set partitioned by ({MONTH})")
        lake.execute(f"insert into {name} from {source}")
    lake.execute(f"delete from {LAKE}.{RECORD} where mart = ?", [mart.name])
    if mart.months:
        months = {"month": list(mart.months), "built": list(mart.months.values())}
        lake.register("months", pa.table(months))
        lake.execute(f"insert into {LAKE}.{RECORD} select ?, month, built from months", [mart.name])
    return True


def has_columns(mart: Mart, lake: duckdb.DuckDBPyConnection) -> bool:
    """Tell whether the lake has a mart's columns; an empty table of them is left as `shape`."""
    lake.register("shape", mart.columns.empty_table())
    wanted = [row[:2] for row in lake.execute("describe shape").fetchall()]
    return (
        wanted
        == lake.execute(
            "select column_name, data_type from duckdb_columns()"
            " where database_name = ? and table_name = ? order by column_index",
            [LAKE, mart.name],
        ).fetchall()
    )


def differs(one: str, other: str, lake: duckdb.DuckDBPyConnection) -> bool:
    """Tell whether two tables have other rows."""
    [(found,)] = lake.execute(
        f"select exists ((from {one}) except all (from {other}))"
        f" or exists ((from {other}) except all (from {one}))"
    ).fetchall()
    return found


def newest_snapshot(lake: duckdb.DuckDBPyConnection) -> int:
    """Return the number of the lake's newest snapshot."""
    [(number,)] = lake.execute(
        f"select max(snapshot_id) from ducklake_snapshots('{LAKE}')"
    ).fetchall()
    return number


def quoted(text: str) -> str:
    """Return a text as a literal in SQL."""
    return "'" + text.replace("'", "''") + "'"
