"""Published marts: the same rows and types from each engine, and never half a table."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from .conftest import MONTHS, PROJECT, Box, environment, note_built, on_each_database

PUBLISH = (sys.executable, PROJECT / "ingest" / "publish.py")
# What text files and drivers are known to get wrong; each type that a mart may have.
ROWS = """
    select
        cast(1 as integer) as id, cast(9007199254740993 as bigint) as whole,
        cast(0.1 as double precision) as share, cast(12345678.90 as numeric(12, 2)) as price,
        true as is_known, cast('2013-01-31' as date) as day,
        cast('2013-03-10 02:30:00.123456' as timestamp) as local_at,
        cast('2013-03-10 02:30:00+00' as timestamp with time zone) as moment_at,
        'a "quoted", line' as words
    union all
    select 2, -1, cast('NaN' as double precision), cast(-0.01 as numeric(12, 2)), false,
        cast('1987-10-01' as date), cast('1987-10-25 01:30:00' as timestamp),
        cast('1987-10-25 01:30:00-05' as timestamp with time zone), ''
    union all
    select 3, null, cast('-Infinity' as double precision), cast(null as numeric(12, 2)), null, null,
        null, null, null
    union all
    select 4, 0, 1e-300, cast(0 as numeric(12, 2)), true, cast('2030-12-31' as date),
        cast('2030-12-31 23:59:59.999999' as timestamp),
        cast('2030-12-31 23:59:59+00' as timestamp with time zone), 'NULL'
"""
TEXTS = ["two\nlines", "\\.", "\\N", " spaces ", "NA", "ünï ☃", "t", "0005", "'"]
ODDITIES = " union all ".join(
    [
        ROWS,
        *(
            f"select {number}, null, null, cast(null as numeric(12, 2)), null, null, null, null,"
            f" '{text.replace(chr(39), chr(39) * 2)}'"
            for number, text in enumerate(TEXTS, 5)
        ),
    ]
)
TYPES = {
    "id": "int",
    "whole": "bigint",
    "share": "double",
    "price": "decimal(12,2)",
    "is_known": "boolean",
    "day": "date",
    "local_at": "timestamp",
    "moment_at": "timestamp",
    "words": "string",
}


def run_publish(
    box: Box, *args: object, command: tuple[object, ...] = PUBLISH, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run `python ingest/publish.py` into the folder `marts` beside the warehouse."""
    return subprocess.run(
        [*map(str, command), "--to", box.database.parent / "marts", *map(str, args)],
        cwd=box.database.parent,
        env=environment(box.database, **box.variables, **extra),
        capture_output=True,
        text=True,
        timeout=120,
    )


def publish(box: Box, *args: object) -> dict[str, str]:
    """Publish, which must succeed; return what it says of each mart."""
    result = run_publish(box, *args)
    assert result.returncode == 0, result.stderr
    return dict(line.split(": ", 1) for line in result.stdout.splitlines())


def latest(box: Box, table: str) -> dict:
    """What readers go by."""
    return json.loads((box.database.parent / "marts" / table / "_latest.json").read_text())


def versions(box: Box, table: str) -> set[str]:
    """The names of what lies in a mart's folder, but for `_latest.json`."""
    folder = box.database.parent / "marts" / table
    return {path.name for path in folder.iterdir()} - {"_latest.json"}


def read(box: Box, table: str) -> list[tuple]:
    """The rows that a reader gets, as docs/operations.md shows; each row must be counted."""
    folder = box.database.parent / "marts" / table
    found = latest(box, table)
    if not found["files"]:
        return []
    files = [str(folder / file["path"]) for file in found["files"]]
    # In the warehouse's order of columns, which the folders' names come after in the files.
    select = ", ".join(found["columns"])
    rows = duckdb.sql(f"select {select} from read_parquet({files}, hive_partitioning = true)")
    answer = rows.to_arrow_table().to_pylist()
    assert len(answer) == sum(file["rows"] for file in found["files"])
    return sorted((tuple(row.values()) for row in answer), key=repr)


@on_each_database
def test_values_and_types(box: Box) -> None:
    """Each value comes out as it is in the warehouse, and as the type that Athena knows."""
    box.execute(
        "create schema marts",
        f"create table marts.dim_oddities as {ODDITIES}",
        "create table marts.fct_nothing as select *, day as flight_month"
        f" from ({ROWS}) as found where id < 0",
        "create table marts.fct_null as select cast(null as integer) as number",
    )
    said = publish(box)
    assert {table: line.split(",")[0] for table, line in said.items()} == {
        "dim_oddities": f"{4 + len(TEXTS)} rows",
        "fct_nothing": "0 rows",
        "fct_null": "1 rows",
    }
    assert latest(box, "dim_oddities")["columns"] == TYPES
    assert latest(box, "fct_nothing")["columns"] == TYPES | {"flight_month": "date"}
    with duckdb.connect() as other:
        expected = other.sql(ROWS).to_arrow_table().to_pylist()
    rows = [tuple(row.values()) for row in expected]
    rows += [(number, *[None] * 7, text) for number, text in enumerate(TEXTS, 5)]
    # As text, since NaN is not equal to itself.
    assert list(map(repr, read(box, "dim_oddities"))) == sorted(map(repr, rows))
    assert read(box, "fct_nothing") == []
    assert read(box, "fct_null") == [(None,)]


@on_each_database
def test_only_months_that_were_built_are_written(facts: Box) -> None:
    """The files of the others are copied: what nobody built since does not change."""
    publish(facts)
    assert [file["path"].split("/")[1] for file in latest(facts, "fct_flights")["files"]] == [
        f"flight_month={month}" for month in MONTHS
    ]
    before = read(facts, "fct_flights")
    assert publish(facts)["fct_flights"].endswith("unchanged")
    # A change that no build made is not looked for; that of the same month by a build is.
    facts.execute("update marts.fct_flights set flight_number = -flight_number")
    note_built(facts, "2013-01-01", 2, "tested")
    note_built(facts, "2013-02-01", 2)
    publish(facts)
    changed = [(-number if month.month == 2 else number, month) for number, month in before]
    assert read(facts, "fct_flights") == sorted(changed, key=repr)
    # A month that lost its flights goes, and everything is written where it is asked for.
    facts.execute("delete from marts.fct_flights where flight_month = '2013-02-01'")
    note_built(facts, "2013-02-01", 3)
    publish(facts)
    assert [row for row in read(facts, "fct_flights") if row[1].month == 2] == []
    publish(facts, "--full-refresh")
    assert read(facts, "fct_flights") == sorted(
        [(-number, month) for number, month in before if month.month != 2], key=repr
    )


def test_a_new_column_writes_everything(facts: Box) -> None:
    """No version mixes files of two shapes."""
    publish(facts)
    facts.execute("alter table marts.fct_flights add column carrier_code text")
    publish(facts)
    assert latest(facts, "fct_flights")["columns"]["carrier_code"] == "string"
    assert {len(row) for row in read(facts, "fct_flights")} == {3}


def test_the_version_before_stays(facts: Box) -> None:
    """A reader under way finds its files until the version after the next."""
    names = []
    for number in range(2, 6):
        note_built(facts, "2013-01-01", number)
        publish(facts)
        names.append(latest(facts, "fct_flights")["version"])
        assert versions(facts, "fct_flights") == set(names[-2:])
        assert latest(facts, "fct_flights")["previous"] == (names[-2] if names[1:] else "")


# The real command, killed at the n-th call of one of its steps, before or after it.
KILLED = (
    "import os, signal, sys; sys.path[0] = {project!r}; from ingest import publish;"
    "left = [{number}]; step = publish.Store.{step}\n"
    "def last(*args):\n"
    "    left[0] -= 1\n"
    "    if {after}: step(*args)\n"
    "    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\n"
    "    if not {after}: return step(*args)\n"
    "publish.Store.{step} = last; publish.main()"
)
MOMENTS = [
    *[("put", number, after) for number in (1, 2, 4) for after in (False, True)],
    *[("copy", number, False) for number in (1, 2)],
    *[(step, number, after) for step in ("switch", "clean")
      for number in (1, 2) for after in (False, True)],
]  # fmt: skip


def test_killed_at_any_step(facts: Box) -> None:
    """Readers have one whole version of each mart; the next run publishes and clears up."""
    publish(facts)
    number = 1
    for step, call, after in MOMENTS:
        number += 1
        facts.execute(
            "update marts.fct_flights set flight_number = flight_number + 100",
            f"update marts.dim_airlines set carrier_code = 'U{number}'",
        )
        # One month stays as it is, so that its files are copied.
        old = {table: read(facts, table) for table in ("fct_flights", "dim_airlines")}
        months = MONTHS if step == "put" and call == 4 else MONTHS[: 1 if step == "copy" else 2]
        for month in months:
            note_built(facts, month, number)
        code = KILLED.format(project=str(PROJECT), step=step, number=call, after=after)
        result = run_publish(facts, command=(sys.executable, "-c", code))
        assert result.returncode == -signal.SIGKILL, (step, call, result.stderr)
        seen = {table: read(facts, table) for table in old}
        publish(facts)
        new = {table: read(facts, table) for table in old}
        for table in old:
            assert old[table] != new[table]
            assert seen[table] in (old[table], new[table]), (step, call, after)
            found = latest(facts, table)
            assert versions(facts, table) == {found["version"], found["previous"]}
        facts.execute(
            "update marts.fct_flights set flight_number = flight_number - 100"
            f" where flight_month not in ({', '.join(map(repr, months))})"
        )


def test_two_at_once(facts: Box) -> None:
    """The one that comes last says so and changes nothing."""
    publish(facts)
    code = (
        f"import subprocess, sys; sys.path[0] = {str(PROJECT)!r}; from ingest import publish;"
        "write = publish.write\n"
        "def slow(*args, **options):\n"
        "    written = write(*args, **options)\n"
        "    publish.write = write\n"
        f"    subprocess.run([*{list(map(str, PUBLISH))}, *sys.argv[1:]], check=True)\n"
        "    return written\n"
        "publish.write = slow; publish.main()"
    )
    result = run_publish(facts, command=(sys.executable, "-c", code))
    assert result.returncode == 1
    assert "another run published dim_airlines" in result.stderr
    assert latest(facts, "dim_airlines")["version"].startswith("00000002-")
    publish(facts)
    assert len(versions(facts, "dim_airlines")) == 2


@pytest.mark.parametrize("mart", ["fct_flights", "rpt_carrier_months"])
def test_built_marts(built: Path, tmp_path: Path, mart: str) -> None:
    """The project's own marts, row by row; they are read only."""
    box = Box(tmp_path, built)
    result = subprocess.run(
        [*map(str, PUBLISH), "--to", tmp_path / "marts"],
        env=environment(built),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    found = read(Box(tmp_path, tmp_path / "warehouse"), mart)
    with duckdb.connect(str(built), read_only=True) as warehouse:
        rows = warehouse.sql(f"from marts.{mart}").to_arrow_table().to_pylist()
    assert found == sorted((tuple(row.values()) for row in rows), key=repr)
    assert box.query("select count(*) from marts.fct_flights") == [(336776,)]


@on_each_database
def test_a_type_that_files_do_not_have(box: Box) -> None:
    """The message names the column and what to do."""
    box.execute(
        "create schema marts", "create table marts.dim_a as select cast('1 day' as interval) as b"
    )
    result = run_publish(box)
    assert result.returncode == 1
    assert "column b is" in result.stderr
    assert "cast it in its model" in result.stderr
    assert "Traceback" not in result.stderr


def test_bad_use(facts: Box, tmp_path: Path) -> None:
    """Each wrong use has one plain line and the right code."""
    empty = Box(tmp_path, tmp_path / "empty" / "warehouse.duckdb")
    empty.database.parent.mkdir()
    empty.execute("create schema marts")
    for box, args, code, said in (
        (empty, (), 1, "has no marts: `dbt build` makes them"),
        (facts, ("--to", "nowhere://x"), 1, "expected a folder, or an address"),
        (facts, ("--target", "snowflake"), 1, "no target 'snowflake'"),
        (facts, ("--target", "spark"), 1, "are tables of Spark"),
        (facts, ("--frobnicate",), 2, "No such option"),
        (facts, ("--to", "/proc/marts"), 1, "what was not said to be published"),
    ):
        result = run_publish(box, *args)
        assert result.returncode == code, args
        assert said in result.stderr
        assert "Traceback" not in result.stderr
    publish(facts)
    (facts.database.parent / "marts" / "dim_airlines" / "_latest.json").write_text("{")
    result = run_publish(facts)
    assert (result.returncode, "is none that this command wrote" in result.stderr) == (1, True)
