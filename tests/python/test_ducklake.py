"""The marts in a DuckLake: the same rows and types, snapshots, and never half a publication."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import duckdb
import fsspec
import psycopg2.extensions
import pytest

from ingest.ducklake import give_keys, load_extension, place_of

from .conftest import (
    MONTHS,
    PROJECT,
    Box,
    PostgresBox,
    environment,
    note_built,
    on_each_database,
    s3_store,
)
from .servers import S3Server
from .test_publish import ODDITIES, PUBLISH, ROWS, TEXTS


@dataclass(frozen=True)
class Lake:
    """A warehouse and the lake that it is published to.

    That of a DuckDB file is all files; that of PostgreSQL has its catalog there, too, and its files
    in a bucket.
    """

    box: Box
    url: str
    catalog: str
    variables: dict[str, str] = field(default_factory=dict)
    store: Any = field(default_factory=lambda: fsspec.filesystem("file"))

    def run(
        self, *args: object, command: tuple[object, ...] = PUBLISH
    ) -> subprocess.CompletedProcess[str]:
        """Run `python ingest/publish.py`, whatever comes of it."""
        return subprocess.run(
            [*map(str, command), "--to", self.url, "--ducklake", self.catalog, *map(str, args)],
            cwd=self.box.database.parent,
            env=environment(self.box.database, **self.box.variables, **self.variables),
            capture_output=True,
            text=True,
            timeout=120,
        )

    def publish(self, *args: object) -> dict[str, str]:
        """Publish, which must succeed; return what it says of each mart."""
        result = self.run(*args)
        assert result.returncode == 0, result.stderr
        *lines, last = result.stdout.splitlines()
        assert last == f"the newest snapshot is {self.newest()}"
        return dict(line.split(": ", 1) for line in lines)

    @contextmanager
    def reader(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A session that has the lake attached, as docs/operations.md shows."""
        variables = self.box.variables | self.variables
        with duckdb.connect() as session, patch.dict("os.environ", variables):
            load_extension(session, "ducklake")
            options = "read_only"
            if self.variables:
                load_extension(session, "postgres_scanner")
                load_extension(session, "httpfs")
                give_keys(session)
                options += ", metadata_schema 'ducklake'"
            session.execute(f"attach 'ducklake:{self.catalog}' as lake ({options})")
            yield session

    def read(self, mart: str, at: int | None = None) -> list[tuple]:
        """The rows that a reader has, now or at a snapshot."""
        with self.reader() as session:
            when = f" at (version => {at})" if at else ""
            rows = session.sql(f"from lake.{mart}{when}").to_arrow_table().to_pylist()
        return sorted((tuple(row.values()) for row in rows), key=repr)

    def newest(self) -> int:
        """The number of the newest snapshot."""
        with self.reader() as session:
            [(number,)] = session.execute(
                "select max(snapshot_id) from ducklake_snapshots('lake')"
            ).fetchall()
        return number

    def files(self, mart: str) -> set[str]:
        """The Parquet files of a mart, whether they count or not, by folder and name."""
        found = self.store.glob(f"{self.url}/ducklake-*/main/{mart}/**/*.parquet")
        return {"/".join(path.rsplit("/", 2)[1:]) for path in found}


@pytest.fixture
def lake(box: Box, request: pytest.FixtureRequest) -> Lake:
    """Return a lake for a warehouse, with nothing in it."""
    folder = box.database.parent
    if not isinstance(box, PostgresBox):
        return Lake(box, str(folder / "it's a lake"), str(folder / "catalog.ducklake"))
    server: S3Server = request.getfixturevalue("s3")
    url = f"s3://open/{uuid4().hex[:8]}/lake"
    return Lake(box, url, "postgres:", server.variables(), s3_store(server))


@on_each_database
def test_values_and_types(lake: Lake) -> None:
    """Each value comes out as it is in the warehouse, and in the same type."""
    lake.box.execute(
        "create schema marts",
        f"create table marts.dim_oddities as {ODDITIES}",
        "create table marts.fct_nothing as select *, day as flight_month"
        f" from ({ROWS}) as found where id < 0",
    )
    assert lake.publish() == {
        "dim_oddities": f"{4 + len(TEXTS)} rows, published",
        "fct_nothing": "0 rows, published",
    }
    with duckdb.connect() as other, lake.reader() as session:
        expected, found = other.sql(ROWS), session.sql("from lake.dim_oddities")
        assert (found.columns, found.types) == (expected.columns, expected.types)
        rows = [tuple(row.values()) for row in expected.to_arrow_table().to_pylist()]
    rows += [(number, *[None] * 7, text) for number, text in enumerate(TEXTS, 5)]
    # As text, since NaN is not equal to itself.
    assert list(map(repr, lake.read("dim_oddities"))) == sorted(map(repr, rows))
    assert lake.read("fct_nothing") == []
    # Nothing that is in it differs from itself, NaN included.
    assert lake.publish()["dim_oddities"].endswith("unchanged")


@on_each_database
def test_only_months_that_were_built_are_written(lake: Lake, facts: Box) -> None:
    """What nobody built since stays in its file; a run without anything new is no snapshot."""
    lake.publish()
    first, before = lake.newest(), lake.read("fct_flights")
    lay_there = lake.files("fct_flights")
    assert {path.split("/")[0] for path in lay_there} == {f"flight_month={m}" for m in MONTHS}
    assert lake.publish()["fct_flights"] == "5 rows, unchanged"
    assert (lake.newest(), lake.files("fct_flights")) == (first, lay_there)
    # A change that no build made is not looked for; that of the same month by a build is.
    facts.execute("update marts.fct_flights set flight_number = -flight_number")
    note_built(facts, "2013-01-01", 2, "tested")
    note_built(facts, "2013-02-01", 2)
    assert lake.publish()["fct_flights"] == "5 rows, published"
    changed = [(-number if month.month == 2 else number, month) for number, month in before]
    assert lake.read("fct_flights") == sorted(changed, key=repr)
    [new] = lake.files("fct_flights") - lay_there
    assert new.startswith("flight_month=2013-02-01/")
    # A month that lost its flights goes, and everything is written where it is asked for.
    facts.execute("delete from marts.fct_flights where flight_month = '2013-02-01'")
    note_built(facts, "2013-02-01", 3)
    lake.publish()
    assert [row for row in lake.read("fct_flights") if row[1].month == 2] == []
    lake.publish("--full-refresh")
    kept = [(-number, month) for number, month in before if month.month != 2]
    assert lake.read("fct_flights") == sorted(kept, key=repr)
    # Time travel: what the first run published is still there.
    assert lake.read("fct_flights", at=first) == before


def test_a_mart_without_months_is_compared(lake: Lake, facts: Box) -> None:
    """It is written where a row differs, appears twice or left."""
    lake.publish()
    for change in (
        "insert into marts.dim_airlines values ('UA')",
        "update marts.dim_airlines set carrier_code = null",
        "delete from marts.dim_airlines",
    ):
        facts.execute(change)
        assert lake.publish()["dim_airlines"].endswith("published")
        assert lake.publish()["dim_airlines"].endswith("unchanged")
        assert lake.read("dim_airlines") == facts.query("select * from marts.dim_airlines")


def test_a_new_column_writes_everything(lake: Lake, facts: Box) -> None:
    """Old snapshots keep the old columns."""
    lake.publish()
    first = lake.newest()
    facts.execute("alter table marts.fct_flights add column carrier_code text")
    assert lake.publish()["fct_flights"] == "5 rows, published"
    assert {len(row) for row in lake.read("fct_flights")} == {3}
    assert {len(row) for row in lake.read("fct_flights", at=first)} == {2}
    assert lake.publish()["fct_flights"] == "5 rows, unchanged"


# The real command, killed before or after the n-th call of one of its functions.
KILLED = (
    "import os, signal, sys; sys.path[0] = {project!r}; from ingest import ducklake, publish\n"
    "left = [{number}]; step = ducklake.{step}\n"
    "def last(*args, **options):\n"
    "    left[0] -= 1\n"
    "    if {after}: done = step(*args, **options)\n"
    "    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\n"
    "    return done if {after} else step(*args, **options)\n"
    "ducklake.{step} = last; publish.main()"
)
MOMENTS = [("write", 2, True), ("commit", 1, False), ("commit", 1, True)]


@on_each_database
def test_killed_at_any_step(lake: Lake, facts: Box) -> None:
    """Readers have all marts of one snapshot, the old or the new; the next run does the rest."""
    lake.publish()
    marts = ("dim_airlines", "fct_flights")
    for run, (step, number, after) in enumerate(MOMENTS, 2):
        old = [lake.read(mart) for mart in marts]
        facts.execute(
            f"update marts.dim_airlines set carrier_code = 'U{run}'",
            "update marts.fct_flights set flight_number = flight_number + 100",
        )
        for month in MONTHS:
            note_built(facts, month, run)
        code = KILLED.format(project=str(PROJECT), step=step, number=number, after=after)
        result = lake.run(command=(sys.executable, "-c", code))
        assert result.returncode == -signal.SIGKILL, result.stderr
        seen = [lake.read(mart) for mart in marts]
        lake.publish()
        new = [lake.read(mart) for mart in marts]
        assert [one == other for one, other in zip(old, new, strict=True)] == [False, False]
        assert seen == (new if (step, after) == ("commit", True) else old)


@on_each_database
@pytest.mark.parametrize("first", [False, True])
def test_two_at_once(lake: Lake, facts: Box, first: bool) -> None:
    """One of them says so, and changes nothing, also where each would change other marts."""
    if not first:
        # With nothing in it, no file is taken out that would tell.
        facts.execute("delete from marts.dim_airlines")
        lake.publish()
        facts.execute("insert into marts.dim_airlines values ('UA')")
    code = (
        f"import subprocess, sys; sys.path[0] = {str(PROJECT)!r}\n"
        "from ingest import ducklake, publish\n"
        "commit = ducklake.commit\n"
        "def slow(lake):\n"
        f"    done = subprocess.run([*{list(map(str, PUBLISH))}, *sys.argv[1:]])\n"
        "    print('the other:', done.returncode, file=sys.stderr)\n"
        "    commit(lake)\n"
        "ducklake.commit = slow; publish.main()"
    )
    result = lake.run(command=(sys.executable, "-c", code))
    assert "Traceback" not in result.stderr
    if isinstance(lake.box, PostgresBox):
        assert (result.returncode, "the other: 0" in result.stderr) == (1, True), result.stderr
        assert "another run published to this lake meanwhile" in result.stderr
    else:
        # DuckDB's file has one writer, and so has the catalog.
        assert (result.returncode, "the other: 1" in result.stderr) == (0, True), result.stderr
    assert lake.read("dim_airlines") == [("UA",)]
    assert lake.publish() == {"dim_airlines": "1 rows, unchanged",
                              "fct_flights": "5 rows, unchanged"}  # fmt: skip


@on_each_database
def test_marts_come_and_go(lake: Lake, facts: Box) -> None:
    """A mart that is none any more is removed, and old snapshots have it; builds are noted late."""
    facts.execute("alter table intermediate.int_build_events rename to set_aside")
    lake.publish()
    first = lake.newest()
    facts.execute(
        "alter table intermediate.set_aside rename to int_build_events",
        "alter table marts.dim_airlines rename to dim_carriers",
    )
    for month in MONTHS:
        note_built(facts, month, 1)
    assert lake.publish() == {
        "dim_carriers": "1 rows, published",
        "fct_flights": "5 rows, unchanged",
        "dim_airlines": "no mart any more, removed",
    }
    assert lake.read("dim_airlines", at=first) == lake.read("dim_carriers")
    with pytest.raises(duckdb.CatalogException):
        lake.read("dim_airlines")
    # By now it is known of which builds the months are: what no build made is not looked for.
    facts.execute("update marts.fct_flights set flight_number = 0")
    assert lake.publish()["fct_flights"] == "5 rows, unchanged"


@on_each_database
@pytest.mark.parametrize("options", [(), ("plain",)])
def test_interrupted(lake: Lake, box: Box, options: tuple[str, ...]) -> None:
    """Ctrl-C while rows are written ends with its own code, no traceback, and the old lake."""
    box.execute("create schema marts", "create table marts.dim_rows as select 1 as number")
    command = [*map(str, PUBLISH), "--to", lake.url]
    command += [] if options else ["--ducklake", lake.catalog]
    variables = environment(box.database, **box.variables, **lake.variables)
    assert subprocess.run(command, cwd=box.database.parent, env=variables).returncode == 0
    # Without an end, as far as anybody can wait for it.
    box.execute(
        "drop table marts.dim_rows",
        "create view marts.dim_rows as select cast(number % 7 as integer) as number"
        " from generate_series(1, 1000000) as s (number)"
        " cross join generate_series(1, 1000000) as t (other)",
    )
    with subprocess.Popen(
        command, cwd=box.database.parent, env=variables, stderr=subprocess.PIPE, text=True
    ) as process:
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        try:
            said = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert said.startswith("Interrupted. ")
    assert len(said.splitlines()) == 1
    if not options:
        assert lake.read("dim_rows") == [(1,)]


def test_built_marts(built: Path, tmp_path: Path) -> None:
    """The project's own marts, row by row; they are read only."""
    box = Box(tmp_path, built)
    lake = Lake(box, str(tmp_path / "lake"), str(tmp_path / "catalog.ducklake"))
    said = lake.publish()
    assert said["fct_flights"] == "336,776 rows, published"
    with lake.reader() as session:
        session.execute(f"attach '{built}' as warehouse (read_only)")
        session.execute("use warehouse")
        files = tmp_path / "lake" / "ducklake-*" / "main" / "**" / "*.parquet"
        kinds = session.execute(f"select distinct compression from parquet_metadata('{files}')")
        assert kinds.fetchall() == [("ZSTD",)]
        for mart in said:
            [(differ,)] = session.execute(
                f"select count(*) from ((from marts.{mart}) except all (from lake.{mart}))"
            ).fetchall()
            [(rows,)] = session.execute(f"select count(*) from marts.{mart}").fetchall()
            assert (differ, f"{rows:,} rows, published") == (0, said[mart]), mart


def test_statements_of_the_operators_guide(facts: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of docs/operations.md run as they stand; what expired is gone, what counts stays."""
    guide = (PROJECT / "docs" / "operations.md").read_text()
    section = guide.split("### In a DuckLake")[1].split("\n## ")[0]
    blocks = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    monkeypatch.chdir(facts.database.parent)
    lake = Lake(facts, "published", "catalog.ducklake")
    assert f"--to {lake.url} --ducklake {lake.catalog}" in blocks[0]
    lake.publish()
    note_built(facts, MONTHS[0], 2)
    lake.publish()
    (Path(lake.url) / "other.parquet").touch()
    with duckdb.connect() as session:
        load_extension(session, "ducklake")
        session.execute(blocks[1])
        assert session.fetchall() == [(5,)]
        session.execute("detach lake")
        before = lake.files("fct_flights")
        session.execute(blocks[2].replace("30 days", "0 days"))
        assert session.execute("select count(*) from lake.fct_flights").fetchall() == [(5,)]
    assert len(before) == 4
    assert len(lake.files("fct_flights")) == 3
    # What is not the lake's is left alone.
    assert (Path(lake.url) / "other.parquet").exists()


def test_a_lake_that_was_only_just_made(box: Box, tmp_path: Path) -> None:
    """One without a setting, as a killed first run leaves it, gets it."""
    box.execute("create schema marts", "create table marts.dim_rows as select 1 as number")
    lake = Lake(box, str(tmp_path / "lake"), str(tmp_path / "catalog.ducklake"))
    with duckdb.connect() as session:
        load_extension(session, "ducklake")
        options = f"data_path '{lake.url}/ducklake-0/'"
        session.execute(f"attach 'ducklake:{lake.catalog}' as lake ({options})")
    lake.publish()
    [file] = (tmp_path / "lake" / "ducklake-0").rglob("dim_rows/*.parquet")
    kinds = duckdb.sql(f"select distinct compression from parquet_metadata('{file}')")
    assert kinds.fetchall() == [("ZSTD",)]


def test_catalog_is_where_the_target_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all that a profile may say of a connection, but for the password."""
    said = {"host": "it's here", "port": "5433", "user": "a \\ b", "database": "on time",
            "password": "hunter2", "sslmode": "require"}  # fmt: skip
    profile = {"target": "postgres", "outputs": {"postgres": {"type": "postgres"} | said}}
    (tmp_path / "profiles.yml").write_text(json.dumps({"ontime": profile}))
    monkeypatch.setenv("DBT_PROFILES_DIR", str(tmp_path))
    kind, _, text = place_of("postgres:", None).partition(":")
    assert kind == "postgres"
    assert psycopg2.extensions.parse_dsn(text) == {
        "host": "it's here", "port": "5433", "user": "a \\ b", "dbname": "on time",
        "sslmode": "require",
    }  # fmt: skip


@on_each_database
def test_bad_use(lake: Lake, facts: Box) -> None:
    """Each wrong use has one plain line and the right code, and leaves no catalog behind."""
    (facts.database.parent / "text").write_text("no catalog")
    for args, code, said in (
        (("--glue-database", "x"), 2, "Athena reads no DuckLake"),
        (("--to", "nowhere://x"), 1, "expected a folder, or one in a bucket"),
        (("--to", "memory://x"), 1, "expected a folder, or one in a bucket"),
        (("--to", "s3://"), 1, "expected a folder, or one in a bucket"),
        (("--to", ""), 1, "expected a folder, or one in a bucket"),
        (("--target", "spark"), 1, "are tables of Spark"),
        (("--ducklake", "text"), 1, "what was not said to be published"),
        (
            ("--ducklake", "postgres:password=hunter2"),
            1,
            "expected the path of a file, or postgres:",
        ),
        (("--ducklake", "sqlite:x"), 1, "expected the path of a file, or"),
        (("--ducklake", "postgres"), 1, "expected the path of a file, or"),
        (("--to", "/proc/marts"), 1, "what was not said to be published"),
    ):
        result = lake.run(*args)
        assert result.returncode == code, (args, result.stderr)
        assert said in result.stderr
        assert len(result.stderr.splitlines()) == (4 if code == 2 else 1), result.stderr
    # The place that could not be written to is in no catalog.
    lake.publish()
    elsewhere = facts.database.parent / "elsewhere"
    result = lake.run("--to", elsewhere)
    assert result.returncode == 1
    if isinstance(facts, PostgresBox):
        assert f"Data path {lake.url}/ducklake-" in result.stderr
    else:
        assert "has its files in" in result.stderr
        assert "expected the folder above as --to, or another catalog" in result.stderr
    assert not elsewhere.exists()


def test_a_bucket_that_may_only_be_read(box: Box, s3: S3Server, tmp_path: Path) -> None:
    """It is said in one line; a catalog is made once somebody may write."""
    box.execute("create schema marts", "create table marts.dim_rows as select 1 as number")
    catalog, url = str(tmp_path / "catalog.ducklake"), f"s3://open/{uuid4().hex[:8]}"
    for user, code in (("reader", 1), ("admin", 0)):
        lake = Lake(box, url, catalog, s3.variables(user), s3_store(s3))
        result = lake.run()
        assert result.returncode == code, result.stderr
        assert len(result.stderr.splitlines()) == code
        assert Path(catalog).exists() is (code == 0)
