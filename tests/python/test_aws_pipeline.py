"""The function behind the queue: uploads in a real bucket become rows in a real PostgreSQL."""

import gzip
import json
import os
from pathlib import Path

import duckdb
import pytest

from deploy.aws import handler as function
from ingest.landing import put_sample

from .conftest import PROJECT, Box, PostgresBox, environment, run_dbt, s3_store
from .servers import S3Server
from .test_engines import difference

BTS = PROJECT / "tests" / "fixtures" / "bts" / "selectfields_oklahoma_2023_01.csv.gz"
OKLAHOMA = f"bts/on_time/{BTS.name}"
# Of the sample, what the flights of the other file look up.
SAMPLE = ("airlines/airlines.csv", "airports/airports.csv", "planes/planes.csv")


class Context:
    """What Lambda tells a function of its run."""

    def get_remaining_time_in_millis(self) -> int:
        """Return the time that is left."""
        return 600_000


class Pipeline(PostgresBox):
    """A bucket, a database and the function between them; a list stands for the dead letters."""

    def __init__(self, box: PostgresBox, s3: S3Server, monkeypatch: pytest.MonkeyPatch):
        super().__init__(box.landing, box.database, box.server, box.name)
        self.store = s3_store(s3)
        self.root = f"open/{box.name}"
        self.dead: list[tuple[str, str]] = []
        for name in os.environ.keys() - environment("").keys():
            monkeypatch.delenv(name)
        target = box.database.parent / "target"
        for name, value in {
            **self.variables,
            **s3.variables(),
            "ONTIME_LANDING": f"s3://{self.root}/landing",
            "ONTIME_MARTS": f"s3://{self.root}/marts",
            "DBT_TARGET_PATH": str(target),
            "DBT_LOG_PATH": str(target),
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(
            function.Pipeline,
            "bury",
            lambda _, message, error: self.dead.append((message.id, str(error))),
        )

    def upload(self, name: str, body: bytes) -> None:
        """Put an object into the bucket."""
        self.store.pipe_file(f"{self.root}/landing/{name}", body)

    def tell(self, *names: str, receives: int = 1) -> list[str]:
        """Call the function with a batch of messages; return which are to come again."""
        records = [
            {
                "messageId": name,
                "body": self.event(name) if "/" in name else name,
                "attributes": {"ApproximateReceiveCount": str(receives)},
            }
            for name in names
        ]
        answer = function.handler({"Records": records}, Context())
        return [each["itemIdentifier"] for each in answer["batchItemFailures"]]

    def event(self, name: str) -> str:
        """An event of EventBridge about an object below the landing zone."""
        bucket, _, prefix = self.root.partition("/")
        of = {"bucket": {"name": bucket}, "object": {"key": f"{prefix}/landing/{name}"}}
        return json.dumps({"source": "aws.s3", "detail-type": "Object Created", "detail": of})

    def published(self, table: str) -> list[tuple]:
        """The rows of a published mart, read as files."""
        folder = self.database.parent / "read"
        latest = json.loads(self.store.cat_file(f"{self.root}/marts/{table}/_latest.json"))
        files = []
        for file in latest["files"]:
            local = folder / table / file["path"]
            local.parent.mkdir(parents=True, exist_ok=True)
            self.store.get_file(f"{self.root}/marts/{table}/{file['path']}", str(local))
            files.append(str(local))
        if not files:
            return []
        columns = ", ".join(latest["columns"])
        return duckdb.sql(
            f"select {columns} from read_parquet({files}, hive_partitioning = true)"
        ).fetchall()


def test_uploads_become_marts(
    postgres_box: PostgresBox, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Good files end as rows and files, as a local build has them; no bad one blocks them."""
    pipeline = Pipeline(postgres_box, s3, monkeypatch)
    local = Box(tmp_path / "local" / "landing", tmp_path / "local" / "warehouse.duckdb")
    put_sample(tmp_path / "sample")
    for name in SAMPLE:
        body = (tmp_path / "sample" / "nycflights13" / name).read_bytes()
        local.write(f"nycflights13/{name}", body)
        pipeline.upload(f"nycflights13/{name}", body)
    local.write(OKLAHOMA, BTS.read_bytes())
    pipeline.upload(OKLAHOMA, BTS.read_bytes())
    pipeline.upload("nycflights13/weather/broken.csv", b"origin,year\nJFK\x00,2013\n")
    header, *records = gzip.decompress(BTS.read_bytes()).splitlines(keepends=True)
    poison = [record.replace(b"2023", b"20x3") for record in records[:4]]
    pipeline.upload("bts/on_time/poison.csv", b"".join([header, *poison]))

    good = [f"nycflights13/{name}" for name in SAMPLE]
    # In any order, one twice, with what cannot be loaded between them.
    again = pipeline.tell(
        OKLAHOMA, "nycflights13/weather/broken.csv", *good, "bts/on_time/gone.csv", "{", good[0]
    )
    assert again == []
    assert [name for name, _ in pipeline.dead] == ["nycflights13/weather/broken.csv", "{"]
    assert "a NUL byte" in pipeline.dead[0][1]
    assert "is not JSON" in pipeline.dead[1][1]
    pipeline.check_registry()

    # One whose values fail a test is taken out; one that came before stays.
    pipeline.dead.clear()
    assert pipeline.tell("bts/on_time/poison.csv", OKLAHOMA) == []
    assert [name for name, _ in pipeline.dead] == ["bts/on_time/poison.csv"]
    assert "bts_values_cast" in pipeline.dead[0][1]
    assert pipeline.query(
        "select path, is_current from raw.landed_files where source_name = 'bts' order by path"
    ) == [("bts/on_time/poison.csv", False), (OKLAHOMA, True)]

    local.load()
    result = run_dbt("build", "--exclude", "resource_type:test", database=local.database)
    assert result.returncode == 0, result.stdout
    tables = local.query(
        "select table_name from information_schema.tables where table_schema = 'marts'"
    )
    assert len(tables) > 10
    for (table,) in tables:
        kinds = local.query(
            "select column_name, data_type from information_schema.columns"
            f" where table_schema = 'marts' and table_name = '{table}' order by ordinal_position"
        )
        select = f"select {', '.join(name for name, _ in kinds)} from marts.{table}"
        is_double = [kind == "DOUBLE" for _, kind in kinds]
        expected = local.query(select)
        assert difference(expected, pipeline.query(select), is_double) == [], table
        assert difference(expected, pipeline.published(table), is_double) == [], table
    assert local.query("select count(*) from marts.fct_flights") == [(6068,)]


def test_while_another_run_goes_on(
    postgres_box: PostgresBox, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is done; messages come again, and the last time they go where somebody looks."""
    pipeline = Pipeline(postgres_box, s3, monkeypatch)
    pipeline.upload(OKLAHOMA, BTS.read_bytes())
    with function.Pipeline().alone():
        assert pipeline.tell(OKLAHOMA) == [OKLAHOMA]
        assert pipeline.dead == []
        assert pipeline.tell(OKLAHOMA, receives=5) == []
    assert pipeline.dead == [(OKLAHOMA, "another run of the pipeline goes on")]
    assert pipeline.tables() == {}
