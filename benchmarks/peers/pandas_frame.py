"""pandas: `read_csv`, and DuckDB selects from the frame."""

# /// script
# dependencies = ["duckdb<2", "pandas"]
# ///

import sys

import duckdb
import pandas as pd

csv, database = sys.argv[1:]
with duckdb.connect(database) as connection:
    connection.register("frame", pd.read_csv(csv))
    connection.execute("create table flights as select * from frame")
