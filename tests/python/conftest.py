"""What the tests share: the real commands, run as a user runs them, in temporary folders."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import fsspec
import pyarrow.parquet as pq
import pytest

from ingest.columns import column_names
from ingest.landing import LandedFile, put_sample
from ingest.read import Job, Reject, read_file
from ingest.scan import Scan, scan_file
from ingest.unpack import unfold, utf8_file

from .servers import AwsServer, PostgresServer, S3Server, SparkCluster

PROJECT = Path(__file__).resolve().parents[2]
LOADER = (sys.executable, PROJECT / "ingest" / "load.py")
# The real command, but each file is committed by itself: more moments at which to be stopped.
ONE_BY_ONE = (
    sys.executable,
    "-c",
    "import signal, os; signal.signal(signal.SIGINT, lambda *_: os._exit(130));"
    f"import sys; sys.path[0] = {str(PROJECT)!r};"
    "from ingest import load; load.BATCH_BYTES = 1; load.main()",
)
COUNT = "select count(*) from raw."
DATABASES = ("duckdb", "postgres")
in_folder_and_bucket = pytest.mark.parametrize("box", ("duckdb", "bucket"), indirect=True)
on_each_database = pytest.mark.parametrize("box", DATABASES, indirect=True)
on_each_engine = pytest.mark.parametrize("box", (*DATABASES, "lake"), indirect=True)

# Those of the fixture `facts`.
MONTHS = ("2013-01-01", "2013-02-01", "2013-03-01")
# Different names of one type.
TYPES = {
    "double precision": "double",
    "int": "integer",
    "string": "text",
    "timestamp without time zone": "timestamp",
    "varchar": "text",
}

Row = tuple[str | None, ...]


def environment(database: Path | str, **extra: str) -> dict[str, str]:
    """The environment of a command: nothing of the project's but where the warehouse is."""
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ONTIME_", "DBT_", "PG", "AWS_", "SPARK_"))
    }
    return own | {"ONTIME_DUCKDB_PATH": str(database)} | extra


def run_load(
    *args: object,
    database: Path | str,
    cwd: Path | None = None,
    command: tuple[object, ...] = LOADER,
    **extra: str,
) -> subprocess.CompletedProcess[str]:
    """Run `python ingest/load.py` with these arguments and wait for its end."""
    return subprocess.run(
        [*map(str, command), *map(str, args)],
        cwd=cwd or Path(database).parent,
        env=environment(database, **extra),
        capture_output=True,
        text=True,
        timeout=120,
    )


def run_dbt(
    *args: object, database: Path, project: Path = PROJECT, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run `dbt` on the project; what it writes goes to `target` beside the warehouse."""
    target = database.parent / "target"
    return subprocess.run(
        [Path(sys.executable).with_name("dbt"), "--no-use-colors", *map(str, args)],
        cwd=project,
        env=environment(database, DBT_TARGET_PATH=str(target), DBT_LOG_PATH=str(target), **extra),
        capture_output=True,
        text=True,
        timeout=600,
    )


@dataclass
class Box:
    """A landing zone and a warehouse of a test's own."""

    landing: Path
    database: Path

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables by which the commands find the warehouse, besides its file."""
        return {}

    @property
    def workspace(self) -> Path:
        """The folder beside the warehouse in which a load works."""
        return self.database.with_name(f"{self.database.name}.load")

    def write(self, name: str, content: str | bytes) -> Path:
        """Put a file into the landing zone."""
        path = self.landing / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def run(self, *args: object, **options: object) -> subprocess.CompletedProcess[str]:
        """Run the load command, whatever comes of it."""
        options = {"database": self.database} | self.variables | options
        return run_load("--landing", self.landing, *args, **options)

    def load(self, *args: object, **options: object) -> dict[str, tuple[str, str, str]]:
        """Run the load command, which must succeed; return its table as {file: rest of line}."""
        result = self.run(*args, **options)
        assert result.returncode == 0, result.stderr
        return closing_table(result.stdout)

    def reader(self, sql: str) -> duckdb.DuckDBPyConnection:
        """Open the warehouse for a query."""
        return duckdb.connect(str(self.database), read_only=True)

    def land(self, *args: object, **options: object) -> subprocess.CompletedProcess[str]:
        """Run the command that puts files into the landing zone, whatever comes of it."""
        return self.run(*args, command=(sys.executable, PROJECT / "ingest" / "land.py"), **options)

    def find(self, *args: object, **options: object) -> list[dict]:
        """Run the command that finds files in the landing zone; return what it found."""
        command = (sys.executable, PROJECT / "ingest" / "find.py")
        result = self.run(*args, "--json", command=command, **options)
        assert result.returncode == (0 if result.stdout else 1), result.stderr
        return [json.loads(line) for line in result.stdout.split("\n") if line]

    def read(self, name: str) -> bytes:
        """Return the content of a file in the landing zone."""
        return (self.landing / name).read_bytes()

    def names(self) -> set[str]:
        """Return the names of all files in the landing zone, also hidden ones."""
        files = (path for path in self.landing.rglob("*") if path.is_file())
        return {path.relative_to(self.landing).as_posix() for path in files}

    def query(self, sql: str) -> list[tuple]:
        """Return the rows that the warehouse answers."""
        with self.reader(sql) as warehouse:
            return warehouse.sql(sql).fetchall()

    def execute(self, *statements: str) -> None:
        """Change something behind the loader's back."""
        with duckdb.connect(str(self.database)) as warehouse:
            for statement in statements:
                warehouse.execute(statement)

    def records(self, sql: str, *without: str) -> list[dict]:
        """Return rows by column name, in an order that does not depend on the engine."""
        with self.reader(sql) as warehouse:
            rows = warehouse.execute(sql).to_arrow_table().drop_columns([*without]).to_pylist()
        return sorted(rows, key=repr)

    def columns(self, table: str) -> list[str]:
        """Return the names of a raw table's columns."""
        names = self.query(
            "select column_name from information_schema.columns"
            f" where table_schema = 'raw' and table_name = '{table}' order by ordinal_position"
        )
        return [name for (name,) in names]

    def catalog(self, *schemas: str) -> dict[tuple[str, str], list[tuple[str, str]]]:
        """Return the columns of each table, dlt's own left out, with names of types that all share.

        As {(schema, table): [(column, type), ...]}, in the order that they have.
        """
        found: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for schema, table, column, kind in self.query(
            "select table_schema, table_name, column_name, data_type"
            " from information_schema.columns where table_name not like '%dlt%' and table_schema"
            f" in ({', '.join(map(repr, schemas))}) order by 1, 2, ordinal_position"
        ):
            of = found.setdefault((schema, table), [])
            of.append((column, TYPES.get(kind.lower(), kind.lower())))
        return found

    def tables(self) -> dict[str, int]:
        """Return the number of rows of each table of the schema `raw`, dlt's own left out."""
        names = self.query(
            "select table_name from information_schema.tables where table_schema = 'raw'"
        )
        own = sorted(name for (name,) in names if not name.startswith("_dlt"))
        return {name: self.query(COUNT + name)[0][0] for name in own}

    def check_registry(self) -> None:
        """Assert what holds after every load: nothing is lost, doubled, or without a record."""
        files = self.query(
            "select source_name || '_' || table_name, file_id, rows_loaded, rows_rejected,"
            " is_current, records_read = rows_loaded + rows_rejected,"
            " _dlt_load_id in (select load_id from raw._dlt_loads where status = 0)"
            " from raw.landed_files"
        )
        assert len({file[:2] for file in files}) == len(files)
        current = {(table, file): (rows, rejected) for table, file, rows, rejected, is_current, *_
                   in files if is_current}  # fmt: skip
        assert all(file[5:] == (True, True) for file in files)
        for table in {file[0] for file in files}:
            held = self.query(
                "select _file_id, count(*), count(distinct _row_number)"
                f" from raw.{table} group by 1"
            )
            assert all(rows == numbers for _, rows, numbers in held)
            assert {file: rows for file, rows, _ in held} == {
                file: rows for (of, file), (rows, _) in current.items() if of == table and rows
            }
        rejects = self.query(
            "select source_name || '_' || table_name, file_id, count(*)"
            " from raw.rejected_rows group by 1, 2"
        )
        assert {(table, file): count for table, file, count in rejects} == {
            key: rejected for key, (_, rejected) in current.items() if rejected
        }


@dataclass
class PostgresBox(Box):
    """A landing zone, and a warehouse in a PostgreSQL database. `database` is beside it only."""

    server: PostgresServer
    name: str

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables by which the commands find the warehouse."""
        return {"DBT_TARGET": "postgres"} | self.server.variables(self.name)

    @property
    def workspace(self) -> Path:
        """The folder in which a load works."""
        name = f"{self.name}-127.0.0.1-{self.server.port}.load"
        return PROJECT / "warehouse" / name

    def query(self, sql: str) -> list[tuple]:
        """Return the rows that the warehouse answers."""
        return self.server.execute(sql, self.name)

    def execute(self, *statements: str) -> None:
        """Change something behind the loader's back."""
        self.server.execute(";".join(statements), self.name)

    def records(self, sql: str, *without: str) -> list[dict]:
        """Return rows by column name, in an order that does not depend on the engine."""
        rows = self.query(f"select row_to_json(found) from ({sql}) as found")
        kept = [{name: row[name] for name in row if name not in without} for (row,) in rows]
        return sorted(kept, key=repr)


# What a row must be, to count: of a file and load that the newest snapshot has as current.
COUNTS = """
    exists (select 1 from raw.landed_files as landed where landed.is_current
        and landed._dlt_load_id = held._dlt_load_id and {same_file})
"""
OF_DATA = "landed.source_name || '_' || landed.table_name = '{table}' and file_id = held._file_id"
OF_REJECTS = (
    "(landed.source_name, landed.table_name, landed.file_id)"
    " = (held.source_name, held.table_name, held.file_id)"
)


@dataclass
class LakeBox(Box):
    """A landing zone, and a warehouse in a lake: the folder `database`.

    It is read as docs/operations.md tells readers to.
    """

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables by which the commands find the warehouse."""
        return {"DBT_TARGET": "spark", "ONTIME_LAKE": str(self.database)}

    @property
    def workspace(self) -> Path:
        """The folder in which a load works."""
        return self.database / ".load"

    @property
    def raw(self) -> Path:
        """The folder of the raw tables."""
        return self.database / "raw"

    def snapshots(self) -> list[Path]:
        """Return the snapshots of the registry, the newest last."""
        return sorted(self.raw.glob("landed_files/*.parquet"))

    def reader(self, sql: str) -> duckdb.DuckDBPyConnection:
        """Open a database in which the tables that a query names are views of the lake."""
        reader = duckdb.connect()
        reader.execute("create schema raw")
        if not (snapshots := self.snapshots()):
            return reader
        reader.execute(
            "create view raw.landed_files as select * exclude (snapshot_number)"
            f" from '{snapshots[-1]}'"
        )
        reader.execute(
            f"create view raw._dlt_loads as from read_json('{self.raw}/_dlt_loads/*.jsonl',"
            " columns = {load_id: 'varchar', status: 'bigint'})"
        )
        tables = {folder.name for folder in self.raw.iterdir() if any(folder.glob("*.parquet"))}
        if "information_schema" not in sql:
            tables &= set(re.findall(r"raw\.(\w+)", sql))
        for table in sorted(tables - {"landed_files"}):
            same_file = OF_REJECTS if table == "rejected_rows" else OF_DATA.format(table=table)
            reader.execute(
                f"create view raw.{table} as select * from read_parquet('{self.raw}/{table}/"
                f"*.parquet', union_by_name = true) as held where"
                f" {COUNTS.format(same_file=same_file)}"
            )
        return reader

    def execute(self, *statements: str) -> None:
        """Change something behind the loader's back: in the files of the table that is named."""
        for statement in statements:
            [table] = re.findall(r"raw\.(\w+)", statement)
            folder = self.raw / table
            files = self.snapshots()[-1:] if table == "landed_files" else [*folder.iterdir()]
            with duckdb.connect() as lake:
                lake.execute("create schema raw")
                lake.execute(
                    f"create table raw.{table} as from"
                    " read_parquet(?, union_by_name = true, filename = true)",
                    [[*map(str, files)]],
                )
                lake.execute(statement)
                if statement.startswith("drop"):
                    shutil.rmtree(folder)
                    continue
                for file in (*files, None):
                    rows = lake.table(f"raw.{table}").filter(
                        f"filename = '{file}'" if file else "filename is null"
                    )
                    if file or len(rows):
                        rows.select("* exclude (filename)").write_parquet(
                            str(file or folder / "by_hand.parquet")
                        )


@dataclass
class SparkBox(LakeBox):
    """A landing zone, a lake, and a Spark cluster that builds from it. A test has it alone."""

    cluster: SparkCluster

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables by which the commands find lake and cluster."""
        return super().variables | {
            "SPARK_REMOTE": self.cluster.remote,
            # dbt-spark asks at each statement for what a Connect server has or has not.
            "PYTHONWARNINGS": "ignore::UserWarning:pyspark.sql.connect.conf",
        }

    def query(self, sql: str) -> list[tuple]:
        """Return the rows that Spark answers."""
        return self.cluster.execute(sql)

    def catalog(self, *schemas: str) -> dict[tuple[str, str], list[tuple[str, str]]]:
        """Return the columns of each table."""
        names = {"timestamp": "timestamp with time zone", "timestamp_ntz": "timestamp"}
        found = {}
        for schema in schemas:
            for _, table, _ in self.query(f"show tables in {schema}"):
                columns = []
                for name, kind, _ in self.query(f"describe {schema}.{table}"):
                    # What follows is how the table is partitioned.
                    if name.startswith("#"):
                        break
                    columns.append((name, (names | TYPES).get(kind, kind)))
                found[schema, table] = columns
        return found


def note_built(box: Box, month: str, number: int, event_type: str = "built") -> None:
    """Record that a month of the fact was built."""
    box.execute(
        "insert into intermediate.int_build_events values ('fct_flights',"
        f" '{month}', {number}, '{event_type}', 'x', cast('2026-01-01' as timestamp))"
    )


@dataclass
class BucketBox(Box):
    """A landing zone in a bucket, and a warehouse in a DuckDB file. `landing` is not used."""

    server: S3Server
    store: Any
    url: str

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables by which the commands find the bucket."""
        return self.server.variables() | {"ONTIME_LANDING": self.url}

    def write(self, name: str, content: str | bytes) -> str:
        """Put an object into the landing zone; return its URL."""
        body = content.encode() if isinstance(content, str) else content
        self.store.pipe_file(f"{self.url}/{name}", body)
        return f"{self.url}/{name}"

    def run(self, *args: object, **options: object) -> subprocess.CompletedProcess[str]:
        """Run the load command, whatever comes of it."""
        return run_load(*args, database=self.database, **self.variables | options)

    def read(self, name: str) -> bytes:
        """Return the content of an object in the landing zone."""
        return self.store.cat_file(f"{self.url}/{name}")

    def names(self) -> set[str]:
        """Return the names of all objects in the landing zone, also hidden ones."""
        root = self.url.removeprefix("s3://")
        return {path.removeprefix(f"{root}/") for path in self.store.find(self.url)}


def closing_table(output: str) -> dict[str, tuple[str, str, str]]:
    """Read the table that ends a load: rows, rejected and status by file."""
    header, _, *lines = output.splitlines()
    assert header.split() == ["file", "rows", "rejected", "status", "seconds"]
    cells = (line.rsplit(maxsplit=4) for line in lines)
    return {name: (rows, rejected, status) for name, rows, rejected, status, _ in cells}


def content(box: Box) -> tuple:
    """Return everything in a warehouse that must not depend on how it came there."""
    box.check_registry()
    return (
        box.tables(),
        box.records("select * from raw.acme_orders", "_dlt_load_id"),
        box.records("select file_id, line, reason, raw_text from raw.rejected_rows"),
        box.records("select * from raw.landed_files", "_dlt_load_id", "loaded_at", "retired_at"),
    )


def read(
    folder: Path, content: bytes, max_rejects: int = 1_000_000, *, is_slow: bool = False
) -> tuple[Scan, list[Row], list[Reject], list[int]]:
    """Scan and read a file in process: what the scan says, the rows, the rejects, the row numbers.

    `is_slow` has it read record by record, whatever the scan says.
    """
    path = folder / "file.csv"
    path.write_bytes(content)
    [file], _ = unfold(LandedFile("acme", "orders", path, "acme/orders/file.csv"))
    scan = scan_file(file)
    if is_slow:
        scan = replace(scan, is_regular=False)
    names = column_names(scan.header)
    parquet = folder / "file.parquet"
    with utf8_file(file, scan.place.compression, scan.encoding, scan.file_id, folder) as plain:
        job = Job(plain, scan, file, names, parquet, max_rejects, lambda records: None)
        reading = read_file(job)
    table = pq.read_table(parquet)
    assert table.column_names == [*names, "_file_id", "_row_number"]
    assert table.num_rows == reading.rows
    assert set(table["_file_id"].to_pylist()) <= {scan.file_id}
    of_file = scan.file_id, file.source, file.table
    rows = list(zip(*(table[name].to_pylist() for name in names), strict=True))
    rejects = []
    if reading.rejects:
        for row in pq.read_table(reading.rejects).to_pylist():
            assert (row["file_id"], row["source_name"], row["table_name"]) == of_file
            rejects.append(Reject(row["line"], row["reason"], row["raw_text"]))
    assert (reading.rejected, reading.first_reject) == (len(rejects), next(iter(rejects), None))
    return scan, rows, rejects, table["_row_number"].to_pylist()


@pytest.fixture
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Box:
    """Return an empty landing zone, and where a warehouse may be made."""
    if (engine := getattr(request, "param", "duckdb")) != "duckdb":
        return request.getfixturevalue(f"{engine}_box")
    landing = tmp_path / "landing"
    landing.mkdir()
    return Box(landing, tmp_path / "warehouse.duckdb")


@pytest.fixture
def lake_box(tmp_path: Path) -> LakeBox:
    """Return an empty landing zone, and where a lake may be made."""
    landing = tmp_path / "landing"
    landing.mkdir()
    return LakeBox(landing, tmp_path / "lake")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Return a running PostgreSQL server."""
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture
def postgres_box(tmp_path: Path, postgres: PostgresServer) -> Iterator[PostgresBox]:
    """Return an empty landing zone, and an empty PostgreSQL database."""
    landing = tmp_path / "landing"
    landing.mkdir()
    name = f"test_{uuid4().hex[:8]}"
    postgres.execute(f"create database {name}")
    yield PostgresBox(landing, tmp_path / "warehouse", postgres, name)
    postgres.execute(f"drop database {name} with (force)")


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkCluster]:
    """Return a running Spark cluster."""
    cluster = SparkCluster()
    yield cluster
    cluster.remove()


@pytest.fixture
def spark_box(tmp_path: Path, spark: SparkCluster) -> SparkBox:
    """Return an empty landing zone, and where a lake may be made; the cluster has no table."""
    spark.clear()
    landing = tmp_path / "landing"
    landing.mkdir()
    return SparkBox(landing, tmp_path / "lake", spark)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """Return a running object store, with the buckets `open` and `private`."""
    server = S3Server()
    store = s3_store(server)
    store.mkdir("open")
    store.mkdir("private")
    yield server
    server.remove()


@pytest.fixture(scope="session")
def aws() -> Iterator[AwsServer]:
    """Return a running emulator of AWS."""
    server = AwsServer()
    yield server
    server.remove()


def s3_store(server: S3Server) -> Any:
    """Return an object store's file system, for who may do everything."""
    variables = server.variables()
    return fsspec.filesystem(
        "s3",
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        key=variables["AWS_ACCESS_KEY_ID"],
        secret=variables["AWS_SECRET_ACCESS_KEY"],
        client_kwargs={"region_name": variables["AWS_DEFAULT_REGION"]},
        use_listings_cache=False,
    )


@pytest.fixture
def bucket_box(tmp_path: Path, s3: S3Server) -> BucketBox:
    """Return an empty landing zone in a bucket, and where a warehouse may be made."""
    url = f"s3://open/{uuid4().hex[:8]}/landing"
    database = tmp_path / "warehouse.duckdb"
    return BucketBox(tmp_path / "none", database, s3, s3_store(s3), url)


@pytest.fixture(scope="session")
def landing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a landing zone with the bundled files. Tests read it; to change it, they copy it."""
    landing = tmp_path_factory.mktemp("session") / "landing"
    put_sample(landing)
    return landing


@pytest.fixture(scope="session")
def loaded(landing: Path) -> Path:
    """Return a warehouse with the bundled files. Tests read it; to change it, they copy it."""
    database = landing.parent / "loaded" / "warehouse.duckdb"
    database.parent.mkdir()
    result = run_load("--landing", landing, database=database)
    assert result.returncode == 0, result.stderr
    return database


@pytest.fixture(scope="session")
def built(loaded: Path) -> Iterator[Path]:
    """Return a warehouse with the bundled files in which dbt has built everything."""
    database = loaded.parent.with_name("built") / "warehouse.duckdb"
    database.parent.mkdir()
    shutil.copyfile(loaded, database)
    result = run_dbt("build", database=database)
    assert result.returncode == 0, result.stdout
    return database


@pytest.fixture
def sample_box(tmp_path: Path, landing: Path, loaded: Path) -> Box:
    """Return a copy of the bundled files and of the warehouse that holds them."""
    shutil.copytree(landing, tmp_path / "landing")
    shutil.copyfile(loaded, tmp_path / "warehouse.duckdb")
    return Box(tmp_path / "landing", tmp_path / "warehouse.duckdb")


@pytest.fixture
def facts(box: Box) -> Box:
    """A warehouse with a fact of three months and the record of their build, and a dimension."""
    box.execute(
        "create schema marts",
        "create schema intermediate",
        "create table marts.fct_flights as"
        " select cast(number as integer) as flight_number,"
        " cast('2013-01-01' as date) as flight_month from generate_series(1, 3) as s (number)"
        " union all select 4, cast('2013-02-01' as date)"
        " union all select 5, cast('2013-03-01' as date)",
        "create table marts.dim_airlines as select 'UA' as carrier_code",
        "create table intermediate.int_build_events (node_name text, part text,"
        " event_number bigint, event_type text, made_of text, happened_at timestamp)",
    )
    for month in MONTHS:
        note_built(box, month, 1)
    return box
