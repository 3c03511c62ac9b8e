"""The load command as it is called: from anywhere, in every spelling, with names that move."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from ingest.report import Report

from .conftest import LOADER, PROJECT, Box, closing_table, environment, run_load


def test_works_from_anywhere_and_in_every_spelling(box: Box, tmp_path: Path) -> None:
    box.write("acme/orders/a.csv", "a\n1\n")
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    (elsewhere / "link").symlink_to(box.landing)
    box.load(cwd=box.landing)
    for command, path, cwd in (
        (LOADER, "../landing/acme/orders/a.csv", elsewhere),
        (LOADER, "link/acme", elsewhere),
        ((sys.executable, "-m", "ingest.load"), box.landing / "acme" / ".." / "acme", PROJECT),
        ((sys.executable, "load.py"), box.landing, PROJECT / "ingest"),
    ):
        found = box.load(path, cwd=cwd, command=command)
        assert found == {"acme/orders/a.csv": ("1", "0", "unchanged")}, (command, path)
    relative = run_load("--landing", "link", database=box.database, cwd=elsewhere)
    assert closing_table(relative.stdout) == {"acme/orders/a.csv": ("1", "0", "unchanged")}


def test_help_shows_its_examples(tmp_path: Path) -> None:
    result = subprocess.run(
        [*map(str, LOADER), "--help"],
        capture_output=True,
        text=True,
        env=environment(tmp_path / "none"),
    )
    assert result.returncode == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "python ingest/load.py what is new or changed in landing/" in lines
    assert "python ingest/load.py --dry-run say what would be loaded, load nothing" in lines


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(box: Box) -> None:
    box.write("acme/orders/a.csv", "a\n1\n")
    terminal, end = pty.openpty()
    subprocess.run(
        [*map(str, LOADER), "--landing", str(box.landing)],
        env=environment(box.database, TERM="xterm"),
        stdout=subprocess.DEVNULL,
        stderr=end,
        check=True,
    )
    os.close(end)
    shown = os.read(terminal, 1 << 16).decode()
    os.close(terminal)
    assert "loading" in shown
    assert "100%" in shown
    assert "\nloaded" not in shown
    box.write("acme/orders/b.csv", "a\n2\n")
    lines = box.run().stderr.splitlines()
    assert lines == ["loaded acme/orders/b.csv: 1 rows"]


def test_progress_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ingest.report.LINE_EVERY_SECONDS", 0)
    with Report().progress("loading", 10, "rows") as advance:
        advance(0)
        advance(10)
    nothing, all_of_it = capsys.readouterr().err.splitlines()
    assert nothing.startswith("loading: 0 of 10 rows")
    assert all_of_it.startswith("loading: 10 of 10 rows")
    assert all_of_it.endswith(", 0 s left")


def test_same_bytes_written_again(box: Box) -> None:
    """Another time of writing is noted, and nothing is loaded."""
    path = box.write("acme/orders/a.csv", "id\n1\n")
    box.load()
    box.write("acme/orders/a.csv", "id\n1\n")
    os.utime(path, ns=(0, 1_234_567_000))
    assert box.load() == {"acme/orders/a.csv": ("1", "0", "unchanged")}
    noted = box.query("select epoch_us(modified_at) from raw.landed_files")
    assert noted == [(1_234_567,)]
    assert box.query("select count(*) from raw._dlt_loads") == [(1,)]


def test_names_handed_on(box: Box) -> None:
    """What was in a goes to b, what was in b to c, and a gets new bytes: nothing is lost."""
    contents = {"a": "id\n1\n", "b": "id\n2\n"}
    for name, content in contents.items():
        box.write(f"acme/orders/{name}.csv", content)
    box.load()
    for name, content in (("c", contents["b"]), ("b", contents["a"]), ("a", "id\n3\n")):
        box.write(f"acme/orders/{name}.csv", content)
    assert [status for *_, status in box.load().values()] == ["new", "unchanged", "unchanged"]
    assert box.query("select id from raw.acme_orders order by id") == [("1",), ("2",), ("3",)]
    assert box.query(
        "select path, id from raw.acme_orders join raw.landed_files on file_id = _file_id"
        " order by path"
    ) == [("acme/orders/a.csv", "3"), ("acme/orders/b.csv", "1"), ("acme/orders/c.csv", "2")]
    box.check_registry()


def test_name_that_is_not_utf8(box: Box) -> None:
    folder = box.landing / "acme" / "orders"
    folder.mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xe9.csv")).write_text("a\n1\n")
    result = box.run()
    assert result.returncode == 1
    assert "is not UTF-8: rename the file" in result.stderr
    assert "Traceback" not in result.stderr
    assert not box.database.exists()
