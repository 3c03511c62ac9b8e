"""Models that are built by month: what changed is built anew, and nothing else; none is missed."""

import datetime
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import PROJECT, Box, environment, run_dbt
from .test_bts import FOLDER, MODELS_ALONE, as_expo, as_selection, iso, oklahoma

BY_MONTH = (
    "intermediate.int_flights_unioned",
    "marts.fct_flights",
    "marts.fct_aircraft_turns",
    "marts.rpt_airport_months",
    "marts.rpt_cancellation_months",
    "marts.rpt_carrier_months",
    "marts.rpt_delay_cause_months",
    "marts.rpt_delay_propagation",
    "marts.rpt_hours_of_day",
    "marts.rpt_route_months",
    "marts.rpt_taxi_times",
)
JANUARY, FEBRUARY, MARCH, APRIL = (f"2023-0{month}-01" for month in range(1, 5))
# It stands in Oklahoma City overnight on the 28th and leaves there on the 1st.
OVERNIGHT = "N243SY"


def flights(month: int) -> list[dict[str, str]]:
    """The flights of a few aircraft in Oklahoma, moved from January to another month of 2023."""
    tails = [OVERNIGHT, *sorted({row["TAIL_NUM"] for row in oklahoma() if row["TAIL_NUM"]})[:12]]
    tails += [row["TAIL_NUM"] for row in oklahoma() if row["CANCELLED"] == "1"][:1]
    days = {2: 28, 4: 30}.get(month, 31)
    rows = []
    for row in oklahoma():
        day = int(iso(row["FL_DATE"])[-2:])
        if row["TAIL_NUM"] in tails and day <= days:
            rows.append(row | {"FL_DATE": f"{month}/{day}/2023 0:00", "MONTH": str(month)})
    return rows


def text(rows: list[dict[str, str]]) -> str:
    columns = [name for name in rows[0] if "CITY" not in name]
    return as_selection(rows, columns)


def sample(landing: Path, table: str, *, rows: int = 2000) -> str:
    lines = (landing / "nycflights13" / table / f"{table}.csv").read_text().splitlines(True)
    return "".join(lines[: rows + 1])


def build(box: Box, *args: object) -> None:
    """Build all models, without the tests."""
    result = run_dbt("build", *MODELS_ALONE, *args, database=box.database)
    assert result.returncode == 0, result.stdout


def everything(box: Box) -> dict[str, list[tuple]]:
    return {table: box.query(f"from {table} order by all") for table in BY_MONTH}


def built(box: Box, model: str) -> list[str]:
    """The months of a model that the last run built."""
    query = f"""
        select part from intermediate.int_build_events
        where node_name = '{model}' and event_type = 'built'
        and happened_at = (select max(happened_at) from intermediate.int_build_events)
        order by part
    """
    return [part for (part,) in box.query(query)]


def fresh(box: Box, folder: Path) -> Box:
    """The same landing zone, loaded and built at once in a warehouse of its own."""
    folder.mkdir()
    other = Box(box.landing, folder / "warehouse.duckdb")
    other.load()
    build(other)
    return other


@pytest.fixture(scope="module")
def two_months(tmp_path_factory: pytest.TempPathFactory) -> Box:
    """A warehouse with January and February, built and tested. Tests copy it."""
    folder = tmp_path_factory.mktemp("months")
    box = Box(folder / "landing", folder / "warehouse.duckdb")
    for month in (1, 2):
        box.write(f"{FOLDER}{month}.csv", text(flights(month)))
    box.load()
    result = run_dbt("build", database=box.database)
    assert result.returncode == 0, result.stdout
    return box


@pytest.fixture(scope="module")
def rebuilt_after_kill(two_months: Box, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the files that the killed builds have make, without a kill."""
    folder = tmp_path_factory.mktemp("undisturbed")
    box = Box(folder / "landing", folder / "warehouse.duckdb")
    box.write(f"{FOLDER}1.csv", text(flights(1)))
    bring_march(box)
    build(box)
    return everything(box)


def bring_march(box: Box) -> None:
    """March, and February with fewer flights."""
    box.write(f"{FOLDER}2.csv", text(flights(2)[::3]))
    box.write(f"{FOLDER}3.csv", text(flights(3)))
    box.load()


@pytest.fixture
def months(two_months: Box, box: Box) -> Box:
    for file in (two_months.landing / FOLDER).iterdir():
        path = box.write(FOLDER + file.name, file.read_bytes())
        os.utime(path, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    box.database.write_bytes(two_months.database.read_bytes())
    return box


def test_a_new_month_builds_itself_and_what_touches_it(months: Box, tmp_path: Path) -> None:
    """Turns of aircraft reach over the end of a month: those of the month before are built too."""
    before = everything(months)
    months.write(f"{FOLDER}3.csv", text(flights(3)))
    months.load()
    build(months)
    for model in ("int_flights_unioned", "fct_flights", "rpt_route_months", "rpt_airport_months"):
        assert built(months, model) == [MARCH], model
    for model in ("fct_aircraft_turns", "rpt_delay_propagation"):
        assert built(months, model) == [FEBRUARY, MARCH], model
    assert months.query("select count(*) from marts.fct_flights where flight_month < '2023-03-01'")[
        0
    ][0] == len(before["marts.fct_flights"])
    turns = months.query(
        "select count(*) from marts.fct_aircraft_turns as turns"
        " join marts.fct_flights as incoming on turns.incoming_flight_id = incoming.flight_id"
        " where incoming.flight_month <> turns.flight_month"
    )
    assert turns[0][0] > 0
    assert everything(months) == everything(fresh(months, tmp_path / "fresh"))


def test_nothing_new_builds_nothing(months: Box) -> None:
    before = everything(months)
    events = months.query("from intermediate.int_build_events order by all")
    build(months)
    assert months.query("from intermediate.int_build_events order by all") == events
    assert everything(months) == before
    # Loaded anew, the same bytes count as new: another loader may have read them otherwise.
    months.load("--full-refresh", months.landing / FOLDER / "2.csv")
    build(months)
    assert built(months, "fct_flights") == [FEBRUARY]
    assert everything(months) == before


def test_a_corrected_file_with_fewer_flights(months: Box, tmp_path: Path) -> None:
    cancelled = (
        "select count(*) from marts.rpt_cancellation_months where flight_month = '2023-02-01'"
    )
    assert months.query(cancelled) != [(0,)]
    rows = [row for row in flights(2) if row["CANCELLED"] == "0"][:20]
    months.write(f"{FOLDER}2.csv", text(rows))
    months.load()
    build(months)
    assert built(months, "fct_flights") == [FEBRUARY]
    assert months.query(
        "select count(*) from marts.fct_flights where flight_month = '2023-02-01'"
    ) == [(20,)]
    assert months.query(cancelled) == [(0,)]
    assert everything(months) == everything(fresh(months, tmp_path / "fresh"))


def test_a_forgotten_file_takes_its_month_along(months: Box) -> None:
    january = [
        [row for row in rows if "2023-01-01" in map(str, row)]
        for table, rows in everything(months).items()
        if table not in ("marts.fct_aircraft_turns", "marts.rpt_delay_propagation")
    ]
    months.load("--forget", f"{FOLDER}2.csv")
    build(months)
    assert built(months, "fct_flights") == [FEBRUARY]
    after = everything(months)
    for table in BY_MONTH:
        count = f"select count(*) from {table} where flight_month <> '2023-01-01'"
        assert months.query(count) == [(0,)], table
    del after["marts.fct_aircraft_turns"], after["marts.rpt_delay_propagation"]
    assert [
        [row for row in rows if "2023-01-01" in map(str, row)] for rows in after.values()
    ] == january
    build(months)
    assert built(months, "fct_flights") == [FEBRUARY]


def test_what_is_not_known_of_is_not_kept(months: Box, tmp_path: Path) -> None:
    """Where the record of what was built is lost, all is built, and nothing old stays."""
    months.execute("drop table intermediate.int_build_events")
    months.load("--forget", f"{FOLDER}2.csv")
    alone = run_dbt("run", "--select", "fct_flights", database=months.database)
    assert alone.returncode == 1
    assert "int_build_events is not there" in alone.stdout
    build(months)
    for table in BY_MONTH:
        assert months.query(f"select distinct flight_month from {table}") <= [
            (datetime.date(2023, 1, 1),)
        ], table


def test_a_dry_build_leaves_the_months_due(months: Box) -> None:
    """With --empty dbt builds from no rows: nothing is noted as built, the next build does it."""
    before = everything(months)
    empty = (
        "run",
        "--empty",
        "--full-refresh",
        "--select",
        "fct_aircraft_turns",
        "rpt_route_months",
    )
    assert run_dbt(*empty, database=months.database).returncode == 0
    assert months.query("from marts.rpt_route_months") == []
    build(months)
    assert everything(months) == before


def test_the_same_bytes_as_flights_of_two_sources(months: Box, tmp_path: Path) -> None:
    """A file put into the wrong folder first is taken for what its folder says, and counts once."""
    rows = text(flights(3))
    months.write("nycflights13/flights/3.csv", rows)
    months.load()
    build(months)
    months.write(f"{FOLDER}3.csv", rows)
    months.load()
    build(months)
    months.load("--forget", "nycflights13/flights/3.csv")
    (months.landing / "nycflights13/flights/3.csv").unlink()
    build(months)
    assert everything(months) == everything(fresh(months, tmp_path / "fresh"))


@pytest.mark.parametrize("seed", [1, 2])
def test_any_order_of_arrival_equals_a_full_refresh(
    seed: int, box: Box, landing: Path, tmp_path: Path
) -> None:
    """Late files, overlapping ones, corrections, reference data: row by row the same in the end."""
    fewer = flights(2)[::2]
    arrivals = {
        f"{FOLDER}1.csv": [text(flights(1))],
        f"{FOLDER}2.csv": [text(flights(2)), text(fewer)],
        f"{FOLDER}3.csv": [text(flights(3))],
        f"{FOLDER}expo.csv": [as_expo(flights(3)[:99] + flights(4)).decode()],
        "nycflights13/flights/flights.csv": [sample(landing, "flights")],
        "nycflights13/weather/weather.csv": [sample(landing, "weather", rows=200)],
        "nycflights13/planes/planes.csv": [sample(landing, "planes")],
    }
    chance = random.Random(seed)
    names = [name for name, versions in arrivals.items() for _ in versions]
    chance.shuffle(names)
    while names:
        for name in names[: chance.randint(1, 3)]:
            box.write(name, arrivals[name].pop(0))
            names.remove(name)
        box.load()
        build(box)
    # Every file has a time of its own, in an order that the fresh load sees as well.
    assert everything(box) == everything(fresh(box, tmp_path / "fresh"))
    before = everything(box)
    build(box, "--full-refresh")
    assert everything(box) == before


def test_reference_data_that_come_late(months: Box, landing: Path) -> None:
    """An airport's other time zone, and aircraft that are registered now, reach every month."""
    late = "select distinct aircraft_match from marts.fct_flights where tail_number is not null"
    assert months.query(late) == [("not registered",)]
    tail = months.query("select min(tail_number) from marts.fct_flights")[0][0]
    header, aircraft, *_ = sample(landing, "planes").splitlines()
    months.write(
        "nycflights13/planes/planes.csv", f"{header}\n{tail},{aircraft.partition(',')[2]}\n"
    )
    months.load()
    build(months)
    assert built(months, "int_flights_unioned") == []
    assert built(months, "fct_flights") == [JANUARY, FEBRUARY]
    assert set(months.query(late)) == {("not registered",), ("registered",)}


def test_killed_builds_miss_no_month(months: Box, rebuilt_after_kill: dict) -> None:
    """Killed again and again, at any moment, the last build makes what a single one would have."""
    bring_march(months)
    chance = random.Random(1)
    for model in ("int_flights_unioned", "fct_flights", "fct_aircraft_turns", "rpt_taxi_times"):
        for event in ("START", "OK"):
            kill_build(months, f"{event} .*{model}", chance.random() * 0.2)
    build(months)
    assert everything(months) == rebuilt_after_kill


def kill_build(box: Box, moment: str, seconds: float) -> None:
    """Build, and kill dbt some time after it has printed a line like `moment`."""
    target = box.database.parent / "target"
    process = subprocess.Popen(
        [
            Path(sys.executable).with_name("dbt"),
            *("build", "--no-use-colors", *MODELS_ALONE),
            *("--target-path", target, "--log-path", target),
        ],
        cwd=PROJECT,
        env=environment(box.database, **box.variables),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert any(re.search(moment, line) for line in process.stdout)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_build_tests_what_is_new_and_test_tests_all(months: Box) -> None:
    """A month that passed is not tested again by a build; whatever fails is, until it passes."""

    def run(*args: object, fails: str = "") -> None:
        result = run_dbt(*args, database=months.database)
        assert result.returncode == bool(fails), result.stdout
        assert fails in result.stdout

    casts = ("--select", "bts_values_cast")
    statuses = ("--select", "flights_that_did_not_arrive_have_no_arrival_delay")
    months.execute("update marts.fct_flights set arrival_delay_minutes = 5 where is_cancelled")
    run("build", *statuses)
    run("test", *statuses, fails="flights_that_did_not_arrive_have_no_arrival_delay")
    # A file that fails stays untested, also while others arrive.
    rows = flights(3)
    rows[5]["DEP_DELAY"] = "12x"
    months.write(f"{FOLDER}3.csv", text(rows))
    months.load()
    run("build", *casts, fails="FAIL 1 bts_values_cast")
    months.write(f"{FOLDER}4.csv", text(flights(4)))
    months.load()
    run("build", fails="FAIL 1 bts_values_cast")
    assert built(months, "int_flights_unioned") == [JANUARY, FEBRUARY]
    run("build", *casts, fails="FAIL 1 bts_values_cast")
    months.write(f"{FOLDER}3.csv", text(flights(3)))
    months.load()
    run("build")
    assert built(months, "fct_flights") == [MARCH, APRIL]
    # Now they are tested, until they are loaded anew or all is asked for.
    months.execute("update raw.bts_on_time set arr_delay = 'late' where _row_number = 1")
    run("build", *casts)
    run("build", "--full-refresh", *casts, fails="FAIL 4 bts_values_cast")
    months.load("--full-refresh", months.landing / FOLDER / "4.csv")
    months.execute("update raw.bts_on_time set arr_delay = 'late' where month = '4'")
    run("build", *casts, fails=f"FAIL {len(flights(4))} bts_values_cast")
