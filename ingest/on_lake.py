"""The warehouse in a lake: Parquet files in a folder or a bucket, which Spark reads.

<lake>/raw/<table>/<load id>.<file id>.parquet    the rows of one file of the landing zone
<lake>/raw/<table>/<load id>.columns.parquet      no rows: all columns that the table has
<lake>/raw/landed_files/<number>.parquet          a snapshot of the registry; the greatest counts

A row counts if the newest snapshot lists its file as current and loaded by the load whose id the
row has. So the data files of a load come one by one, unseen, and one step commits them all, with
the removal of the rows that they replace: the next snapshot. A file once written never changes.
"""

import fcntl
import os
import re
import socket
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from ingest.columns import FILE_ID, LANDED_FILES, LOAD_ID
from ingest.engine import RAW
from ingest.errors import LoadError
from ingest.landing import sync
from ingest.on_duckdb import DuckDB
from ingest.profile import PROJECT, Target

REGISTRY, REJECTS = "landed_files", "rejected_rows"
SNAPSHOT = re.compile(rf"{REGISTRY}/(\d+)\.parquet")
DATA_FILE = re.compile(r"(?P<table>[^/]+)/(?P<load_id>\d+\.\d+)\.(?P<of>[^/]+)\.parquet")
COLUMNS = "columns"
# So many snapshots from before a load are kept, and what they need, for readers under way.
KEPT_SNAPSHOTS = 10
READ_AT_ONCE = 16
# What is raised where a file is not the Parquet that was written. (Arrow's are ValueErrors.)
DAMAGED = (KeyError, OSError, ValueError)


@contextmanager
def open_engine(target: Target, *, read_only: bool) -> Iterator["Lake"]:
    """Read what the lake holds; of the loads of one machine, one at a time can write to it.

    With `read_only`, a lake that does not exist yet is an empty one. Raises LoadError where it
    cannot be reached, read or written to, is damaged, or another load writes to it.
    """
    with ExitStack() as stack:
        lake = stack.enter_context(closing(_lake(target["lake"])))
        try:
            if not read_only:
                stack.enter_context(lake.locked())
            lake.read()
        except (OSError, *lake.error) as error:
            raise LoadError(f"the lake {lake.database}: {lake.reason(error)}") from None
        yield lake
        if not read_only:
            lake.sweep()


def _lake(url: str) -> "Lake":
    """Return the lake at a path, from the project's folder, or a URL."""
    if re.fullmatch("s3a?://(/.*)?", url):
        raise LoadError(f"the lake {url} names no bucket: expected such as s3://bucket/lake")
    try:
        # Nothing is taken from memory: another load may have written since.
        fs, root = fsspec.url_to_fs(
            url if "://" in url else str(PROJECT / url), use_listings_cache=False
        )
    except (ImportError, ValueError) as error:
        raise LoadError(
            f"the lake {url} cannot be opened: {error}: expected a folder or, with what the extra"
            ' `s3` brings (pip install -e ".[s3]"), a URL such as s3://bucket/lake'
        ) from None
    return Lake(fs, root.rstrip("/"))


class Lake(DuckDB):
    """A lake, and in a DuckDB of this process's own its registry and its tables without rows."""

    has_marts = False

    def __init__(self, fs: fsspec.AbstractFileSystem, root: str):
        self._fs, self._raw = fs, f"{root}/{RAW}"
        self._is_local = isinstance(fs, LocalFileSystem)
        self.database = root if self._is_local else fs.unstrip_protocol(root)
        if self._is_local:
            # In the lake: from there a finished file comes into its place by a new name.
            self.workspace = Path(root, ".load")
        else:
            name = re.sub(r"[^\w.-]+", "-", self.database)
            self.workspace = PROJECT / "warehouse" / f"{name}.load"
        self.error = (duckdb.Error,)
        if "s3" in fs.protocol:
            from botocore.exceptions import BotoCoreError

            self.error += (BotoCoreError,)
        self._columns: dict[str, pa.Schema] = {}
        self._connection = duckdb.connect(config={"temp_directory": str(self.workspace / "spill")})
        self._number = self._number_before = 0

    def close(self) -> None:
        """Forget what was read."""
        self._connection.close()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other loads of this machine from writing. Raises LoadError where one does."""
        path = self.workspace.with_name(f"{self.workspace.name}.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise LoadError(
                    f"another load into {self.database} goes on ({file.read()}): wait for its end,"
                    " then run this again"
                ) from None
            file.truncate(0)
            file.write(f"pid {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield

    def read(self) -> None:
        """Read the newest snapshot and the columns of all tables.

        Raises LoadError where a file that says what there is, is missing or damaged.
        """
        bucket, _, prefix = self._raw.partition("/")
        if "s3" in self._fs.protocol:
            try:
                self._fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
            except FileNotFoundError:
                raise LoadError(
                    f"the lake {self.database}: there is no bucket {bucket}: create it"
                ) from None
        files = self._files()
        numbers = self._numbers(files)
        data_files = [match for match in map(DATA_FILE.fullmatch, files) if match]
        if data_files and not numbers:
            raise LoadError(
                f"{self._raw}/{REGISTRY} has no snapshot, and there are data files such as"
                f" {data_files[0][0]}: nothing says which of their rows count. Restore the newest"
                f" snapshot from a backup or, to load all files anew, move {self._raw} away"
            )
        self.execute(f"create schema {RAW}")
        if numbers:
            self._number = self._number_before = numbers[-1]
            self._create(REGISTRY, self._snapshot(numbers).drop_columns("snapshot_number"))
        else:
            self.execute(f"create table {RAW}.{REGISTRY} (file_id varchar)")
        # The snapshot of an earlier release may have fewer columns.
        for name, kind in LANDED_FILES.items():
            self.execute(
                f"alter table {RAW}.{REGISTRY} add column if not exists {name} {self.types[kind]}"
            )
        names = [match[0] for match in data_files if match["of"] == COLUMNS]
        schemas = defaultdict(list)
        for name, content in self._read(names).items():
            try:
                schemas[DATA_FILE.fullmatch(name)["table"]].append(_parquet(content).schema_arrow)
            except DAMAGED as error:
                way = "remove it: a table that has no such file is loaded again"
                raise self._damaged(name, error, way) from None
        for table, found in schemas.items():
            try:
                self._columns[table] = pa.unify_schemas(found)
            except pa.ArrowException as error:
                raise LoadError(
                    f"files of columns in {self._raw}/{table} contradict each other ({error}):"
                    f" remove the *.{COLUMNS}.parquet that this loader did not write"
                ) from None
            self._create(table, self._columns[table].empty_table())

    def _files(self, folder: str = "") -> list[str]:
        """List the files below raw/, or a folder there, by their names from raw/ on."""
        with suppress(FileNotFoundError):
            found = self._fs.find(f"{self._raw}/{folder}")
            return sorted(path.removeprefix(f"{self._raw}/") for path in found)
        return []

    def _numbers(self, files: Sequence[str]) -> list[int]:
        """Return the numbers of the snapshots among these files, ascending."""
        return sorted(int(match[1]) for match in map(SNAPSHOT.fullmatch, files) if match)

    def _read(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the contents of some files."""
        with ThreadPoolExecutor(READ_AT_ONCE) as pool:
            contents = pool.map(self._fs.cat_file, [f"{self._raw}/{name}" for name in names])
            return dict(zip(names, contents, strict=True))

    def _snapshot(self, numbers: list[int]) -> pa.Table:
        """Read the newest of these snapshots. Raises LoadError where it is damaged."""
        *_, before, newest = [None, *map(_snapshot_name, numbers)]
        content = self._read([newest])[newest]
        try:
            table = _parquet(content).read()
            if set(table["snapshot_number"].to_pylist()) - {numbers[-1]}:
                raise ValueError("it holds another snapshot")
        except DAMAGED as error:
            way = (
                f"remove it: then {before} says what is loaded, and what came since is loaded again"
                if before
                else f"move {self._raw} away, to load all files anew"
            )
            raise self._damaged(newest, error, way) from None
        return table

    def _damaged(self, name: str, error: Exception, way: str) -> LoadError:
        """Say which file is damaged, and the way out where there is no backup."""
        return LoadError(
            f"{self._raw}/{name} is damaged ({self.reason(error)}): restore it from a backup, or"
            f" {way}"
        )

    def _create(self, table: str, content: pa.Table) -> None:
        """Make a table of DuckDB's, in place of one that may be there."""
        self._connection.register("content", content)
        self.execute(f'create or replace table {RAW}."{table}" as from content')
        self._connection.unregister("content")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make what is done in the block the next snapshot."""
        if not self._number:
            # From here on, data files without a snapshot mean that one was lost.
            self._commit_snapshot()
        with super().transaction():
            yield
            self._commit_snapshot()

    def _commit_snapshot(self) -> None:
        """Write the registry as the next snapshot. Raises LoadError where somebody else did."""
        number = self._number + 1
        name = _snapshot_name(number)
        ready = self.workspace / "snapshot.parquet"
        self._connection.sql(
            f"select *, cast({number} as bigint) as snapshot_number from {RAW}.{REGISTRY}"
        ).write_parquet(str(ready))
        try:
            self._expect_newest(self._number)
            self._create_once(ready, name)
            # One that came so late that another of its number was removed counts for nothing.
            if self._newest() - number > KEPT_SNAPSHOTS:
                raise FileExistsError
        except FileExistsError:
            raise LoadError(
                f"{self.database} was changed, as by another load, while this one went on: nothing"
                " of the running batch was loaded, the files committed before it stay; run this"
                " again"
            ) from None
        self._number = number

    def _create_once(self, ready: Path, name: str) -> None:
        """Put a finished file into its place in one step. Raises FileExistsError where one is."""
        place = f"{self._raw}/{name}"
        if self._is_local:
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            sync(ready)
            os.link(ready, place)
            sync(Path(place).parent)
        else:
            content = ready.read_bytes()
            try:
                self._fs.pipe_file(place, content, mode="create")
            except OSError:
                # Each store has its own words for it.
                if not self._fs.exists(place):
                    raise
                # A request whose answer was lost is repeated, and finds what it created.
                if self._fs.cat_file(place) != content:
                    raise FileExistsError from None
        ready.unlink()

    def _expect_newest(self, number: int) -> None:
        """Raise FileExistsError where the newest snapshot is not of this number, 0 for none."""
        if self._newest() != number:
            raise FileExistsError

    def _newest(self) -> int:
        """Return the number of the newest snapshot, 0 for none."""
        return (self._numbers(self._files(REGISTRY)) or [0])[-1]

    def destination(self) -> Any:
        """Return the dlt destination of the same lake."""
        import dlt

        return dlt.destinations.filesystem(
            self.database, layout="{table_name}/{load_id}.{file_id}.{ext}"
        )

    @contextmanager
    def client(self, pipeline: Any) -> Iterator[Any]:
        """Open dlt's client."""
        with pipeline.destination_client() as client:
            yield client

    def insert(self, table: str, parquets: Sequence[Path], load_id: str) -> None:
        """Put Parquet files, with the load id in each row, into a table's folder of the lake."""
        if table == REGISTRY:
            super().insert(table, parquets, load_id)
            return
        known = self._columns.get(table, pa.schema([]))
        of_load = pa.field(LOAD_ID, pa.string())
        schemas = [pq.read_schema(parquet).append(of_load) for parquet in parquets]
        columns = pa.unify_schemas([known, *schemas])
        ready = {}
        if columns != known:
            name = f"{table}/{load_id}.{COLUMNS}.parquet"
            ready[name] = self.workspace / Path(name).name
            pq.write_table(columns.empty_table(), ready[name])
            self._columns[table] = columns
            self._create(table, columns.empty_table())
        for parquet, schema in zip(parquets, schemas, strict=True):
            with pq.ParquetFile(parquet) as file:
                if not file.metadata.num_rows:
                    continue
                name = f"{table}/{load_id}.{_file_of(file)}.parquet"
                ready[name] = self.workspace / Path(name).name
                with pq.ParquetWriter(ready[name], schema) as writer:
                    for number in range(file.num_row_groups):
                        rows = file.read_row_group(number)
                        ids = pa.repeat(load_id, rows.num_rows)
                        writer.write_table(rows.append_column(of_load, ids))
        self._put(ready)

    def _put(self, ready: dict[str, Path]) -> None:
        """Put finished files into their places below raw/, each in one step."""
        places = [f"{self._raw}/{name}" for name in ready]
        if not self._is_local:
            self._fs.put([*map(str, ready.values())], places)
            for file in ready.values():
                file.unlink()
            return
        folders = {Path(place).parent for place in places}
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        for file, place in zip(ready.values(), places, strict=True):
            sync(file)
            file.replace(place)
        for folder in folders:
            sync(folder)

    def delete(self, table: str, where: str, parameters: Sequence[Any]) -> None:
        """Delete from the registry; rows of data go by themselves with what it says of them."""
        if table == REGISTRY:
            super().delete(table, where, parameters)

    def count(self, table: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Count the rows of a table that count, by the values of some columns of text.

        All files of its folder are read, as by any reader. Raises LoadError where one is damaged.
        """
        files = [
            name for name in self._files() if re.fullmatch(rf"{table}/[^._/][^/]*\.parquet", name)
        ]
        by = ", ".join(columns)
        of_table, file_id = (
            ("content.source_name || '_' || content.table_name", "file_id")
            if table == REJECTS
            else (f"'{table}'", FILE_ID)
        )
        names = [*columns, LOAD_ID]
        rows = pa.schema([(name, pa.string()) for name in names])
        paths = [f"{self._raw}/{name}" for name in files]
        # Else most of the files would be in memory before they are counted.
        scan = pads.dataset(paths, rows, "parquet", self._fs).scanner(
            batch_readahead=2, fragment_readahead=1
        )
        try:
            self._connection.register("arriving", scan.to_reader())
            return self.query(
                f"with content as (select {', '.join(names)}, count(*) as row_count from arriving"
                f" group by all) select {by}, cast(sum(row_count) as bigint) as row_count"
                f" from content where exists (select 1 from {RAW}.{REGISTRY} as landed"
                f" where is_current and landed.file_id = content.{file_id}"
                f" and landed.{LOAD_ID} = content.{LOAD_ID}"
                f" and landed.source_name || '_' || landed.table_name = {of_table}) group by {by}"
            )
        except (*DAMAGED, *self.error) as error:
            raise LoadError(
                f"the rows of {RAW}.{table} cannot be counted: {self.reason(error)}: remove what is"
                f" damaged from {self._raw}/{table}, and load its files with --full-refresh"
            ) from None

    def sweep(self) -> None:
        """Remove old snapshots, and the data files that none of the others needs."""
        if self._number == self._number_before:
            return
        # What stays does no harm, and the next load tries again.
        with suppress(*DAMAGED, *self.error):
            files = self._files()
            numbers = self._numbers(files)
            before = [number for number in numbers if number <= self._number_before]
            old = before[:-KEPT_SNAPSHOTS]
            for number in old:
                self._fs.rm_file(f"{self._raw}/{_snapshot_name(number)}")
            kept = [_snapshot_name(number) for number in numbers[len(old) :]]
            needed = self._needed(kept)
            oldest = self._fs.modified(f"{self._raw}/{kept[0]}")
            for match in map(DATA_FILE.fullmatch, files):
                if match and match["of"] != COLUMNS and match[0] not in needed:
                    path = f"{self._raw}/{match[0]}"
                    # A newer one may have been listed by a reader, or wait for its snapshot.
                    if self._fs.modified(path) < oldest:
                        self._fs.rm_file(path)

    def _needed(self, snapshots: Sequence[str]) -> set[str]:
        """Return the names of all data files that any of these snapshots may need."""
        paths = [f"{self._raw}/{name}" for name in snapshots]
        keys = ["source_name", "table_name", "file_id", LOAD_ID]
        entries = pads.dataset(paths, format="parquet", filesystem=self._fs).to_table(
            keys, filter=pads.field("is_current")
        )
        needed = set()
        for source, table, file_id, load_id in zip(*entries.to_pydict().values(), strict=True):
            needed.add(f"{source}_{table}/{load_id}.{file_id}.parquet")
            needed.add(f"{REJECTS}/{load_id}.{source}_{table}.{file_id}.parquet")
        return needed


def _snapshot_name(number: int) -> str:
    return f"{REGISTRY}/{number:010}.parquet"


def _file_of(file: pq.ParquetFile) -> str:
    """Return what tells a data file's rows from others of its load: as `Lake._needed` has it."""
    is_data = FILE_ID in file.schema_arrow.names
    keys = [FILE_ID] if is_data else ["source_name", "table_name", "file_id"]
    *table, file_id = next(file.iter_batches(1, columns=keys)).to_pylist()[0].values()
    return ".".join(["_".join(table), file_id]).removeprefix(".")


def _parquet(content: bytes) -> pq.ParquetFile:
    return pq.ParquetFile(pa.BufferReader(content))
