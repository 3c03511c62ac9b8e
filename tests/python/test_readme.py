"""What the README shows is what the commands print."""

import re
from pathlib import Path

import duckdb

from .conftest import PROJECT, run_dbt


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


def test_first_answers(built: Path) -> None:
    """The answers that the README shows at the end of `make` are those that it prints."""
    text = (PROJECT / "README.md").read_text()
    shown = re.search(r"^336,776 flights from.*?^`make docs`.*?$", text, re.DOTALL | re.MULTILINE)
    result = run_dbt("--quiet", "run-operation", "first_answers", database=built)
    assert result.returncode == 0, result.stdout
    assert result.stdout.strip().splitlines() == shown[0].splitlines()
