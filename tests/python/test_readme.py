"""The README's worked question gives the answer that the README prints."""

import re
from pathlib import Path

import duckdb

from .conftest import PROJECT


def test_worked_question(built: Path) -> None:
    """The first SQL block's result is the first table after it."""
    text = (PROJECT / "README.md").read_text()
    query, after = re.search(r"```sql\n(.*?)```(.*)", text, re.DOTALL).groups()
    lines = [line for line in after.split("\n\n")[1].splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    with duckdb.connect(str(built), read_only=True) as warehouse:
        answer = warehouse.sql(query)
        assert answer.columns == header
        assert [[str(value) for value in row] for row in answer.fetchall()] == rows
