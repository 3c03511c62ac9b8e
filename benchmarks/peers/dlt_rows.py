"""dlt: its `filesystem` source with `read_csv`, as its guide shows it."""

# /// script
# dependencies = ["dlt[duckdb,filesystem]", "duckdb<2", "pandas"]
# ///

import sys
from pathlib import Path

import dlt
from dlt.sources.filesystem import filesystem, read_csv

csv, database = map(Path, sys.argv[1:3])
# A third argument is another format for the files between: see dlt_parquet.py.
file_format = sys.argv[3] if len(sys.argv) > 3 else None
pipeline = dlt.pipeline(
    "peer",
    pipelines_dir=f"{database}.dlt",
    destination=dlt.destinations.duckdb(str(database)),
    dataset_name="peer",
)
rows = filesystem(bucket_url=csv.parent.as_uri(), file_glob=csv.name) | read_csv()
pipeline.run(rows.with_name("flights"), loader_file_format=file_format)
