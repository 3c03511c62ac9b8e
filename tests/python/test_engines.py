"""One project, several engines: from the same files, the same raw tables and the same marts."""

import datetime
import gzip
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from .conftest import PROJECT, Box, PostgresBox, SparkBox, run_dbt
from .test_months import flights, text

BTS = PROJECT / "tests" / "fixtures" / "bts"
MODELS_ALONE = ("--exclude", "resource_type:test", "resource_type:unit_test")
# What a load makes up: its own number and the moment.
OF_THE_LOAD = {"_dlt_load_id", "load_id", "loaded_at"}
SCHEMAS = ("raw", "reference", "marts")


@pytest.fixture(scope="module", params=["postgres", pytest.param("spark", marks=pytest.mark.spark)])
def engines(
    request: pytest.FixtureRequest, landing: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Box, Box]:
    """Return two warehouses built from the bundled files and the excerpts of BTS."""
    folder = tmp_path_factory.mktemp("engines")
    both = Box(folder / "landing", folder / "duckdb" / "warehouse.duckdb")
    server = request.getfixturevalue(request.param)
    if request.param == "postgres":
        name = f"engines_{uuid4().hex[:8]}"
        server.execute(f"create database {name}")
        other = PostgresBox(both.landing, folder / "postgres" / "warehouse", server, name)
    else:
        server.clear()
        other = SparkBox(both.landing, folder / "spark" / "lake", server)
    both.landing.mkdir()
    (both.landing / "nycflights13").symlink_to(landing / "nycflights13")
    for file in sorted(BTS.iterdir()):
        if file.name != "README.md":
            both.write(f"bts/on_time/{file.name}", file.read_bytes())
    for box in (both, other):
        box.database.parent.mkdir()
        box.load()
    # The project's own tests run on DuckDB in other files, on Spark in test_spark.py.
    build(both, *MODELS_ALONE)
    build(other, *(MODELS_ALONE if request.param == "spark" else ()))
    return both, other


def build(box: Box, *args: str) -> None:
    """Run `dbt build`, which must succeed."""
    result = run_dbt("build", *args, database=box.database, **box.variables)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("engines", ["postgres"], indirect=True)
def test_postgres_plans_by_what_is_there(engines: tuple[Box, Box]) -> None:
    """Each table's statistics are of its last load or build, not of some moment before it."""
    _, post = engines
    planned = post.query(
        "select nspname, relname, cast(reltuples as bigint) from pg_class"
        " join pg_namespace on pg_namespace.oid = relnamespace where relkind = 'r'"
        " and (nspname in ('intermediate', 'marts') or nspname = 'raw' and relname !~ 'dlt')"
    )
    assert len(planned) > 20
    for schema, table, rows in planned:
        [(found,)] = post.query(f"select count(*) from {schema}.{table}")
        # -1 stands for never; events of the last tables came after the statistics.
        if table != "int_build_events" and found:
            assert rows == pytest.approx(found, rel=0.02), table


def test_same_tables(engines: tuple[Box, Box]) -> None:
    """The same tables, and in each the same columns of the same types in the same order."""
    duck, other = (box.catalog(*SCHEMAS) for box in engines)
    assert sorted(duck) == sorted(other)
    assert len(duck) > 25
    for table, columns in duck.items():
        # Raw tables get their columns from dlt, in an order of its own; and in a table of Spark's,
        # those by which it is partitioned stand last.
        if table[0] == "raw" or isinstance(engines[1], SparkBox):
            assert sorted(columns) == sorted(other[table]), table
        else:
            assert columns == other[table], table


@pytest.mark.parametrize("schema", SCHEMAS)
def test_same_rows(schema: str, engines: tuple[Box, Box]) -> None:
    """Each table's rows are equal, to the last bit but for floating point numbers."""
    assert differences(schema, engines) == {}


def test_same_rows_when_months_changed(engines: tuple[Box, Box]) -> None:
    """A month delivered anew, with fewer flights, a new one, and one forgotten.

    All build what follows from it, and no more.
    """
    duck, _ = engines
    count = "select count(*) from marts.fct_flights"
    before = duck.query(count)
    [path] = (duck.landing / "bts" / "on_time").glob("*oklahoma*.gz")
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    path.write_bytes(gzip.compress(b"".join(lines[: len(lines) // 2])))
    duck.write("bts/on_time/february.csv", text(flights(2)))
    for box in engines:
        box.load()
        box.load("--forget", "bts/on_time/prezip_2016_01_first_rows.csv")
    for box in engines:
        build(box, *MODELS_ALONE)
        assert box.query(count) < before
    assert differences("marts", engines) == {}


def differences(schema: str, engines: tuple[Box, Box]) -> dict[str, list[tuple]]:
    """Show some rows of each table of a schema that differs."""
    differ = {}
    for (_, table), columns in engines[0].catalog(schema).items():
        kinds = [each for each in columns if each[0] not in OF_THE_LOAD]
        select = f"select {', '.join(name for name, _ in kinds)} from {schema}.{table}"
        one, other = (box.query(select) for box in engines)
        if found := difference(one, other, [kind == "double" for _, kind in kinds]):
            differ[table] = found
    return differ


Row = tuple[object, ...]


def difference(one: list[Row], other: list[Row], is_double: Sequence[bool]) -> list[Row]:
    """Show some rows of one list that the other lacks, before some of the other's own.

    Doubles may differ by 1e-9 of their size; rows may stand in any order.
    """
    exact = [not double for double in is_double]
    counts = Counter(map(plain, one))
    counts.subtract(map(plain, other))
    odd = [[row for row, count in counts.items() if sign * count > 0] for sign in (1, -1)]
    # What is left may be equal but for the last digits of a double.
    for rows in odd:
        rows.sort(key=lambda row: repr([value for value, of in zip(row, exact, strict=True) if of]))
    close = len(odd[0]) == len(odd[1]) and all(
        all(map(same, left, right, is_double)) for left, right in zip(*odd, strict=True)
    )
    return [] if close else [*odd[0][:3], ("other:",), *odd[1][:3]]


def plain(row: Row) -> Row:
    """A row with moments in UTC, whatever zone the driver chose to show them in."""
    return tuple(
        value.astimezone(datetime.UTC)
        if isinstance(value, datetime.datetime) and value.tzinfo
        else value
        for value in row
    )


def same(left: object, right: object, is_double: bool) -> bool:
    """Tell whether two values are equal, doubles nearly so."""
    if is_double and left is not None and right is not None:
        return math.isclose(left, right, rel_tol=1e-9)
    return left == right


def test_a_difference_is_shown() -> None:
    """The comparison itself: what is equal, nearly equal, and not."""
    rows = [("a", 1.0, None), ("b", 2.0, 3)]
    kinds = [False, True, False]
    assert difference(rows, rows[::-1], kinds) == []
    assert difference(rows, [("a", 1.0 + 1e-12, None), rows[1]], kinds) == []
    for changed in (("a", 1.00001, None), ("a", None, None), ("A", 1.0, None), ("a", 1.0, 0)):
        assert difference(rows, [changed, rows[1]], kinds) == [rows[0], ("other:",), changed]
    assert difference(rows, rows[1:], kinds) == [rows[0], ("other:",)]
    assert difference(rows, [*rows, rows[0]], kinds) == [("other:",), rows[0]]
