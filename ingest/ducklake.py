"""The marts in a DuckLake: Parquet files, and a catalog in a database that says which count.

Everything that a run changes is one transaction and one snapshot of the lake. Like raw loads, it is
seen by others whole or not at all. The one row of the table `publication` says of which marts the
lake was made, and of what builds their months are.
"""

import json
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import duckdb
from fsspec.core import url_to_fs

from ingest.engine import Engine
from ingest.errors import LoadError
from ingest.marts import MEMORY_LIMIT, MONTH, Mart, marts
from ingest.on_duckdb import literal
from ingest.profile import read_target

LAKE = "lake"
RECORD = "publication"
# The catalog in the warehouse's database; it has a schema of its own there.
POSTGRES = "postgres:"
SCHEMA = "ducklake"
# Of each file that is written to a bucket, DuckDB holds one ten thousandth of this in memory.
LARGEST_FILE = "50GB"


def publish(
    engine: Engine, target: str | None, catalog: str, url: str, *, full_refresh: bool
) -> list[str]:
    """Bring the marts of a warehouse into a lake; return a line about each, and the snapshot's.

    `catalog` is a file's path or `postgres:`, `url` a folder or one in a bucket: the lake's files
    are in a folder of their own below it. Raises LoadError, also where another run published
    meanwhile: then nothing is changed.
    """
    try:
        with open_lake(target, catalog, url) as lake, engine.transaction():
            lake.begin()
            said = bring(engine, lake, full_refresh=full_refresh)
            commit(lake)
            [(snapshot,)] = lake.execute(
                f"select max(snapshot_id) from ducklake_snapshots('{LAKE}')"
            ).fetchall()
            return [*said, f"the newest snapshot is {snapshot}"]
    except duckdb.Error as error:
        if not is_conflict(error):
            raise
        raise LoadError(
            "another run published to this lake meanwhile: its snapshot stays; run this again, one"
            " at a time"
        ) from None


def bring(engine: Engine, lake: duckdb.DuckDBPyConnection, *, full_refresh: bool) -> list[str]:
    """Bring all marts into the transaction that is open; return a line about each."""
    lake.execute(f"create table if not exists {LAKE}.{RECORD} (marts varchar)")
    record = lake.execute(f"select marts from {LAKE}.{RECORD}").fetchall()
    old = json.loads(record[0][0]) if record else {}
    found = marts(engine)
    new = {mart.name: mart.months for mart in found}
    said = []
    changed = old != new
    for mart in found:
        is_new = write(mart, old.get(mart.name, {}), engine, lake, full_refresh=full_refresh)
        [(rows,)] = lake.execute(f"select count(*) from {LAKE}.{mart.name}").fetchall()
        said.append(f"{mart.name}: {rows:,} rows, {'published' if is_new else 'unchanged'}")
        changed |= is_new
    for name in sorted(old.keys() - new.keys()):
        lake.execute(f"drop table {LAKE}.{name}")
        said.append(f"{name}: no mart any more, removed")
    if changed:
        # Two runs at once both take this row out, whatever else they change: one of them fails.
        lake.execute(f"delete from {LAKE}.{RECORD}")
        lake.execute(f"insert into {LAKE}.{RECORD} values (?)", [json.dumps(new)])
    return said


def commit(lake: duckdb.DuckDBPyConnection) -> None:
    """Make the snapshot. Raises LoadError where it is not known whether it was made."""
    try:
        lake.commit()
    except duckdb.Error as error:
        if is_conflict(error):
            raise
        raise LoadError(
            f"{' '.join(str(error).split())}: it is not known whether the snapshot was made: run"
            " this again"
        ) from error


def is_conflict(error: Exception) -> bool:
    """Tell whether an error says that another run changed the lake meanwhile."""
    return bool(re.search("conflict|duplicate key", str(error), re.IGNORECASE))


@contextmanager
def open_lake(target: str | None, catalog: str, url: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Attach a lake, which is made where there is none, as `lake`. Raises LoadError."""
    folder, place = folder_of(url), place_of(catalog, target)
    options = ["data_inlining_row_limit 0"]
    prefix = "ontime-ducklake-"
    with tempfile.TemporaryDirectory(prefix=prefix) as spilled, duckdb.connect() as lake:
        lake.execute(f"set memory_limit = '{MEMORY_LIMIT}'")
        lake.execute(f"set temp_directory = {literal(spilled)}")
        lake.execute("set autoload_known_extensions = false")
        load_extension(lake, "ducklake")
        if catalog == POSTGRES:
            load_extension(lake, "postgres_scanner")
            options.append(f"metadata_schema {literal(SCHEMA)}")
        if folder.startswith("s3://"):
            load_extension(lake, "httpfs")
            give_keys(lake)
        may_be_there = catalog == POSTGRES or Path(catalog).exists()
        if not may_be_there or not attach(lake, place, *options, "create_if_not_exists false"):
            try_writing(folder)
            # Of its own: a lake's clean-up removes all Parquet files there that it did not write.
            own = f"{folder}/ducklake-{secrets.token_hex(4)}/"
            attach(lake, place, *options, f"data_path {literal(own)}")
        found = dict(
            lake.execute(f"select option_name, value from ducklake_options('{LAKE}')").fetchall()
        )
        if found["data_path"].rstrip("/").rpartition("/")[0] != folder:
            raise LoadError(
                f"the lake of the catalog {catalog} has its files in {found['data_path']}: expected"
                " the folder above as --to, or another catalog"
            )
        # Not only where the lake was made just now: a run that made it may have been killed.
        if "parquet_compression" not in found:
            lake.execute(f"call {LAKE}.set_option('parquet_compression', 'zstd')")
        yield lake


def attach(lake: duckdb.DuckDBPyConnection, place: str, *options: str) -> bool:
    """Attach a lake; return False where there is none, and none shall be made."""
    try:
        lake.execute(f"attach {literal('ducklake:' + place)} as {LAKE} ({', '.join(options)})")
    except duckdb.InvalidInputException as error:
        if "creating a new DuckLake is explicitly disabled" in str(error):
            return False
        raise
    return True


def folder_of(url: str) -> str:
    """Return the address of a folder, whole and without a slash at its end."""
    if re.match(r"s3://[^/]", url):
        return url.rstrip("/")
    if not url or "://" in url:
        raise LoadError(f"{url!r}: expected a folder, or one in a bucket such as s3://bucket/lake")
    return str(Path(url).resolve())


def place_of(catalog: str, target: str | None) -> str:
    """Return what DuckLake calls a catalog, which is a file or in the warehouse's database.

    That of a warehouse in DuckDB is the one of the target `postgres`. Raises LoadError.
    """
    if catalog == POSTGRES:
        from ingest.on_postgres import connection_text

        settings = read_target(target)
        if settings["type"] != "postgres":
            settings = read_target("postgres")
        return POSTGRES + connection_text(settings)
    if not catalog or re.match(r"\w+:|postgres(ql)?$", catalog):
        raise LoadError(f"catalog {catalog!r}: expected the path of a file, or {POSTGRES}")
    return f"duckdb:{catalog}"


def try_writing(folder: str) -> None:
    """Write and remove a file, before a catalog is made that names a folder for good."""
    files, path = url_to_fs(folder)
    if "file" in files.protocol:
        files.makedirs(path, exist_ok=True)
    trial = f"{path}/ducklake-trial-{secrets.token_hex(4)}"
    files.pipe_file(trial, b"")
    files.rm_file(trial)


def give_keys(lake: duckdb.DuckDBPyConnection) -> None:
    """Let DuckDB use the store and the keys that all programs for AWS find. Raises LoadError."""
    try:
        from botocore.session import get_session
    except ImportError:
        raise LoadError('s3:// needs the extra `s3`: pip install -e ".[s3]"') from None
    session = get_session()
    found = session.get_credentials()
    if not found:
        raise LoadError("there are no keys for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    keys = found.get_frozen_credentials()
    client = session.create_client("s3")
    scheme, _, endpoint = client.meta.endpoint_url.partition("://")
    settings = {
        "key_id": keys.access_key,
        "secret": keys.secret_key,
        "session_token": keys.token or "",
        "region": client.meta.region_name,
        "endpoint": endpoint,
        # A store other than AWS has one name for all its buckets.
        "url_style": "vhost" if endpoint.endswith(".amazonaws.com") else "path",
        "use_ssl": str(scheme == "https").lower(),
    }
    named = (f"{name} {literal(value)}" for name, value in settings.items())
    lake.execute(f"create secret (type s3, {', '.join(named)})")
    lake.execute(f"set s3_uploader_max_filesize = '{LARGEST_FILE}'")


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
    mart: Mart,
    published: dict[str, str],
    engine: Engine,
    lake: duckdb.DuckDBPyConnection,
    *,
    full_refresh: bool,
) -> bool:
    """Bring into the lake what changed in a mart, in the transaction that is open.

    Returns whether anything did: which months were built since those that were published, where
    that is known, else whether any row differs.
    """
    name = f"{LAKE}.{mart.name}"
    is_same = has_columns(mart, lake)
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
            where = f" where {MONTH} in ({', '.join(map(literal, due))})" if by_month else ""
            lake.execute(f"delete from {name}{where}")
        else:
            lake.execute(f"create or replace table {name} as from shape")
            if mart.by_month:
                lake.execute(f"alter table {name} set partitioned by ({MONTH})")
        lake.execute(f"insert into {name} from {source}")
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
