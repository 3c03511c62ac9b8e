"""Compare a loaded table with the text of its CSV file, as Python's csv module reads it.

    python benchmarks/survival.py flights.csv some.duckdb

Every value is cast to text. Neither rows nor values are matched by position: a row counts as equal
where the file has one with the same values, a value where the file has it in the same column.
An empty field stands for null, a quoted empty one for the empty text.
"""

import csv
import json
import sys
from collections import Counter
from pathlib import Path

import duckdb


def read_truth(path: str) -> dict[str, list[str | None]]:
    """Return the columns of a CSV file, as text."""
    with Path(path).open(newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    # The csv module does not tell `""` from nothing: only one column of tricky.csv has it.
    return {
        name: [value if value or name == "quoted_empty" else None for value in values]
        for name, values in zip(header, zip(*rows, strict=True), strict=True)
    }


def read_table(path: str, names: list[str]) -> dict[str, list[str | None]]:
    """Return those columns that the loaded table has, cast to text."""
    with duckdb.connect(path, read_only=True) as connection:
        # The loader names a table after two folders, <source>_<table>; all others are told to.
        schema, table = connection.execute(
            "select schema_name, table_name from duckdb_tables()"
            " where table_name in ('flights', 'bench_flights')"
        ).fetchone()
        relation = connection.table(f'{schema}."{table}"')
        found = [name for name in names if name in relation.columns]
        casts = ", ".join(f'cast("{name}" as varchar)' for name in found)
        rows = relation.project(casts).fetchall()
    return dict(zip(found, zip(*rows, strict=True), strict=True))


def compare(truth: dict[str, list], table: dict[str, list]) -> dict:
    """Count what the table has of the file's rows and values."""
    expected = Counter(zip(*truth.values(), strict=True))
    found = Counter(zip(*table.values(), strict=True))
    lost = {name: lost_values(values, table.get(name, ())) for name, values in truth.items()}
    return {
        "rows": expected.total(),
        "rows_equal": (expected & found).total(),
        "rows_in_table": found.total(),
        "values": expected.total() * len(truth),
        "values_lost": {name: count for name, count in lost.items() if count},
    }


def lost_values(expected: list, found: list) -> int:
    """Return how many of the expected values are not among those found."""
    return (Counter(expected) - Counter(found)).total()


if __name__ == "__main__":
    file, database = sys.argv[1:]
    truth = read_truth(file)
    print(json.dumps(compare(truth, read_table(database, list(truth)))))
