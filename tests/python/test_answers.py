"""The marts give the figures that others have published or counted for the same files."""

import csv
import math
from pathlib import Path

import duckdb
import pytest

REFERENCE = Path(__file__).parent.parent / "fixtures" / "reference"

# The names that the published queries use, over the marts alone.
MARTS_BY_PUBLISHED_NAME = """
    create temp macro hhmm(moment) as
        -- The sources write midnight as 2400, at the end of the day.
        case when moment is null then null
            when strftime(moment, '%H%M') = '0000' then 2400
            else cast(strftime(moment, '%H%M') as integer) end;
    create temp macro minutes(hhmm) as hhmm // 100 * 60 + hhmm % 100;
    create temp view f as select
        raw_row_number as rid, year(flight_date) as year, month(flight_date) as month,
        day(flight_date) as day, hhmm(departed_at_local) as dep_time,
        hhmm(scheduled_departure_at_local) as sched_dep_time,
        departure_delay_minutes as dep_delay, hhmm(arrived_at_local) as arr_time,
        hhmm(scheduled_arrival_at_local) as sched_arr_time,
        arrival_delay_minutes as arr_delay, carrier_code as carrier, flight_number as flight,
        tail_number as tailnum, origin_airport_code as origin, destination_airport_code as dest,
        air_time_minutes as air_time, distance_miles as distance,
        date_trunc('hour', scheduled_departure_at) as time_hour
        from marts.fct_flights;
    create temp view a as select
        airport_code as faa, airport_name as name, latitude_degrees as lat,
        longitude_degrees as lon, altitude_feet as alt
        from marts.dim_airports where raw_file_id is not null;
    create temp view p as select tail_number as tailnum, * from marts.dim_aircraft;
    create temp view w as select
        airport_code as origin, year(observed_at_local) as year, month(observed_at_local) as month,
        day(observed_at_local) as day, hour(observed_at_local) as hour, observed_at as time_hour
        from marts.fct_weather_observations;
    create temp view al as select carrier_code as carrier from marts.dim_airlines
        where raw_file_id is not null;
"""
# A mart has other columns than the file: this figure is about the file.
NOT_OF_MARTS = {"flights columns"}

MEASURES = """
    sum(scheduled_flights) as flights, sum(cancelled_flights) as no_dep_time,
    sum(unknown_status_flights) as dep_no_arr_time, sum(diverted_flights) as arr_time_no_delay,
    sum(arrived_flights) as arrived, sum(arrivals_on_time) as arr_ontime,
    sum(departures_on_time) as dep_ontime,
    100 * sum(arrivals_on_time) / sum(scheduled_flights) as pct_arr_ontime_scheduled,
    100 * sum(arrivals_on_time) / nullif(sum(arrived_flights), 0) as pct_arr_ontime_arrived,
    100 * sum(departures_on_time) / sum(scheduled_flights) as pct_dep_ontime_scheduled,
    sum(departure_delay_minutes_total) / nullif(sum(departed_flights), 0) as mean_dep_delay,
    sum(arrival_delay_minutes_total) / nullif(sum(arrived_flights), 0) as mean_arr_delay,
    sum(late_arrival_minutes_total) / nullif(sum(arrived_flights), 0) as mean_arr_delay_minutes,
    sum(distance_miles_total) as miles
"""
FACT_MEASURES = """
    count(*) as flights, count(*) filter (flight_status = 'cancelled') as no_dep_time,
    count(*) filter (flight_status = 'unknown') as dep_no_arr_time,
    count(*) filter (flight_status = 'diverted') as arr_time_no_delay,
    count(*) filter (flight_status = 'arrived') as arrived,
    count(*) filter (is_arrival_on_time) as arr_ontime,
    count(*) filter (is_departure_on_time) as dep_ontime,
    avg(departure_delay_minutes) as mean_dep_delay, avg(arrival_delay_minutes) as mean_arr_delay,
    sum(distance_miles) as miles
"""
AGGREGATES = {
    "agg_carrier": ("carrier_code as carrier", MEASURES, "rpt_carrier_months"),
    "agg_month": ("month(flight_month) as month", MEASURES, "rpt_carrier_months"),
    "agg_total": ("1 as total", MEASURES, "rpt_carrier_months"),
    "agg_origin": (
        "airport_code as origin",
        MEASURES,
        "rpt_airport_months where direction = 'departures'",
    ),
    "agg_month_origin": (
        "month(flight_month) as month, airport_code as origin",
        MEASURES,
        "rpt_airport_months where direction = 'departures'",
    ),
    "agg_dest": (
        "airport_code as dest",
        MEASURES,
        "rpt_airport_months where direction = 'arrivals'",
    ),
    "agg_route": (
        "origin_airport_code as origin, destination_airport_code as dest",
        MEASURES,
        "rpt_route_months",
    ),
    "agg_hour": ("scheduled_departure_hour as hour", MEASURES, "rpt_hours_of_day"),
    "agg_day": (
        "year(flight_date) as year, month(flight_date) as month, day(flight_date) as day",
        FACT_MEASURES,
        "fct_flights",
    ),
    "agg_carrier_origin": (
        "carrier_code as carrier, origin_airport_code as origin",
        FACT_MEASURES,
        "fct_flights",
    ),
}
# Facts of the files that hold across tables or groups, by the names that `f`, `p`, ... give.
COUNTED = {
    "departed on the day of the schedule by the clock": (
        "select count(*) from f where minutes(dep_time) - minutes(sched_dep_time) = dep_delay",
        327314,
    ),
    "departed after midnight by the clock": (
        "select count(*) from f"
        " where minutes(dep_time) - minutes(sched_dep_time) + 1440 = dep_delay",
        1207,
    ),
    "aircraft that never flew": (
        "select count(*) from p where tailnum not in"
        " (select tailnum from f where tailnum is not null)",
        0,
    ),
    "flights of rotorcraft": (
        "select count(*) from f join p using (tailnum) where aircraft_type = 'Rotorcraft'",
        410,
    ),
    "flights of aircraft with 16 seats or fewer": (
        "select count(*) from f join p using (tailnum) where seats <= 16",
        2421,
    ),
    "spellings of manufacturers": ("select count(distinct registered_manufacturer) from p", 35),
    "flights in the year in which the aircraft was built": (
        "select count(*) from f join p on f.tailnum = p.tailnum and f.year = manufactured_year",
        4630,
    ),
    "tail numbers in no registry": (
        "select count(distinct tailnum) from f where tailnum not in (select tailnum from p)",
        721,
    ),
    "flights whose tail number has no form of the registry": (
        "select count(*) from f where not regexp_full_match(tailnum, 'N[0-9A-Z]{1,5}')",
        4,
    ),
    "airport names of several codes": (
        "select count(*) from (select name from a group by name having count(*) > 1)",
        14,
    ),
    "first hour of weather": ("select cast(min(time_hour) as text) from w", "2013-01-01 06:00:00"),
    "last hour of weather": ("select cast(max(time_hour) as text) from w", "2013-12-30 23:00:00"),
    "flights scheduled in the hour that repeats": (
        "select count(*) from f where month = 11 and day = 3 and sched_dep_time // 100 = 1",
        0,
    ),
}
KEYS = {"carrier", "origin", "dest", "year", "month", "day", "hour"}


def read_reference(name: str) -> list[dict[str, str]]:
    with (REFERENCE / f"{name}.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def marts(built: Path) -> duckdb.DuckDBPyConnection:
    """A connection to the built warehouse, with the published names over its marts."""
    with duckdb.connect() as connection:
        connection.execute(f"attach '{built}' as built (read_only); use built")
        connection.execute("use memory")
        connection.execute(MARTS_BY_PUBLISHED_NAME.replace(" marts.", " built.marts."))
        yield connection


@pytest.mark.parametrize(
    "row", read_reference("published_figures"), ids=lambda row: row["figure"].replace(" ", "_")
)
def test_published_figure(row: dict[str, str], marts: duckdb.DuckDBPyConnection) -> None:
    """A figure that somebody published is what the marts say, to the digits that were printed."""
    if row["figure"] in NOT_OF_MARTS:
        assert "describe" in row["sql"]
        return
    (computed,) = marts.execute(row["sql"]).fetchone()
    published = row["published"]
    if isinstance(computed, str):
        assert computed == published
    else:
        decimals = len(published.partition(".")[2])
        assert math.isclose(round(float(computed), decimals), float(published), abs_tol=1e-9)


@pytest.mark.parametrize("name", AGGREGATES)
def test_aggregate(name: str, marts: duckdb.DuckDBPyConnection) -> None:
    """Every group of an aggregate computed elsewhere is in the marts, with equal measures."""
    keys, measures, mart = AGGREGATES[name]
    cursor = marts.execute(f"select {keys}, {measures} from built.marts.{mart} group by all")
    columns = [column[0] for column in cursor.description]
    found = {}
    for values in cursor.fetchall():
        row = dict(zip(columns, values, strict=True))
        found[tuple(str(row[key]) for key in columns if key in KEYS)] = row
    expected = read_reference(name)
    assert len(found) == len(expected)
    for row in expected:
        group = tuple(row[key] for key in columns if key in KEYS)
        for column in columns:
            if column in KEYS or column == "total":
                continue
            value, text = found[group][column], row[column]
            if text in ("", "-nan"):
                assert value is None, (group, column)
            else:
                digits = 4 if column.startswith("pct_") else 6
                assert round(float(value), digits) == pytest.approx(float(text), abs=2e-6), (
                    group,
                    column,
                )


@pytest.mark.parametrize("fact", COUNTED)
def test_counted_fact(fact: str, marts: duckdb.DuckDBPyConnection) -> None:
    """What was counted in the files across tables or groups is what the marts say."""
    query, expected = COUNTED[fact]
    assert marts.execute(query).fetchone() == (expected,)


def test_null_delays_are_not_counted_as_zero(marts: duckdb.DuckDBPyConnection) -> None:
    """The mean of late minutes is the true one, not the one that counts null as 0."""
    (total,) = read_reference("agg_total")
    (mean,) = marts.execute(
        "select sum(late_arrival_minutes_total) / sum(arrived_flights)"
        " from built.marts.rpt_carrier_months"
    ).fetchone()
    assert round(mean, 6) == float(total["mean_arr_delay_minutes"])
    assert round(mean, 6) != float(total["trap_greatest_null_as_zero"])


def test_on_time_arrival_rates(marts: duckdb.DuckDBPyConnection) -> None:
    """73.4156 % of scheduled flights and 75.5305 % of completed ones arrived on time."""
    rates = marts.execute(
        "select round(100.0 * count(*) filter (is_arrival_on_time) / count(*), 4),"
        " round(100.0 * count(*) filter (is_arrival_on_time)"
        " / count(*) filter (flight_status = 'arrived'), 4) from built.marts.fct_flights"
    ).fetchone()
    assert rates == (73.4156, 75.5305)


@pytest.mark.parametrize(
    "mart",
    ["rpt_carrier_months", "rpt_airport_months", "rpt_route_months", "rpt_hours_of_day"],
)
def test_rates_of_reports(mart: str, marts: duckdb.DuckDBPyConnection) -> None:
    """Each report's rates and means are those of its own counts."""
    (wrong,) = marts.execute(
        f"""
        select count(*) from built.marts.{mart}
        where on_time_arrival_rate is distinct from arrivals_on_time / scheduled_flights
            or on_time_arrival_rate_of_completed
                is distinct from arrivals_on_time / nullif(arrived_flights, 0)
            or on_time_departure_rate is distinct from departures_on_time / scheduled_flights
            or cancellation_rate is distinct from cancelled_flights / scheduled_flights
            or mean_departure_delay_minutes
                is distinct from departure_delay_minutes_total / nullif(departed_flights, 0)
            or mean_arrival_delay_minutes
                is distinct from arrival_delay_minutes_total / nullif(arrived_flights, 0)
            or mean_late_arrival_minutes
                is distinct from late_arrival_minutes_total / nullif(arrived_flights, 0)
        """
    ).fetchone()
    assert wrong == 0
