"""What only a lake brings: files that come one by one, and a snapshot that makes them count."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import fsspec
import pytest
from click.testing import CliRunner

from ingest import load, on_lake

from .conftest import LOADER, ONE_BY_ONE, PROJECT, Box, LakeBox, content, s3_store
from .servers import S3Server
from .test_load_bad_use import refusal, without_root_rights
from .test_load_killed import ORDERS, Calm, csv, start

KEEP_ONE = "from ingest import on_lake; on_lake.KEPT_SNAPSHOTS = 1;"
# As a load on another machine: it does not see the lock, and works in a folder of its own.
ELSEWHERE = (
    "import contextlib; from ingest import on_lake;"
    "on_lake.Lake.locked = lambda self: contextlib.nullcontext(setattr("
    "self, 'workspace', self.workspace.with_name('.elsewhere')));"
)


def with_change(change: str) -> tuple[str, ...]:
    """The command that commits each file by itself, with a change made to it before."""
    *python, code = ONE_BY_ONE
    return (*python, code.replace("load.main()", f"{change} load.main()"))


class CalmLake(Calm):
    """A load into a lake, to be disturbed."""

    box: LakeBox

    def save(self) -> None:
        """Keep a copy of the lake."""
        shutil.copytree(self.box.database, self.before)

    def again(self) -> None:
        """Put the copy in place of the lake."""
        shutil.rmtree(self.box.database)
        shutil.copytree(self.before, self.box.database)

    @property
    def before(self) -> Path:
        """Where the copy is."""
        return self.box.database.with_name("before")


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> CalmLake:
    folder = tmp_path_factory.mktemp("calm")
    return CalmLake(LakeBox(folder / "landing", folder / "lake"))


def look(box: LakeBox) -> dict[str, str]:
    """Read the lake as of one snapshot: all files are whole. Return their ids, by path."""
    with box.reader("from raw.acme_orders, raw.rejected_rows") as reader:
        files = reader.sql(
            "select path, file_id, rows_loaded, rows_rejected from raw.landed_files"
            " where is_current"
        ).fetchall()
        rows, rejects = (
            dict(reader.sql(f"select {key}, count(*) from raw.{table} group by 1").fetchall())
            for key, table in (("_file_id", "acme_orders"), ("file_id", "rejected_rows"))
        )
    assert rows == {file_id: count for _, file_id, count, _ in files}
    assert rejects == {file_id: count for _, file_id, _, count in files if count}
    return {path: file_id for path, file_id, *_ in files}


def test_killed_and_run_again(calm: CalmLake) -> None:
    """At seeded moments all over the load; a reader sees whole files all the time."""
    chance = random.Random("lake")
    kills, hits, seen = 6, 0, set()
    for turn in range(kills):
        calm.again()
        end = time.monotonic() + calm.seconds * (turn + chance.random()) / kills
        with calm.start() as process:
            while time.monotonic() < end:
                seen.add(frozenset(look(calm.box).items()))
            process.kill()
            process.communicate()
        hits += process.returncode == -signal.SIGKILL
        calm.box.check_registry()
        calm.box.load()
        assert content(calm.box) == calm.expected, f"killed in turn {turn}"
        assert not calm.box.workspace.exists()
    assert hits >= kills // 2
    # And once to its end.
    calm.again()
    seen.add(frozenset(look(calm.box).items()))
    with calm.start() as process:
        while process.poll() is None:
            seen.add(frozenset(look(calm.box).items()))
    seen.add(frozenset(look(calm.box).items()))
    # Old or new, no name is ever without rows.
    assert len(seen) > 1
    assert all({f"{ORDERS}{number}.csv" for number in (0, 1, 2)} <= set(dict(s)) for s in seen)


def test_reader_at_every_step(calm: CalmLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before and after each file of a load comes into its place, a reader sees whole files.

    A load that is killed there leaves just that.
    """
    calm.again()
    seen = []
    sync = on_lake.sync

    def step(path: Path) -> None:
        seen.append(look(calm.box))
        sync(path)

    monkeypatch.setattr(on_lake, "sync", step)
    monkeypatch.setattr(load, "BATCH_BYTES", 1)
    result = CliRunner().invoke(
        load.main, ["--landing", str(calm.box.landing)], env=calm.box.variables
    )
    assert result.exit_code == 0, result.output
    assert content(calm.box) == calm.expected
    # For each of the three files that are read, rows, perhaps columns and rejects, a snapshot.
    states = [state for number, state in enumerate(seen) if state != seen[number - 1]]
    assert len(seen) > 3 * 4
    assert len(states) > 3


def test_killed_in_a_first_load(calm: CalmLake, lake_box: LakeBox) -> None:
    """With no lake before, and with the next load killed as well."""
    chance = random.Random("first")
    lake_box.landing = calm.box.landing
    hits = []
    for _ in range(2):
        with start(lake_box) as process:
            time.sleep(chance.uniform(0.5, 1) * calm.seconds)
            process.kill()
            process.communicate()
        hits.append(process.returncode == -signal.SIGKILL)
    assert any(hits)
    lake_box.load()
    lake_box.check_registry()
    assert look(lake_box) == look(calm.box)


def test_two_loads_at_once(calm: CalmLake) -> None:
    """While one load goes on, another one leaves and says so; looking is allowed."""
    calm.again()
    with calm.start() as first:
        assert first.stderr.readline()
        os.kill(first.pid, signal.SIGSTOP)
        try:
            message = refusal(calm.box.run())
            assert f"another load into {calm.box.database} goes on (pid {first.pid} on" in message
            assert calm.box.run("--dry-run").returncode == 0
        finally:
            os.kill(first.pid, signal.SIGCONT)
        _, messages = first.communicate(timeout=60)
    assert first.returncode == 0, messages
    assert content(calm.box) == calm.expected


def test_two_loads_that_know_nothing_of_each_other(calm: CalmLake) -> None:
    """As on two machines: the one that comes late commits nothing, and says so."""
    calm.again()
    with calm.start(with_change(ELSEWHERE)) as late:
        assert late.stderr.readline()
        os.kill(late.pid, signal.SIGSTOP)
        try:
            calm.box.load()
            done = look(calm.box)
        finally:
            os.kill(late.pid, signal.SIGCONT)
        _, messages = late.communicate(timeout=60)
    assert late.returncode == 1, messages
    assert "was changed, as by another load, while this one went on" in messages
    assert "Traceback" not in messages
    assert look(calm.box) == done
    assert content(calm.box) == calm.expected
    assert {each[2] for each in calm.box.load().values()} <= {"unchanged", "duplicate"}


def test_same_as_duckdb(box: Box, tmp_path: Path) -> None:
    """Whatever happens to files, both hold the same afterwards, row by row."""
    lake_box = LakeBox(box.landing, tmp_path / "lake")

    def both(*args: str) -> None:
        duck, lake = box.load(*args), lake_box.load(*args)
        assert duck == lake
        assert content(box) == content(lake_box)

    for number in range(3):
        box.write(f"{ORDERS}{number}.csv", csv(number)[: 4_000 + number])
    box.write(f"{ORDERS}3.csv", 'id;Unit Price\n0005;\n;""\nNA; x \n')
    box.write(f"{ORDERS}header.csv", "id\n")
    both("--max-rejects", "9")
    # Changed, copied, renamed, more columns, and what was there comes back.
    box.write(f"{ORDERS}0.csv", csv(10)[:3_000])
    box.write(f"{ORDERS}copy.csv", csv(2)[:4_002])
    box.write(f"{ORDERS}4.csv", csv(4, extra=",more")[:3_000])
    (box.landing / ORDERS / "3.csv").rename(box.landing / ORDERS / "three.csv")
    both("--max-rejects", "9")
    both("--forget", f"{ORDERS}4.csv", "--forget", f"{ORDERS}2.csv")
    box.write(f"{ORDERS}0.csv", csv(0)[:4_000])
    both("--full-refresh", "--verify", "--max-rejects", "9")


def test_same_as_duckdb_of_the_sample(lake_box: LakeBox, landing: Path, loaded: Path) -> None:
    """All rows of all tables, but for what a load makes up."""
    lake_box.landing = landing
    lake_box.load()
    made_up = {"_dlt_load_id", "loaded_at"}
    with lake_box.reader("information_schema") as lake:
        lake.execute(f"attach '{loaded}' as duck (read_only)")
        tables = [name for (name,) in lake.sql(
            "select table_name from duckdb_tables() where schema_name = 'raw'"
            " and database_name = 'duck' and table_name not like '\\_dlt%' escape '\\'"
        ).fetchall()]  # fmt: skip
        assert len(tables) == 8
        for table in tables:
            columns = set(lake.sql(f"from duck.raw.{table}").columns)
            assert columns == set(lake.sql(f"from raw.{table}").columns)
            listed = ", ".join(sorted(columns - made_up))
            one, other = (f"select {listed} from {of}raw.{table}" for of in ("duck.", ""))
            assert lake.sql(f"({one}) except all ({other})").fetchall() == []
            assert lake.sql(f"({other}) except all ({one})").fetchall() == []


def test_files_that_no_reader_needs_are_removed(lake_box: LakeBox) -> None:
    """What was replaced or never committed goes with the last snapshot that is older."""
    box = lake_box
    box.write(f"{ORDERS}a.csv", "id\n1\n2,3\n")
    box.write(f"{ORDERS}b.csv", "id\n4\n")
    box.load("--max-rejects", "9")

    def files() -> list[Path]:
        return [path for name in ("acme_orders", "rejected_rows") for path in
                (box.raw / name).iterdir() if ".columns." not in path.name]  # fmt: skip

    assert len(files()) == 3
    kept = next(path for path in files() if look(box)[f"{ORDERS}b.csv"] in path.name)
    orphan = box.raw / "acme_orders" / f"1.5.{'0' * 64}.parquet"
    shutil.copyfile(kept, orphan)
    foreign = box.raw / "acme_orders" / "notes.txt"
    foreign.write_text("not of a load")
    box.write(f"{ORDERS}a.csv", "id\n5\n")
    box.load()
    # The snapshot before still has its rows.
    assert len(files()) == 6
    box.write(f"{ORDERS}c.csv", "id\n6\n")
    box.load(command=with_change(KEEP_ONE))
    assert len(box.snapshots()) == 2
    assert {path.name.rsplit(".", 2)[1] for path in files() if path != foreign} == {
        *look(box).values()
    }
    assert foreign.exists()
    assert box.query("select id from raw.acme_orders order by id") == [("4",), ("5",), ("6",)]
    # A load that does nothing leaves everything as it is.
    before = {path: path.stat().st_mtime_ns for path in box.raw.rglob("*")}
    box.load(command=with_change(KEEP_ONE))
    assert {path: path.stat().st_mtime_ns for path in box.raw.rglob("*")} == before


def test_verify_reads_all_files(lake_box: LakeBox) -> None:
    """A copy of a data file, one that is gone, and one that is damaged."""
    box = lake_box
    box.write(f"{ORDERS}a.csv", "id\n1\n2\n")
    box.load()
    [file] = (path for path in (box.raw / "acme_orders").iterdir() if ".columns." not in path.name)
    copy = shutil.copyfile(file, file.with_name("copy.parquet"))
    result = box.run("--verify")
    assert result.returncode == 1
    assert "raw.acme_orders holds 4 rows of acme/orders/a.csv" in result.stderr
    copy.unlink()
    file.rename(copy.with_suffix(".gone"))
    result = box.run("--verify")
    assert result.returncode == 1
    assert "raw.acme_orders holds 0 rows of acme/orders/a.csv" in result.stderr
    file.write_bytes(b"PAR1 but no more than that")
    message = refusal(box.run("--verify"))
    assert "the rows of raw.acme_orders cannot be counted" in message
    assert file.name in message
    file.unlink()
    box.load("--full-refresh", "--verify")
    assert box.query("select id from raw.acme_orders order by id") == [("1",), ("2",)]


def test_snapshot_damaged_or_missing(lake_box: LakeBox) -> None:
    """It is said, and what to do; nothing is changed."""
    box = lake_box
    box.write(f"{ORDERS}a.csv", "id\n1\n")
    box.load()
    box.write(f"{ORDERS}b.csv", "id\n2\n")
    box.load()
    *_, older, newest = box.snapshots()
    good = newest.read_bytes()
    for bad, *args in (
        (b"", "--dry-run"),
        (good[:-20], "--forget", f"{ORDERS}a.csv"),
        (b"PAR1" + bytes(100) + b"PAR1",),
        (older.read_bytes(),),
    ):
        newest.write_bytes(bad)
        message = refusal(box.run(*args))
        assert f"{newest} is damaged" in message
        assert f"remove it: then landed_files/{older.name} says what is loaded" in message
        assert newest.read_bytes() == bad
    # As the message says.
    newest.unlink()
    assert {name: line[2] for name, line in box.load().items()} == {
        f"{ORDERS}a.csv": "unchanged",
        f"{ORDERS}b.csv": "new",
    }
    box.check_registry()
    for snapshot in box.snapshots():
        snapshot.unlink()
    message = refusal(box.run())
    assert "has no snapshot, and there are data files" in message
    assert str(box.raw) in message
    box.raw.rename(box.raw.with_name("moved_away"))
    assert {line[2] for line in box.load().values()} == {"new"}
    columns = next((box.raw / "acme_orders").glob("*.columns.parquet"))
    columns.write_bytes(b"")
    assert f"{columns} is damaged" in refusal(box.run())
    columns.unlink()
    assert {line[2] for line in box.load("--verify").values()} == {"new"}


def test_lake_that_cannot_be_written_or_is_none(lake_box: LakeBox, tmp_path: Path) -> None:
    lake_box.write(f"{ORDERS}a.csv", "id\n1\n")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    file = tmp_path / "file"
    file.write_text("no folder")
    command = (*without_root_rights(), *LOADER)
    for place, *words in (
        (closed / "lake", "Permission denied"),
        (closed, "Permission denied"),
        (file, "file"),
        ("nowhere://lake", "nowhere", "expected a folder", "s3://bucket/lake"),
    ):
        message = refusal(lake_box.run(command=command, ONTIME_LAKE=str(place)))
        assert all(word in message for word in (str(place), *words)), message
    assert list(closed.iterdir()) == []
    # One that was loaded can be looked at by who may not write.
    lake_box.load()
    for path in (lake_box.raw, lake_box.database):
        path.chmod(0o555)
    assert "Permission denied" in refusal(lake_box.run(command=command))
    assert lake_box.run("--dry-run", command=command).returncode == 0
    for path in (lake_box.raw, lake_box.database):
        path.chmod(0o755)
    lake_box.load("--full-refresh", "--verify")


@pytest.fixture(params=["memory", "s3"])
def store(request: pytest.FixtureRequest) -> Iterator[tuple[Any, str, dict[str, str]]]:
    """Return a store of objects, an empty place there, and the variables by which it is found.

    One in memory, without any rules of its own, and one that speaks S3.
    """
    place = f"open/{uuid4().hex[:8]}/lake"
    if request.param == "s3":
        server = request.getfixturevalue("s3")
        url = f"s3://{place}"
        yield s3_store(server), url, {"ONTIME_LAKE": url} | server.variables()
    else:
        # DuckDB takes what follows the name of the scheme for the whole path.
        yield (
            fsspec.filesystem("memory"),
            f"memory:///{place}",
            {"ONTIME_LAKE": f"memory://{place}"},
        )
        fsspec.filesystem("memory").store.clear()
    for path in (PROJECT / "warehouse").glob(f"{request.param}-*.load.lock"):
        path.unlink()


def load_into_store(box: Box, variables: dict[str, str], *args: str) -> tuple[int, str]:
    """Load in this process, where the store in memory is; return exit code and what was said."""
    arguments = ["--target", "spark", "--landing", str(box.landing), *args]
    result = CliRunner().invoke(load.main, arguments, env=variables)
    return result.exit_code, result.output


def test_store_of_objects(
    box: Box, store: tuple[Any, str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same way through other file systems of fsspec: load, replace, verify, lose a race."""
    fs, url, variables = store

    def run(*args: str) -> tuple[int, str]:
        return load_into_store(box, variables, *args)

    def newest() -> str:
        return max(fs.ls(f"{url}/raw/landed_files", detail=False))

    def rows() -> list[tuple]:
        name = newest().rpartition("/")[2]
        with duckdb.connect() as reader:
            reader.register_filesystem(fs)
            return reader.sql(
                f"select id from '{url}/raw/landed_files/{name}' as landed join"
                f" read_parquet('{url}/raw/acme_orders/*.parquet') as held"
                " on is_current and file_id = _file_id and landed._dlt_load_id ="
                " held._dlt_load_id order by id"
            ).fetchall()

    box.write(f"{ORDERS}a.csv", "id\n1\n")
    box.write(f"{ORDERS}b.csv", "id\n2\n")
    assert run()[0] == 0
    assert rows() == [("1",), ("2",)]
    box.write(f"{ORDERS}a.csv", "id\n3\n")
    exit_code, output = run("--verify")
    assert exit_code == 0, output
    assert rows() == [("2",), ("3",)]
    # Another load is quicker, just before the snapshot is created.
    box.write(f"{ORDERS}b.csv", "id\n4\n")
    create = on_lake.Lake._create_once

    def too_late(lake: on_lake.Lake, ready: Path, name: str) -> None:
        fs.pipe_file(f"{url}/raw/{name}", b"of the other load")
        create(lake, ready, name)

    with monkeypatch.context() as patch:
        patch.setattr(on_lake.Lake, "_create_once", too_late)
        exit_code, output = run()
    assert exit_code == 1
    assert "was changed, as by another load, while this one went on" in output
    assert fs.cat_file(newest()) == b"of the other load"
    assert not list((PROJECT / "warehouse").glob(f"{url[:2]}*.load"))
    # A request that is repeated, since its answer was lost, finds what it wrote itself; and another
    # load that goes on from there takes nothing back.
    fs.rm(newest())

    def repeated(lake: on_lake.Lake, ready: Path, name: str) -> None:
        fs.pipe_file(f"{url}/raw/{name}", ready.read_bytes())
        create(lake, ready, name)
        number = int(Path(name).stem)
        fs.pipe_file(f"{url}/raw/{on_lake._snapshot_name(number + 1)}", b"of the next load")

    with monkeypatch.context() as patch:
        patch.setattr(on_lake.Lake, "_create_once", repeated)
        exit_code, output = run()
    assert exit_code == 0, output
    fs.rm(newest())
    assert rows() == [("3",), ("4",)]


def test_bucket_that_cannot_be_reached(box: Box, s3: S3Server, tmp_path: Path) -> None:
    """What is wrong is said, and not something else."""
    box.write(f"{ORDERS}a.csv", "id\n1\n")
    of_reader = s3.variables("lister")
    nowhere = s3.variables() | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    for url, variables, words in (
        ("s3://absent/lake", s3.variables(), "there is no bucket absent: create it"),
        ("s3:///lake", s3.variables(), "names no bucket"),
        ("s3://private/lake", of_reader, "Access Denied"),
        ("s3://open/lake", nowhere, "Could not connect"),
    ):
        lake = LakeBox(box.landing, tmp_path / "lake")
        message = refusal(lake.run(**variables | {"ONTIME_LAKE": url}))
        assert words in message, (url, message)
        assert "there is no bucket open" not in message


def test_columns_that_contradict_each_other(lake_box: LakeBox) -> None:
    lake_box.write(f"{ORDERS}a.csv", "id\n1\n")
    lake_box.load()
    other = lake_box.raw / "acme_orders" / "1.5.columns.parquet"
    duckdb.sql("select 1 as id limit 0").write_parquet(str(other))
    message = refusal(lake_box.run())
    assert f"files of columns in {other.parent} contradict each other" in message


def test_store_without_its_driver(lake_box: LakeBox, tmp_path: Path) -> None:
    """What an extra brings is named; nobody else needs it."""
    absent = tmp_path / "absent" / "s3fs"
    absent.mkdir(parents=True)
    (absent / "__init__.py").write_text("raise ModuleNotFoundError('s3fs')")
    lake_box.write(f"{ORDERS}a.csv", "id\n1\n")
    message = refusal(lake_box.run(ONTIME_LAKE="s3://b/lake", PYTHONPATH=str(absent.parent)))
    assert 'pip install -e ".[s3]"' in message
    code = "import sys, ingest.load; sys.exit('fsspec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT).returncode == 0
