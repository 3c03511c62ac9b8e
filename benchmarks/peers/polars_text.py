"""Polars: as polars_frame, but told to leave all columns text."""

# /// script
# dependencies = ["duckdb<2", "polars", "pyarrow"]
# ///

import sys

import duckdb
import polars as pl

csv, database = sys.argv[1:]
with duckdb.connect(database) as connection:
    connection.register("frame", pl.read_csv(csv, infer_schema=False))
    connection.execute("create table flights as select * from frame")
