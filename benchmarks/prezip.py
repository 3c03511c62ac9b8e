"""Write monthly files as BTS publishes them, made of the flights of Oklahoma in January 2023.

    python benchmarks/prezip.py FOLDER FIRST_MONTH MONTHS FLIGHTS SEED [LEFT_OUT]

Each month has FLIGHTS rows, drawn from the real ones with replacement and spread over its days.
What tells flights apart is their own, all else is the real row's, so that delays, causes and times
fit together. Rows that would be the same flight get flight numbers ten thousand apart. LEFT_OUT
says which share is missing, as in a corrected file: 100 for one in a hundred. The same arguments
give the same files.
"""

import csv
import gzip
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from datetime import date
from pathlib import Path

if __name__ == "__main__":
    # Run as a script, Python looks for modules in this folder; `ingest` lies above it.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import duckdb
import pyarrow as pa

from ingest.fetch import BTS_COLUMNS, BTS_NAMES, as_header, months

PROJECT = Path(__file__).resolve().parent.parent
OKLAHOMA = PROJECT / "tests" / "fixtures" / "bts" / "selectfields_oklahoma_2023_01.csv.gz"
# What the monthly files call differently from the download page, but for case and underscores.
OTHER_NAMES = {
    "FlightDate": "FL_DATE",
    "Reporting_Airline": "OP_UNIQUE_CARRIER",
    "DOT_ID_Reporting_Airline": "OP_CARRIER_AIRLINE_ID",
    "IATA_CODE_Reporting_Airline": "OP_CARRIER",
    "Tail_Number": "TAIL_NUM",
    "Flight_Number_Reporting_Airline": "OP_CARRIER_FL_NUM",
    "UniqueCarrier": "OP_UNIQUE_CARRIER",
    "AirlineID": "OP_CARRIER_AIRLINE_ID",
    "Carrier": "OP_CARRIER",
    "FlightNum": "OP_CARRIER_FL_NUM",
    "OriginState": "ORIGIN_STATE_ABR",
    "OriginStateName": "ORIGIN_STATE_NM",
    "DestState": "DEST_STATE_ABR",
    "DestStateName": "DEST_STATE_NM",
    "DepDelayMinutes": "DEP_DELAY_NEW",
    "DepartureDelayGroups": "DEP_DELAY_GROUP",
    "ArrDelayMinutes": "ARR_DELAY_NEW",
    "ArrivalDelayGroups": "ARR_DELAY_GROUP",
}
# In the monthly files: what is quoted, also where there is nothing, and which numbers have no .00.
TEXT = re.compile(
    r"(IATA_CODE_)?Reporting_Airline|(Unique)?Carrier|Tail_Number|(Div\d)?TailNum"
    r"|Flight_Number_Reporting_Airline|FlightNum|(Origin|Dest)(CityName|State(Fips|Name)?)?"
    r"|(CRS|First)?(Dep|Arr)Time|(Dep|Arr)TimeBlk|(Div\d)?Wheels(On|Off)|CancellationCode"
    r"|Div\dAirport"
)
WHOLE = re.compile(
    r"Year|Quarter|Month|DayofMonth|DayOfWeek|FlightDate|DOT_ID_Reporting_Airline|\w+ID|\w+Wac"
    r"|(Departure|Arrival)DelayGroups|DistanceGroup|DivAirportLandings"
)
# The fields before and of the flight number; none of them has a comma in it.
DATE_FIELDS, FIELDS_TO_NUMBER = 6, 11
READ_ME = (
    "<html><body>Made of real flights of Oklahoma, January 2023. Not real months.</body></html>"
)

MONTH = """
    with drawn as (
        select i, (hash(i, $month, $seed) % (select count(*) from templates))::bigint as template
        from range($flights) as numbers (i)
    ),
    -- The same flight on each day of the month, then under another number from the first on.
    repeated as (
        select
            i, flight, airline, number, rest,
            row_number() over (partition by flight order by i) - 1 as nth,
            day(last_day($month)) as days
        from drawn join templates using (template)
    ),
    dated as (
        select *, $month + ((nth + flight) % days)::integer as date, number + 10000 * (nth // days)
            as own_number
        from repeated
        where $left_out = 0 or hash(i, $seed) % $left_out > 0
    )
    select
        concat_ws(
            ',', year(date), quarter(date), month(date), day(date), isodow(date), date, airline,
            '"' || own_number || '"', rest
        )
    from dated
    order by flight, nth
"""


def oklahoma() -> list[dict[str, str]]:
    """Return the flights from or to Oklahoma in January 2023, as the download page has them."""
    with gzip.open(OKLAHOMA, "rt", newline="") as file:
        return list(csv.DictReader(file))


def of_download_page(name: str, row: dict[str, str]) -> str:
    """Return the name that the download page has for a column of the monthly files, or nothing."""
    plain = {each.replace("_", "").lower(): each for each in row}
    name = OTHER_NAMES.get(name, plain.get(name.replace("_", "").lower(), ""))
    return name if name in row else ""


def iso(text: str) -> str:
    """Return a date such as 1/31/2023 0:00 as 2023-01-31."""
    month, day, year = text.split(" ")[0].split("/")
    return f"{year}-{int(month):02}-{int(day):02}"


def as_prezip(rows: list[dict[str, str]], header: list[str]) -> Iterable[str]:
    """Yield the lines of a monthly file: decimals, quoted texts, a comma at the end of each."""
    yield as_header([*header, ""])
    columns = [(name, of_download_page(name, rows[0])) for name in header]
    for row in rows:
        fields = [field(name, row.get(column, ""), row) for name, column in columns]
        yield ",".join([*fields, ""])


def field(name: str, value: str, row: dict[str, str]) -> str:
    """Return a value of the download page as the monthly files write it in the column `name`."""
    if name == "FlightDate":
        return iso(value)
    if name == "DepTimeBlk":
        # The download page was not asked for it.
        hour = row["CRS_DEP_TIME"][:2]
        value = "0001-0559" if hour < "06" else f"{hour}00-{hour}59"
    if TEXT.fullmatch(name):
        return f'"{value}"'
    return value if WHOLE.fullmatch(name) or not value else f"{value}.00"


def templates() -> pa.Table:
    """Return what stays of each real row: its flight, and its line but for date and number."""
    rows = []
    _, *lines = as_prezip(oklahoma(), BTS_COLUMNS)
    for row, line in zip(oklahoma(), lines, strict=True):
        fields = line.split(",", FIELDS_TO_NUMBER)
        number = int(fields[FIELDS_TO_NUMBER - 1].strip('"'))
        flight = (fields[DATE_FIELDS], number, row["ORIGIN"], row["DEST"], row["CRS_DEP_TIME"])
        airline = ",".join(fields[DATE_FIELDS : FIELDS_TO_NUMBER - 1])
        rows.append((flight, airline, number, fields[-1]))
    flights = {flight: place for place, flight in enumerate(sorted({row[0] for row in rows}))}
    return pa.table(
        {
            "template": range(len(rows)),
            "flight": [flights[row[0]] for row in rows],
            "airline": [row[1] for row in rows],
            "number": [row[2] for row in rows],
            "rest": [row[3] for row in rows],
        }
    )


def put_month(
    folder: Path, month: date, real: pa.Table, flights: int, seed: int, left_out: int = 0
) -> None:
    """Write one month's zip file, unless it is there."""
    path = folder / BTS_NAMES[0].format(month)
    if path.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as workspace, duckdb.connect() as connection:
        connection.register("templates", real)
        out = Path(workspace, "month.csv")
        # Each line is whole already: it is written as the one value of its record.
        connection.execute(
            f"copy ({MONTH}) to '{out}' (header false, quote '', escape '', delimiter '\\x01')",
            {"month": month, "seed": seed, "flights": flights, "left_out": left_out},
        )
        arriving = Path(workspace, path.name)
        name = path.stem.replace("1987_present", "(1987_present)")
        with zipfile.ZipFile(arriving, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            with archive.open(f"{name}.csv", "w", force_zip64=True) as member:
                member.write((as_header([*BTS_COLUMNS, ""]) + "\n").encode())
                with out.open("rb") as lines:
                    while piece := lines.read(1 << 20):
                        member.write(piece)
            archive.writestr("readme.html", READ_ME)
        arriving.rename(path)


def main() -> None:
    """Run the command."""
    folder, first, *numbers = sys.argv[1:]
    count, flights, seed, *left_out = map(int, numbers)
    start = date.fromisoformat(f"{first}-01")
    end = start.year * 12 + start.month - 1 + count - 1
    real = templates()
    for month in months(start, date(end // 12, end % 12 + 1, 1)):
        put_month(Path(folder), month, real, flights, seed, *left_out)


if __name__ == "__main__":
    main()
