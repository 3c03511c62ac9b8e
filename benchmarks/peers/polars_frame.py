"""Polars: `read_csv`, and DuckDB selects from the frame."""

# /// script
# dependencies = ["duckdb<2", "polars", "pyarrow"]
# ///

import sys

import duckdb
import polars as pl

csv, database = sys.argv[1:]
with duckdb.connect(database) as connection:
    connection.register("frame", pl.read_csv(csv))
    connection.execute("create table flights as select * from frame")
