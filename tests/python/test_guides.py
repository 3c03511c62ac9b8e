"""What the guides in docs/ tell the reader to write and to run does work."""

import re
import shutil
import sys
from pathlib import Path
from textwrap import dedent

import duckdb
import pytest

from .conftest import PROJECT, Box, BucketBox, LakeBox, run_dbt


def test_a_source_of_ones_own(box: Box, tmp_path: Path) -> None:
    """The example of docs/modelling.md, copied into a project, loads, builds and passes."""
    project = tmp_path / "project"
    project.mkdir()
    names = "dbt_project.yml profiles.yml .dbtignore ingest macros models seeds tests"
    for name in names.split():
        source = PROJECT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, project / name)
    guide = (PROJECT / "docs" / "modelling.md").read_text()
    blocks = re.findall(r"^   ```\w+\n(.*?)^   ```", guide, re.DOTALL | re.MULTILINE)
    header, sources, view, models = map(dedent, blocks)
    with (project / "ingest" / "sources.toml").open("a") as stream:
        stream.write(header)
    folder = project / "models" / "staging" / "acme"
    folder.mkdir()
    (folder / "_acme__sources.yml").write_text(sources)
    (folder / "stg_acme__orders.sql").write_text(view)
    (folder / "_acme__models.yml").write_text(models)
    box.write("acme/orders/2024-01.csv", "order_id,Amount,ordered_on\n0001,9.5,2024-01-31\n")
    box.load(command=(sys.executable, project / "ingest" / "load.py"))
    result = run_dbt("build", "--select", "source:acme+", database=box.database, project=project)
    assert result.returncode == 0, result.stdout
    (row,) = box.query(
        "select order_id, amount_usd, cast(order_date as text), raw_row_number"
        " from staging.stg_acme__orders"
    )
    assert row == ("0001", 9.5, "2024-01-31", 1)


def test_queries_of_the_operators_guide(
    built: Path, landing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every query of docs/operations.md runs as it stands, that of the lake in its folder."""
    guide = (PROJECT / "docs" / "operations.md").read_text()
    queries = re.findall(r"```sql\n(.*?)```", guide, re.DOTALL)
    assert len(queries) == 7
    lake = LakeBox(landing, tmp_path / "warehouse" / "lake")
    lake.database.parent.mkdir()
    lake.load("--full-refresh", landing / "nycflights13" / "flights")
    # Twice there, once to be seen.
    lake.load("--full-refresh", landing / "nycflights13" / "flights")
    monkeypatch.chdir(tmp_path)
    with duckdb.connect(str(built), read_only=True) as warehouse:
        for query in queries:
            warehouse.sql(f"select * from ({query}) limit 1").fetchall()
        [of_lake] = (query for query in queries if "warehouse/lake" in query)
        assert warehouse.sql(f"select count(*) from ({of_lake})").fetchall() == [(336_776,)]


def test_the_lake_is_asked_in_place(bucket_box: BucketBox, box: Box) -> None:
    """The Python of docs/operations.md runs as it stands, on a bucket and on a folder."""
    guide = (PROJECT / "docs" / "operations.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    parquet = box.database.with_name("prices.parquet")
    duckdb.sql("select 9.50 as price").write_parquet(str(parquet))
    for each in (bucket_box, box):
        each.write("acme/orders/1.csv", "id,a\n01,x\n02,y\n")
        each.write("acme/orders/2.csv", "b,id\nz,03\n")
        each.write("acme/orders/.lake/versions/0/1.csv", "id,a\n00,old\n")
        each.write("acme/events/1.jsonl", '{"kind": "landed"}\n')
        each.write("acme/prices/1.parquet", parquet.read_bytes())
        own = code.replace("s3://bucket/landing", getattr(each, "url", str(each.landing)))
        if each is box:
            own = own.replace('duckdb.register_filesystem(fsspec.filesystem("s3"))', "")
        result = each.run(command=(sys.executable, "-c", own))
        assert result.returncode == 0, result.stderr
        cells = re.findall(r"[^\s│]+", result.stdout)
        assert {"2", "1", "landed", "9.50"} <= set(cells)
        assert sum("/acme/orders/" in cell for cell in cells) == 2
