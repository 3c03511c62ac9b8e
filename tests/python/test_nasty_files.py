"""The load command on files as the world delivers them; what is to become of each is written down.

tests/fixtures/nasty/expected.json has, by file: what raw.landed_files says of it, its rows and the
broken records as [line, reason], or the message with which it is refused, up to where a library's
own words begin. Files that are large, or whose names not every file system can hold, are made here.
"""

import json
import shutil
from dataclasses import dataclass
from typing import Any

import pytest

from .conftest import DATABASES, PROJECT, Box, PostgresBox, closing_table

NASTY = PROJECT / "tests" / "fixtures" / "nasty"
EXPECTED: dict[str, dict[str, Any]] = json.loads((NASTY / "expected.json").read_text("utf-8"))
# More than any file there has, but for those of which too much is broken.
MAX_REJECTS = 3

NAMES = [
    *("it's", 'say "so"', "two words", "a\nb", "a;b", "*", "?", "[1]", "[", "{a,b}", "100%", "%20"),
    *(
        "-rf",
        "--help",
        "~",
        "$HOME",
        "#1",
        "&",
        "back\\slash",
        "back\\slash [1]",
        "\\*?",
        "Zürich 東京 ✈",
        "e\u0301",
        "n" * 200,
    ),
]


def made() -> dict[str, tuple[str, dict[str, Any]]]:
    """Files to make: their content, and what is expected of them."""
    files = {}

    def add(name: str, header: list[str], *rows: list[str | None]) -> None:
        lines = [",".join(value or "" for value in line) + "\n" for line in (header, *rows)]
        unquoted = [[value and value.strip('"') for value in row] for row in rows]
        files[name] = "".join(lines), described(columns=header, rows=unquoted)

    pair = ["id", "name"]
    for number, name in enumerate(NAMES):
        add(f"file_names/{name}.csv", pair, [str(number), None])
    add("field_of_5_mb/a.csv", pair, ["1", "x" * 5_000_000], ["2", "y"])
    add("quoted_field_of_5_mb/a.csv", pair, ["1", '"' + "x, \n" * 1_250_000 + '"'], ["2", "y"])
    add("line_of_3_mb/a.csv", [f"c_{number}" for number in range(300)], ["x" * 10_000] * 300)
    add("columns_5000/a.csv", [f"c_{number}" for number in range(5_000)], ["1"] * 5_000)
    content, expected = files["field_of_5_mb/a.csv"]
    # The slow reader takes it, for the broken record.
    files["field_of_5_mb_and_a_broken_record/a.csv"] = (
        content + "3\n",
        expected | {"rejected": [[4, "1 fields found, 2 expected"]]},
    )
    return files


def described(columns: list[str], rows: list[list[str | None]]) -> dict[str, Any]:
    return {
        "encoding": "utf-8",
        "delimiter": ",",
        "compression": None,
        "header": columns,
        "columns": columns,
        "rows": rows,
        "rejected": [],
    }


MADE = made()


@dataclass
class Loaded:
    """What one load of all files wrote, and what of them is in the warehouse, by file."""

    box: Box
    files: dict[str, dict[str, Any]]
    closing: dict[str, tuple[str, str, str]]
    messages: str
    too_much: dict[str, str]


# What one engine cannot hold: the file, and the message with which it is refused there.
TOO_MUCH = {
    "postgres": {"columns_5000/a.csv": "with its 5,000 columns, raw.nasty_columns_5000 would have"}
}


@pytest.fixture(scope="module", params=DATABASES)
def loaded_once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = tmp_path_factory.mktemp("nasty")
    box = Box(folder / "landing", folder / "warehouse.duckdb")
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        server.execute("create database nasty")
        box = PostgresBox(box.landing, box.database, server, "nasty")
    shutil.copytree(NASTY, box.landing / "nasty", ignore=shutil.ignore_patterns("expected.json"))
    for name, (content, _) in MADE.items():
        box.write(f"nasty/{name}", content)
    closing, messages = run(box)
    return Loaded(box, found_in(box), closing, messages, TOO_MUCH.get(request.param, {}))


def run(box: Box, *args: object) -> tuple[dict[str, tuple[str, str, str]], str]:
    """Load; return the closing table by file, and what was written beside it."""
    result = box.run("--max-rejects", MAX_REJECTS, *args)
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    table = closing_table(result.stdout.replace("a\nb.csv", "a b.csv"))
    return {name.removeprefix("nasty/"): line for name, line in table.items()}, result.stderr


def found_in(box: Box) -> dict[str, dict[str, Any]]:
    """Describe the files in the warehouse as `described` does."""
    files = {}
    for (
        path,
        file_id,
        table,
        header,
        columns,
        *counts,
        encoding,
        delimiter,
        compression,
    ) in box.query(
        "select path, file_id, table_name, header, column_names, rows_loaded, rows_rejected,"
        " records_read, encoding, delimiter, compression"
        " from raw.landed_files where is_current"
    ):
        names = json.loads(columns)
        listed = ", ".join(f'"{name}"' for name in names)
        rows = names and box.query(
            f"select {listed} from raw.nasty_{table} where _file_id = '{file_id}'"
            " order by _row_number"
        )
        rejects = box.query(
            f"select line, reason from raw.rejected_rows where table_name = '{table}'"
            f" and file_id = '{file_id}' order by line"
        )
        assert counts == [len(rows), len(rejects), len(rows) + len(rejects)]
        files[path.removeprefix("nasty/")] = {
            "encoding": encoding,
            "delimiter": delimiter,
            "compression": compression,
            "header": json.loads(header),
            "columns": names,
            "rows": [list(row) for row in rows],
            "rejected": [list(reject) for reject in rejects],
        }
    return files


@pytest.mark.parametrize("name", [*EXPECTED, *MADE])
def test_nasty_file(name: str, loaded_once: Loaded) -> None:
    expected = EXPECTED.get(name) or MADE[name][1]
    if name in loaded_once.too_much:
        expected = {"refused": loaded_once.too_much[name]}
    if "refused" in expected:
        assert f"Refused: nasty/{name}: {expected['refused']}" in loaded_once.messages
        assert name not in loaded_once.files
    else:
        assert loaded_once.files[name] == expected


def test_every_file_is_expected(loaded_once: Loaded) -> None:
    there = {path.relative_to(NASTY).as_posix() for path in NASTY.rglob("*") if path.is_file()}
    archives = {name: name.partition(".zip/")[0] + ".zip" for name in EXPECTED if ".zip/" in name}
    assert there == {archives.get(name, name) for name in EXPECTED} | {"expected.json"}
    assert set(loaded_once.closing) == {name.replace("a\nb", "a b") for name in (*EXPECTED, *MADE)}


def test_nasty_files_are_known_again(loaded_once: Loaded) -> None:
    """The next run, which trusts no time stamp, loads none of them again."""
    again, _ = run(loaded_once.box, "--verify")
    statuses = {"new": "unchanged", "refused": "refused"}
    assert {name: line[2] for name, line in again.items()} == {
        name: statuses[line[2]] for name, line in loaded_once.closing.items()
    }
    loaded_once.box.check_registry()
