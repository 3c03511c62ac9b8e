"""`dbt build` on real and odd input: lineage, bad values, no data, documentation."""

import json
import re
import shlex
import shutil
from pathlib import Path

import duckdb
import pytest

from ingest.warehouse import LINEAGE as LINEAGE_COLUMNS
from ingest.warehouse import known_columns

from .conftest import PROJECT, Box, run_dbt

LINEAGE = {
    "fct_flights": (
        "nycflights13_flights",
        "raw.carrier = mart.carrier_code and cast(raw.flight as int) = mart.flight_number"
        " and raw.origin = mart.origin_airport_code and raw.dest = mart.destination_airport_code"
        " and make_date(cast(raw.year as int), cast(raw.month as int), cast(raw.day as int))"
        " = mart.flight_date",
    ),
    "fct_weather_observations": (
        "nycflights13_weather",
        "raw.origin = mart.airport_code"
        " and cast(rtrim(raw.time_hour, 'Z') as timestamp) = mart.observed_at",
    ),
    "dim_aircraft": ("nycflights13_planes", "raw.tailnum = mart.tail_number"),
    "dim_airports": ("nycflights13_airports", "raw.faa = mart.airport_code"),
    "dim_airlines": ("nycflights13_airlines", "raw.carrier = mart.carrier_code"),
}
# Rows that no file holds come from these tables: the key's column in both.
ADDED_FROM = {
    "dim_airports": "select record_key as airport_code from reference.known_corrections"
    " where entity = 'airport' union select airport_code from reference.us_airports",
    "dim_airlines": "select carrier_code from reference.carriers",
}
# Carriers whose flights are in the on-time files, by the codes that the files have.
REPORTING_CARRIERS = (
    "9E,AA,AQ,AS,B6,CO,DH,DL,EA,EV,F9,FL,G4,HA,HP,KH,ML (1),MQ,NK,NW,OH,OO,PA (1),PI,PS,TW,TZ,UA,"
    "US,VX,WN,XE,YV,YX"
).split(",")


@pytest.mark.parametrize("mart", LINEAGE)
def test_every_row_leads_back_to_its_record(mart: str, built: Path) -> None:
    """The raw record that a mart row names is the one that it was made from, one to one."""
    table, same = LINEAGE[mart]
    with duckdb.connect(str(built), read_only=True) as warehouse:
        rows = warehouse.sql(f"select * from marts.{mart}")
        records = len(warehouse.sql(f"from raw.{table}"))
        led_back = warehouse.sql(
            f"""
            select count(*) from marts.{mart} as mart join raw.{table} as raw
            on mart.raw_file_id = raw._file_id and mart.raw_row_number = raw._row_number
            where {same}
            """
        ).fetchone()[0]
        without = warehouse.sql(f"select * from marts.{mart} where raw_file_id is null")
        if mart in ADDED_FROM:
            known = warehouse.sql(ADDED_FROM[mart]).fetchall()
            assert {row[:1] for row in without.fetchall()} <= set(known)
        else:
            assert len(without) == 0
        assert led_back == records == len(rows) - len(without)


def test_build_without_flights(box: Box) -> None:
    """With only a table of one's own in the landing zone, everything builds, without a flight."""
    box.write("acme/orders/orders.csv", "id,amount\n0001,5\n")
    box.load()
    result = run_dbt("build", database=box.database)
    assert result.returncode == 0, result.stdout
    assert box.query("select count(*) from marts.fct_flights") == [(0,)]
    assert box.query("select id from raw.acme_orders") == [("0001",)]
    # Reference data does not wait for the sample: each airport and carrier of BTS files is known.
    codes = PROJECT / "tests" / "fixtures" / "reference" / "bts_airports_1988_2008.csv"
    missing = f"from '{codes}' anti join marts.dim_airports using (airport_code)"
    assert box.query(missing) == []
    known = {code for (code,) in box.query("select carrier_code from marts.dim_airlines")}
    assert set(REPORTING_CARRIERS) <= known


def test_build_on_excerpts(box: Box, landing: Path) -> None:
    """A few records of each file build: what is not delivered is neither wrong nor stale."""
    for table in ("airlines", "airports", "flights", "planes", "weather"):
        text = (landing / "nycflights13" / table / f"{table}.csv").read_text()
        header, *records = text.splitlines(keepends=True)
        if table == "airports":
            records = [line for line in records if line[:3] in ("EWR", "IAH", "JFK", "LGA", "MIA")]
        elif table != "airlines":
            records = records[:3]
        box.write(f"nycflights13/{table}/{table}.csv", "".join([header, *records]))
    box.load()
    result = run_dbt("build", database=box.database)
    assert result.returncode == 0, result.stdout
    assert box.query("select count(*), count(scheduled_arrival_at) from marts.fct_flights") == [
        (3, 3)
    ]


def test_a_value_that_does_not_cast_fails_the_build(box: Box, landing: Path) -> None:
    """A delay that is no number is loaded as it is, and fails a test that names the column."""
    flights = (landing / "nycflights13" / "flights" / "flights.csv").read_text()
    lines = flights.splitlines(keepends=True)[:1000]
    fields = lines[17].split(",")
    fields[5] = "12x"
    lines[17] = ",".join(fields)
    box.write("nycflights13/flights/flights.csv", "".join(lines))
    box.load()
    result = run_dbt("build", database=box.database)
    assert result.returncode == 1
    # The operator's guide says how to see the value: as it says, with the name that it gives.
    guide = (PROJECT / "docs" / "operations.md").read_text()
    advice = shlex.split(re.search(r"^dbt (test --select .*)$", guide, re.MULTILINE)[1])
    assert advice[2] in result.stdout
    assert run_dbt(*advice, database=box.database).returncode == 1
    assert [
        table
        for (table,) in box.query(
            "select table_name from duckdb_tables() where schema_name like '%dbt_test__audit'"
        )
    ] == [advice[2]]
    assert box.query("select dep_delay from raw.nycflights13_flights where _row_number = 17") == [
        ("12x",)
    ]
    assert box.query("from duckdb_tables() where table_name = 'fct_flights'") == []


@pytest.fixture(scope="module")
def manifest(built: Path) -> dict:
    """The manifest that dbt wrote when it built the session's warehouse."""
    return json.loads((built.parent / "target" / "manifest.json").read_text())


def own(manifest: dict, *kinds: str) -> list[dict]:
    """The project's own nodes of these kinds."""
    nodes = [*manifest["nodes"].values(), *manifest["sources"].values()]
    return [
        node
        for node in nodes
        if node["resource_type"] in kinds and node["package_name"] == "ontime"
    ]


def test_everything_is_described(manifest: dict, built: Path) -> None:
    """Every model, seed, source, macro and every column that exists has a description."""
    nodes = own(manifest, "model", "seed", "source")
    assert len(nodes) > 20
    blank = [node["unique_id"] for node in nodes if not node["description"].strip()]
    blank += [
        f"{node['unique_id']}.{name}"
        for node in nodes
        for name, column in node["columns"].items()
        if not column["description"].strip()
    ]
    blank += [
        macro["unique_id"]
        for macro in manifest["macros"].values()
        if macro["package_name"] == "ontime"
        and not macro["description"].strip()
        # An engine's variant of a macro is described with the macro that dispatches to it.
        and not macro["name"].startswith(("default__", "duckdb__", "postgres__", "spark__"))
    ]
    assert blank == []
    with duckdb.connect(str(built), read_only=True) as warehouse:
        for node in nodes:
            relation = f"{node['schema']}.{node.get('identifier') or node['name']}"
            exist = {row[0] for row in warehouse.sql(f"describe {relation}").fetchall()}
            assert exist == set(node["columns"]), relation


def test_every_model_says_its_grain(manifest: dict) -> None:
    """Every model's first words are its grain."""
    odd = [
        node["name"]
        for node in own(manifest, "model")
        if not node["description"].startswith("One row per ")
    ]
    assert odd == []


def test_every_model_has_a_primary_key_test(manifest: dict) -> None:
    """Every model has a test that its key is unique, and one that it is not null."""
    tested: dict[str, set[str]] = {}
    for test in own(manifest, "test"):
        kind = (test["test_metadata"] or {}).get("name") if "test_metadata" in test else None
        tested.setdefault(test.get("attached_node"), set()).add(kind)
    for node in own(manifest, "model"):
        kinds = tested.get(node["unique_id"], set())
        assert kinds & {"unique", "unique_combination"}, node["name"]
        assert "not_null" in kinds, node["name"]


def test_marts_are_public_and_under_contract(manifest: dict) -> None:
    """Every mart is public, in a group, and its contract is enforced; nothing else is public."""
    for node in own(manifest, "model"):
        is_mart = node["schema"] == "marts"
        assert (node["access"] == "public") is is_mart, node["name"]
        assert node["contract"]["enforced"] is is_mart, node["name"]
        if is_mart:
            assert node["group"], node["name"]


def test_data_flow_one_way(manifest: dict) -> None:
    """Only staging reads sources, and no model reads from a later layer."""
    layers = ["raw", "reference", "staging", "intermediate", "marts"]
    nodes = {node["unique_id"]: node for node in own(manifest, "model", "seed", "source")}
    for node in own(manifest, "model"):
        for parent in (nodes[each] for each in node["depends_on"]["nodes"]):
            assert layers.index(parent["schema"]) <= layers.index(node["schema"]), node["name"]
            if parent["resource_type"] == "source":
                assert node["schema"] == "staging", node["name"]
    for path in (PROJECT / "models").rglob("*.sql"):
        assert "target.type" not in path.read_text(), path


def test_loader_and_dbt_know_the_same_columns(manifest: dict) -> None:
    """The columns that the loader makes for a known source are those that dbt describes."""
    described = {
        node["identifier"]: {name for name in node["columns"] if name not in LINEAGE_COLUMNS}
        for node in own(manifest, "source")
        if node["source_name"] != "ingest"
    }
    assert {table: set(columns) for table, columns in known_columns().items()} == described


def test_docs_site(built: Path, tmp_path: Path) -> None:
    """`dbt docs generate` writes a site that opens on the overview page."""
    database = tmp_path / built.name
    shutil.copyfile(built, database)
    result = run_dbt("docs", "generate", database=database)
    assert result.returncode == 0, result.stdout
    target = tmp_path / "target"
    assert (target / "index.html").stat().st_size > 0
    catalog = json.loads((target / "catalog.json").read_text())
    assert "model.ontime.fct_flights" in catalog["nodes"]
    docs = json.loads((target / "manifest.json").read_text())["docs"]
    assert "grain" in docs["doc.ontime.__overview__"]["block_contents"].lower()


def test_source_freshness(built: Path) -> None:
    """Freshness is known for every source, from the time of the load."""
    result = run_dbt("source", "freshness", database=built)
    assert result.returncode == 0, result.stdout
    results = json.loads((built.parent / "target" / "sources.json").read_text())["results"]
    assert len(results) == 8
    assert {each["status"] for each in results} == {"pass"}
