"""The physical limit: DuckDB's own reader, all columns text, into a table, and nothing else."""

import sys

import duckdb

csv, database = sys.argv[1:]
with duckdb.connect(database) as connection:
    connection.execute(
        "create table flights as select * from read_csv(?, all_varchar = true)", [csv]
    )
