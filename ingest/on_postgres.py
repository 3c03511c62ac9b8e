"""The warehouse in a PostgreSQL database."""

import io
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from ingest.columns import LOAD_ID
from ingest.engine import RAW, Engine
from ingest.errors import FileRefused, LoadError
from ingest.profile import PROJECT, Target

try:
    import psycopg2
except ImportError:
    raise LoadError(
        "the PostgreSQL driver is not installed: expected what the extra `postgres` brings, such"
        ' as by pip install -e ".[postgres]"'
    ) from None

# The casts of the models ask for pg_input_is_valid, which came with this release.
OLDEST_RELEASE = 16
LOCK = int.from_bytes(b"ontime")
# How long to wait for another load's end: a killed one's session may need a moment to go.
LOCK_SECONDS = 5
COPY_ROWS = 8_192
COPY_BYTES = 1 << 20
MAX_COLUMNS = 1_600
# A row lies in one page. Of a value of more than 23 bytes only a pointer has to lie there.
PAGE_BYTES, POINTER_BYTES, LONGEST_INLINE = 8_160, 18, 23
MAX_RECORD_BYTES = (1 << 30) - 1
READ_BYTES = 4 << 20
# PostgreSQL's types, by their numbers in its catalog, and how rows that are read come.
ARROW_TYPES = {
    16: pa.bool_(),
    20: pa.int64(),
    21: pa.int16(),
    23: pa.int32(),
    25: pa.string(),
    700: pa.float32(),
    701: pa.float64(),
    1043: pa.string(),
    1082: pa.date32(),
    1114: pa.timestamp("us"),
    1184: pa.timestamp("us", "UTC"),
}
NUMERIC = 1700
# What dbt's profile may say of a connection, and how libpq calls it.
OF_LIBPQ = {
    **{"dbname": "dbname", "database": "dbname", "password": "password", "pass": "password"},
    **{name: name for name in ("sslmode", "sslcert", "sslkey", "sslrootcert", "connect_timeout")},
}
# What to do about it, by what is said where no connection is made.
ADVICE = {
    "password": "set PGUSER and PGPASSWORD, or write a password file (PGPASSFILE)",
    "^(database|role) .* does not exist": "create it, or set PGDATABASE and PGUSER",
    "certificate|SSL|pg_hba|permission": "see PGSSLMODE and PGSSLROOTCERT, or ask who runs it",
    "": "see that a server runs there, or set PGHOST and PGPORT",
}


@contextmanager
def open_engine(target: Target, *, read_only: bool) -> Iterator["Postgres"]:
    """Connect to the database; one session at a time can load into it.

    Raises LoadError where the server cannot be reached or refuses, or is not one that can hold the
    warehouse, and where another load goes on.
    """
    try:
        connection = psycopg2.connect(
            client_encoding="UTF8",
            application_name=f"ontime, pid {os.getpid()} on {socket.gethostname()}"[:63],
            **{"connect_timeout": 15} | _of_libpq(target),
        )
    except psycopg2.Error as error:
        raise LoadError(_why_not_connected(target, error)) from None
    with closing(connection):
        engine = Postgres(connection)
        try:
            engine.set_up(read_only=read_only)
        except psycopg2.Error as error:
            raise LoadError(engine.reason(error)) from None
        yield engine


def _of_libpq(target: Target) -> dict[str, str]:
    """Return what a target says of a connection, as libpq calls it."""
    chosen = target.chosen(*OF_LIBPQ).items()
    return {name: target[name] for name in ("host", "port", "user")} | {
        OF_LIBPQ[name]: value for name, value in chosen
    }


def connection_text(target: Target) -> str:
    """Return a target's connection as one text for libpq, to be shown to anybody.

    It has no password: libpq finds that itself, in PGPASSWORD or a password file.
    """
    named = _of_libpq(target)
    named.pop("password", None)
    return psycopg2.extensions.make_dsn(**named)


def _why_not_connected(target: Target, error: psycopg2.Error) -> str:
    """Say what is wrong with a connection, and what to do."""
    # A name may have several addresses, with a line for each: what a server said counts most.
    lines = str(error).strip().splitlines()
    line = next((line for line in lines if "FATAL" in line), lines[0])
    reason = re.split(r"FATAL:\s+|failed: ", line)[-1]
    advice = next(advice for sign, advice in ADVICE.items() if re.search(sign, reason))
    where = f"{target['host']}, port {target['port']} (target {target.name!r})"
    return f"no connection to PostgreSQL at {where}: {reason}: {advice}"


class Postgres(Engine):
    """A session with a PostgreSQL database."""

    error = psycopg2.Error
    types: ClassVar = {
        "text": "text",
        "bigint": "bigint",
        "timestamp": "timestamp with time zone",
        "bool": "boolean",
    }

    def __init__(self, connection: Any):
        self._connection = connection
        of = connection.info
        self.database = f"{of.dbname} at {of.host}:{of.port}"
        # It may be another machine's database, but the folder is this one's.
        name = re.sub(r"[^\w.-]+", "-", f"{of.dbname}-{of.host}-{of.port}")
        self.workspace = PROJECT / "warehouse" / f"{name}.load"
        self._columns: dict[str, set[str]] = {}

    def set_up(self, *, read_only: bool) -> None:
        """Prepare the session, and take the lock of the one that may load.

        Raises LoadError where the server cannot hold the warehouse, or another session loads.
        """
        # Who only reads sees one state of all tables in a transaction.
        isolation = "REPEATABLE READ" if read_only else "DEFAULT"
        self._connection.set_session(isolation, readonly=read_only, autocommit=True)
        release = self._connection.server_version // 10_000
        if release < OLDEST_RELEASE:
            raise LoadError(
                f"{self.database} is PostgreSQL {release}: expected {OLDEST_RELEASE} or newer"
            )
        encoding = self._connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise LoadError(
                f"the database {self.database} is in the encoding {encoding}, which cannot hold"
                " all text: expected one created with encoding 'UTF8'"
            )
        # A server that can, notices in the middle of a statement that a killed load is gone.
        with suppress(psycopg2.Error):
            self.execute("set client_connection_check_interval = '1s'")
        if not read_only:
            self._lock()

    def _lock(self) -> None:
        give_up = time.monotonic() + LOCK_SECONDS
        while not self.query("select pg_try_advisory_lock(?) as is_ours", [LOCK])[0]["is_ours"]:
            if time.monotonic() > give_up:
                raise LoadError(self._why_locked())
            time.sleep(0.1)

    def _why_locked(self) -> str:
        holders = self.query(
            "select pid, application_name, usename, client_addr from pg_locks"
            " left join pg_stat_activity using (pid)"
            " where locktype = 'advisory' and granted and objsubid = 1"
            " and database = (select oid from pg_database where datname = current_database())"
            " and (cast(classid as bigint) << 32) + cast(objid as bigint) = ?",
            [LOCK],
        )
        holder = "; ".join(
            "{application_name}, user {usename}, from {client_addr}, server process {pid}".format(
                **each
            )
            for each in holders
        )
        return (
            f"another load into {self.database} goes on ({holder or 'it ended just now'}): wait for"
            " its end, then run this again"
        )

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement."""
        with self._connection.cursor() as cursor:
            cursor.execute(sql.replace("?", "%s"), parameters)

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Return the rows that a statement answers."""
        with self._connection.cursor() as cursor:
            cursor.execute(sql.replace("?", "%s"), parameters)
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make what is done in the block one transaction."""
        self._connection.autocommit = False
        try:
            yield
            self._connection.commit()
        except BaseException:
            # Where the session is lost, the server has undone it.
            with suppress(psycopg2.Error):
                self._connection.rollback()
            raise
        finally:
            with suppress(psycopg2.Error):
                self._connection.autocommit = True

    def destination(self) -> Any:
        """Return the dlt destination of PostgreSQL."""
        import dlt
        from dlt.destinations.impl.postgres.factory import PostgresTypeMapper

        class TypeMapper(PostgresTypeMapper):
            # As dbt calls text: it takes varchar for another type, and a change.
            sct_to_unbound_dbt: ClassVar = {**PostgresTypeMapper.sct_to_unbound_dbt, "text": "text"}
            dbt_to_sct: ClassVar = {**PostgresTypeMapper.dbt_to_sct, "text": "text"}

        class Destination(dlt.destinations.postgres):
            def _raw_capabilities(self) -> Any:
                capabilities = super()._raw_capabilities()
                capabilities.type_mapper = TypeMapper
                # Else, where one of its own drivers is missing, it rewrites Parquet as SQL.
                capabilities.loader_file_format_selector = None
                return capabilities

        # dlt asks for credentials and gets none: it works in this session.
        return Destination("postgresql://of:this@session/alone", create_indexes=False)

    @contextmanager
    def client(self, pipeline: Any) -> Iterator[Any]:
        """Give dlt's client this session, so that the lock and the work stand and fall together."""
        client = pipeline.destination_client()
        client.sql_client._conn = self._connection
        yield client

    def insert(self, table: str, parquets: Sequence[Path], load_id: str) -> None:
        """Add the rows of Parquet files to a raw table, which may have more columns, with COPY."""
        for parquet in parquets:
            with pq.ParquetFile(parquet) as file, self._connection.cursor() as cursor:
                columns = ", ".join(f'"{name}"' for name in [*file.schema_arrow.names, LOAD_ID])
                rows = io.BufferedReader(_Csv(_with_load_id(file, load_id)), COPY_BYTES)
                cursor.copy_expert(
                    f'copy {RAW}."{table}" ({columns}) from stdin (format csv)', rows, COPY_BYTES
                )
        # The server does it, too, but some time later: a build at once would be planned without.
        self.execute(f'analyze {RAW}."{table}"')

    def check(self, table: str, columns: Sequence[str], parquet: Path) -> None:
        """Raise FileRefused for what PostgreSQL cannot hold.

        That is more than 1,600 columns, a row that does not fit into a page even with its long
        values elsewhere, and a record of a gigabyte. (NUL is in no record that was read.)
        """
        known = self._columns.get(table)
        if known is None:
            rows = self.query(
                "select column_name from information_schema.columns"
                " where table_schema = ? and table_name = ?",
                [RAW, table],
            )
            known = {row["column_name"] for row in rows}
        with pq.ParquetFile(parquet) as file:
            names = known | {*columns, *file.schema_arrow.names, LOAD_ID}
            if len(names) > MAX_COLUMNS:
                raise FileRefused(
                    f"with its {len(columns):,} columns, raw.{table} would have {len(names):,}, and"
                    f" a table in PostgreSQL can have {MAX_COLUMNS:,} at most: split the file"
                )
            for number in range(file.num_row_groups):
                size = file.metadata.row_group(number).total_byte_size
                if len(names) * (LONGEST_INLINE + 1) > PAGE_BYTES or size > MAX_RECORD_BYTES:
                    _check_rows(file.read_row_group(number), len(names))
        self._columns[table] = names

    @contextmanager
    def rows(self, sql: str) -> Iterator[pa.RecordBatchReader]:
        """Stream the rows that a query answers, with COPY."""
        with self._connection.cursor() as cursor:
            cursor.execute(f"select * from ({sql}) as answer limit 0")
            types = {column.name: _arrow_type(column) for column in cursor.description}
            reading, writing = os.pipe()
            with ThreadPoolExecutor(1) as other, os.fdopen(reading, "rb") as answer:
                copied = other.submit(_copy_out, cursor, sql, writing)
                try:
                    yield pacsv.open_csv(
                        answer,
                        pacsv.ReadOptions(block_size=READ_BYTES),
                        pacsv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
                        pacsv.ConvertOptions(
                            column_types=types,
                            null_values=[""],
                            true_values=["t"],
                            false_values=["f"],
                            strings_can_be_null=True,
                            quoted_strings_can_be_null=False,
                        ),
                    )
                except BaseException:
                    # Or else all rows would have to come before anything else can be done. Where
                    # that fails, too, what failed first is what counts.
                    with suppress(psycopg2.Error):
                        self._connection.cancel()
                    raise
                answer.close()
                # What ended early looks like an end.
                copied.result()

    def expect_columns(self, width: int) -> None:
        """Do nothing: the memory is the server's."""

    def reason(self, error: Exception) -> str:
        """Say what is wrong, and who is not allowed to do what."""
        said = super().reason(error)
        if isinstance(error, psycopg2.errors.InsufficientPrivilege):
            user = self._connection.info.user
            return f"{said} in {self.database}: the user {user} must be able to create and change"
        return f"{said} ({self.database})" if isinstance(error, psycopg2.Error) else said


def _check_rows(rows: pa.Table, width: int) -> None:
    """Raise FileRefused for the first row that PostgreSQL cannot hold in a table so wide."""
    # A row begins with 24 bytes and a bit per column; its number takes 8, the load id 20 at most.
    in_page, in_record = 24 + (width + 7) // 8 + 8 + LONGEST_INLINE + 8, 0
    for column in rows.columns:
        if pa.types.is_string(column.type):
            length = pc.cast(pc.binary_length(column), pa.int64())
            is_long = pc.greater(length, LONGEST_INLINE)
            held = pc.if_else(is_long, POINTER_BYTES, pc.add(length, 1))
            in_page = pc.add(in_page, pc.fill_null(held, 0))
            in_record = pc.add(in_record, pc.add(pc.fill_null(length, 0), 3))
    for sizes, limit, what in (
        (in_page, PAGE_BYTES, "takes {} bytes in a page even with its long values elsewhere"),
        (in_record, MAX_RECORD_BYTES, "has {} bytes"),
    ):
        if pc.max(sizes).as_py() > limit:
            row = pc.index(pc.greater(sizes, limit), True).as_py()
            number = rows["_row_number"][row].as_py()
            found = what.format(f"{sizes[row].as_py():,}")
            raise FileRefused(f"record {number:,} {found}, and PostgreSQL can hold {limit:,}")


def _with_load_id(file: pq.ParquetFile, load_id: str) -> Iterator[pa.RecordBatch]:
    """Yield a file's rows in small batches, with the load id as the last column."""
    # One group of rows at a time: a batch over several could be of any size.
    for number in range(file.num_row_groups):
        for batch in file.iter_batches(COPY_ROWS, row_groups=[number]):
            ids = pa.repeat(load_id, batch.num_rows)
            yield pa.record_batch([*batch.columns, ids], [*batch.schema.names, LOAD_ID])


def _arrow_type(column: Any) -> pa.DataType:
    """Return the Arrow type of a column of an answer, as psycopg2 describes it."""
    if column.type_code == NUMERIC and column.precision and column.precision <= 38:
        return pa.decimal128(column.precision, column.scale)
    if column.type_code not in ARROW_TYPES:
        raise LoadError(
            f"column {column.name} is of a type that files do not have (number {column.type_code}"
            " in pg_type): cast it in its model, to numeric(precision, scale) for decimals"
        )
    return ARROW_TYPES[column.type_code]


def _copy_out(cursor: Any, sql: str, pipe: int) -> None:
    """Write the rows that a query answers into a pipe, as CSV with a header."""
    with os.fdopen(pipe, "wb") as answer:
        cursor.copy_expert(f"copy ({sql}) to stdout (format csv, header)", answer, READ_BYTES)


class _Csv(io.RawIOBase):
    """Rows as CSV for COPY, which takes a bare empty field as null and a quoted one as ''."""

    def __init__(self, batches: Iterable[pa.RecordBatch]):
        self._batches = iter(batches)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        """Tell that there is something to read."""
        return True

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer, as far as the batch at hand reaches."""
        while not self._left:
            batch = next(self._batches, None)
            if batch is None:
                return 0
            csv = pa.BufferOutputStream()
            # Every value is quoted: a bare \. at the start of a line would end the data.
            options = pacsv.WriteOptions(include_header=False, quoting_style="all_valid")
            pacsv.write_csv(batch, csv, options)
            self._left = memoryview(csv.getvalue()).cast("B")
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count
