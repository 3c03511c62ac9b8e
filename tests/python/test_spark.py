"""What only Spark brings: a cluster of one's own, no transactions, and files that add up."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from .conftest import Box, SparkBox, environment, run_dbt
from .servers import CLUSTER, SparkCluster
from .test_bts import FOLDER, MODELS_ALONE
from .test_engines import build, difference
from .test_months import BY_MONTH, flights, kill_build, text


def cluster(*args: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script of the cluster, whatever comes of it."""
    return subprocess.run(
        [sys.executable, CLUSTER, *map(str, args)],
        env=environment("") | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_cluster_without_java(tmp_path: Path) -> None:
    """What is missing is said, with the command that brings it; nothing is started."""
    done = cluster("start", "--folder", tmp_path, PATH=str(tmp_path), JAVA_HOME="")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Spark needs Java 17, and there is none on the PATH")
    assert "apt install openjdk-17-jre-headless" in done.stderr
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    java.chmod(0o755)
    done = cluster("start", "--folder", tmp_path, PATH=f"{tmp_path}:{os.defpath}", JAVA_HOME="")
    assert done.returncode == 1
    assert f'{java} is openjdk version "11.0.2"' in done.stderr
    assert [*tmp_path.iterdir()] == [java]


def test_cluster_that_does_not_run(tmp_path: Path) -> None:
    assert cluster("status", "--folder", tmp_path).returncode == 1
    done = cluster("stop", "--folder", tmp_path)
    assert (done.returncode, done.stdout) == (0, f"no cluster runs in {tmp_path}\n")
    done = cluster("start", "--master", "yarn", "--workers", "3", "--folder", tmp_path)
    assert (done.returncode, "are for a new cluster, not for yarn" in done.stderr) == (2, True)
    (tmp_path / "cluster.json").write_text('{"remote": "sc://127')
    for command in ("status", "stop"):
        done = cluster(command, "--folder", tmp_path)
        assert (done.returncode, "cluster.json is not understood" in done.stderr) == (1, True)
        assert "Traceback" not in done.stderr


@pytest.mark.spark
def test_cluster_that_runs(spark: SparkCluster, tmp_path: Path) -> None:
    """Master, two workers and the server are processes; none is started twice."""
    done = spark.run("status")
    assert done.returncode == 0
    names = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert names == ["master", "worker-1", "worker-2", "connect"]
    assert f"a cluster runs in {spark.folder}" in spark.run("start").stderr
    port = spark.remote.rpartition(":")[2]
    done = cluster("start", "--folder", tmp_path / "other", "--port", port)
    assert (done.returncode, f"port {port} is taken" in done.stderr) == (1, True)
    assert not (tmp_path / "other").exists()


@pytest.mark.spark
def test_a_server_for_a_cluster_that_runs_already(tmp_path: Path) -> None:
    """It answers, and nothing else is started. `local` is a cluster in the server itself."""
    server = SparkCluster("--master", "local[1]")
    try:
        assert server.run("status").stdout.partition(":")[0] == "connect"
        assert len(server.processes()) == 1
        box = SparkBox(tmp_path, tmp_path / "lake", server)
        assert box.query("select 1 + 1") == [(2,)]
    finally:
        server.remove()


@pytest.fixture(scope="module")
def two_boxes(
    spark: SparkCluster, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Box, SparkBox]:
    """Two months of a few aircraft on DuckDB and on Spark, built, from one landing zone.

    On Spark with all tests of the project.
    """
    folder = tmp_path_factory.mktemp("two")
    landing = folder / "landing"
    boxes = Box(landing, folder / "warehouse.duckdb"), SparkBox(landing, folder / "lake", spark)
    spark.clear()
    for month in (1, 2):
        boxes[0].write(f"{FOLDER}{month}.csv", text(flights(month)))
    for box, without in zip(boxes, (MODELS_ALONE, ()), strict=True):
        box.load()
        build(box, *without)
    return boxes


def differing(boxes: tuple[Box, SparkBox]) -> dict[str, list[tuple]]:
    """Show rows of the tables that are built by month, where the two differ."""
    found = {}
    columns = boxes[0].catalog("intermediate", "marts")
    for name in BY_MONTH:
        kinds = columns[*name.split(".")]
        select = f"select {', '.join(column for column, _ in kinds)} from {name}"
        rows = [box.query(select) for box in boxes]
        if differ := difference(*rows, [kind == "double" for _, kind in kinds]):
            found[name] = differ
    return found


@pytest.mark.spark
def test_nothing_new_writes_nothing(two_boxes: tuple[Box, SparkBox]) -> None:
    """What did not change is not written anew, and its record neither."""
    _, spark = two_boxes
    before = files(spark)
    assert len(before) > 20
    build(spark, "--select", "int_flights_unioned", "fct_flights", "rpt_route_months")
    assert files(spark) == before


def files(box: SparkBox) -> list[Path]:
    """The files of all tables that have partitions."""
    return sorted((box.cluster.folder / "tables").glob("*/*/*=*/**/*.parquet"))


@pytest.mark.spark
def test_a_killed_build_misses_no_month(two_boxes: tuple[Box, SparkBox]) -> None:
    """Killed between two models, and reference data that then go back to what they were.

    Some months should now be made again of what the last finished build made them of: they are
    built all the same, for the killed one had begun to. In the end a node's events are one file.
    """
    duck, spark = two_boxes
    [(tail,)] = duck.query("select min(tail_number) from marts.fct_flights")
    duck.write("nycflights13/planes/planes.csv", f"tailnum,year\n{tail},1990\n")
    duck.write(f"{FOLDER}2.csv", text(flights(2)[::3]))
    duck.write(f"{FOLDER}3.csv", text(flights(3)))
    spark.load()
    kill_build(spark, "OK .*fct_flights", 0)
    registered = "select count(*) from marts.fct_flights where aircraft_match = 'registered'"
    assert spark.query(registered) > [(0,)]
    spark.load("--forget", "nycflights13/planes/planes.csv")
    (duck.landing / "nycflights13/planes/planes.csv").unlink()
    duck.load()
    for box in two_boxes:
        build(box, *MODELS_ALONE)
    assert differing(two_boxes) == {}
    assert spark.query(registered) == [(0,)]
    by_node = Counter(file.parent for file in files(spark) if "int_build_events" in file.parts)
    assert len(by_node) > 10
    assert set(by_node.values()) == {1}


@pytest.mark.spark
def test_a_lake_is_registered_anew_whenever_it_is_another(spark_box: SparkBox) -> None:
    """Also where a snapshot was lost and another load made one of the same number."""
    spark_box.write("acme/orders/a.csv", "id\n1\n")
    spark_box.load()
    for column in ("more", "other"):
        spark_box.write("acme/orders/b.csv", f"id,{column}\n2,{column}\n")
        spark_box.load()
        register = run_dbt("run-operation", "register_raw_tables", database=spark_box.database,
                           **spark_box.variables)  # fmt: skip
        assert register.returncode == 0, register.stdout
        found = spark_box.query(f"select id, {column} from raw.acme_orders order by id")
        assert found == [("1", None), ("2", column)]
        spark_box.snapshots()[-1].unlink()


@pytest.mark.spark
def test_a_value_that_does_not_cast_is_shown(spark_box: SparkBox) -> None:
    """Tests find on Spark what they find elsewhere."""
    rows = flights(1)
    rows[5]["DEP_DELAY"] = "12x"
    spark_box.write(f"{FOLDER}1.csv", text(rows))
    spark_box.load()
    result = run_dbt("build", "--select", "bts_values_cast", database=spark_box.database,
                     **spark_box.variables)  # fmt: skip
    assert result.returncode == 1
    assert "FAIL 1 bts_values_cast" in result.stdout
