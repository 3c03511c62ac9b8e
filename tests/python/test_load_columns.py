"""Columns that come, go, move and change their names between the files of one table."""

import json
from pathlib import Path

import pytest

from ingest import columns
from ingest.columns import Source, TableColumns, changes_in_words, column_names

from .conftest import LOADER, PROJECT, Box, closing_table

ORDERS = "acme/orders/"
CHANGES = "select path, column_changes from raw.landed_files order by path"


def changes(box: Box) -> dict[str, dict]:
    return {
        path.removeprefix(ORDERS): json.loads(found) for path, found in box.query(CHANGES) if found
    }


def test_each_change_is_said_and_recorded_with_its_file(box: Box) -> None:
    box.write(ORDERS + "1.csv", "id,name,price\n1,a,5\n")
    box.write(ORDERS + "2.csv", "id,name,price\n2,b,6\n")
    box.write(ORDERS + "3.csv", "id,name,price,tax\n3,c,7,1\n")
    box.write(ORDERS + "4.csv", "tax,id,price,name\n2,4,8,d\n")
    box.write(ORDERS + "5.csv", "tax,id,cost,name\n3,5,9,e\n")
    result = box.run()
    assert result.returncode == 0, result.stderr
    assert changes(box) == {
        "3.csv": {"added": ["tax"]},
        "4.csv": {"reordered": True},
        "5.csv": {
            "added": ["cost"],
            "missing": ["price"],
            "perhaps_renamed": {"price": "cost"},
        },
    }
    said = [line for line in result.stderr.splitlines() if "columns changed" in line]
    assert said == [
        f'Note: {ORDERS}3.csv: columns changed: added "tax" (null in earlier rows)',
        f"Note: {ORDERS}4.csv: columns changed: in another order",
        f'Note: {ORDERS}5.csv: columns changed: added "cost" (null in earlier rows);'
        ' missing "price" (null in its rows); perhaps renamed "price" to "cost"',
    ]
    assert box.query("select id, name, price, tax, cost from raw.acme_orders order by id") == [
        ("1", "a", "5", None, None),
        ("2", "b", "6", None, None),
        ("3", "c", "7", "1", None),
        ("4", "d", "8", "2", None),
        ("5", "e", None, "3", "9"),
    ]
    # The next file is compared with the one loaded before it, in an earlier run.
    box.write(ORDERS + "6.csv", "tax,id,cost,name\n4,6,9,f\n")
    box.write(ORDERS + "7.csv", "id\n7\n")
    box.load()
    assert set(changes(box)) == {"3.csv", "4.csv", "5.csv", "7.csv"}
    before = changes(box)
    box.load("--full-refresh")
    assert changes(box) == before
    box.check_registry()


def test_known_source_is_compared_with_its_documented_columns(sample_box: Box) -> None:
    assert sample_box.query("select * from raw.landed_files where column_changes is not null") == []
    sample_box.write("nycflights13/airlines/more.csv", "carrier,title\nXX,Xyz\n")
    result = sample_box.run()
    assert 'perhaps renamed "name" to "title"' in result.stderr
    new = Box(sample_box.landing, sample_box.database.with_name("new.duckdb"))
    first = new.run(sample_box.landing / "nycflights13/airlines/more.csv")
    assert 'perhaps renamed "name" to "title"' in first.stderr


def test_names_that_fall_together_keep_their_columns(box: Box) -> None:
    """In whatever order files give them, and when only one of them is there."""
    box.write(ORDERS + "1.csv", "Foo,foo,foo\na,b,c\n")
    box.write(ORDERS + "2.csv", "foo,foo,Foo\nb,c,a\n")
    box.load()
    box.write(ORDERS + "3.csv", "foo,Foo\nb,a\n")
    box.write(ORDERS + "4.csv", "foo\nb\n")
    box.write(ORDERS + "5.csv", "FOO\na\n")
    box.load()
    assert box.query(
        "select foo, foo_2, foo_3 from raw.acme_orders join raw.landed_files on file_id = _file_id"
        " order by path"
    ) == [
        ("a", "b", "c"),
        ("a", "b", "c"),
        ("a", "b", None),
        (None, "b", None),
        ("a", None, None),
    ]
    assert box.query("select header, column_names from raw.landed_files order by path limit 2") == [
        ('["Foo", "foo", "foo"]', '["foo", "foo_2", "foo_3"]'),
        ('["foo", "foo", "Foo"]', '["foo_2", "foo_3", "foo"]'),
    ]


def test_spelling_that_was_there_first_keeps_its_name(box: Box) -> None:
    for number, header in enumerate(("id,a", "id,A", "id,A,a", "id,a")):
        box.write(f"{ORDERS}{number}.csv", f"{header}\n{number}{',x' * header.count(',')}\n")
        box.load()
    assert box.query("select id, a, a_2 from raw.acme_orders order by id") == [
        ("0", "x", None),
        ("1", "x", None),
        ("2", "x", "x"),
        ("3", "x", None),
    ]


def test_file_delivered_anew_is_compared_with_itself(box: Box, tmp_path: Path) -> None:
    box.write(ORDERS + "a.csv", "id,v\n1,x\n")
    box.load()
    box.write(ORDERS + "a.csv", "id,w\n1,x\n")
    frozen = box.run(command=frozen_loader(tmp_path, "[acme.orders]\nfrozen = true\n"))
    assert "its columns are frozen" in frozen.stderr
    assert 'perhaps renamed "v" to "w"' in box.run().stderr
    assert changes(box)["a.csv"]["missing"] == ["v"]


def test_long_names_fit_every_engine() -> None:
    long = "a very long name of a column that says everything there is to be said about it"
    names = column_names((long, long.upper(), long + " twice", "x" * 63, "X" * 63))
    assert len(set(names)) == 5
    assert max(len(name) for name in names) == 63
    assert column_names((long,)) == names[:1]


def test_refused_file_is_not_the_one_before(box: Box, tmp_path: Path) -> None:
    """What could not be read changes neither the notes nor the names of the files after it."""
    box.write(ORDERS + "1.csv", "Id,other\n1\n")
    box.write(ORDERS + "2.csv", "id,name\n2,b\n")
    box.write(ORDERS + "3.csv", "id,name,other\n3\n")
    box.write(ORDERS + "4.csv", "id,name\n4,d\n")
    for settings in ("", "[acme.orders]\nfrozen = true\n"):
        box.database.unlink(missing_ok=True)
        result = box.run(command=frozen_loader(tmp_path / f"{len(settings)}", settings))
        statuses = [row[2] for row in closing_table(result.stdout).values()]
        assert statuses == ["refused", "new", "refused", "new"], result.stderr
        assert "columns changed" not in result.stderr
        assert changes(box) == {}
        assert box.query("select id, name from raw.acme_orders order by id") == [
            ("2", "b"),
            ("4", "d"),
        ]
        assert not box.query(
            "select * from duckdb_columns() where column_name in ('id_2', 'other')"
        )


def frozen_loader(tmp_path: Path, settings: str) -> tuple[object, ...]:
    """The real command in a project whose sources.toml has these settings."""
    copy = tmp_path / "project"
    (copy / "ingest").mkdir(parents=True)
    for source in (PROJECT / "ingest").glob("*.py"):
        (copy / "ingest" / source.name).write_bytes(source.read_bytes())
    (copy / "profiles.yml").write_bytes((PROJECT / "profiles.yml").read_bytes())
    (copy / "ingest" / "sources.toml").write_text(settings)
    return LOADER[0], copy / "ingest" / "load.py"


def test_frozen_source_refuses_what_differs(box: Box, tmp_path: Path) -> None:
    command = frozen_loader(
        tmp_path,
        '[acme.orders]\ncolumns = ["id", "name"]\nfrozen = true\n\n[acme.bills]\nfrozen = true\n',
    )
    box.write(ORDERS + "1.csv", "id,name\n1,a\n")
    box.write(ORDERS + "2.csv", "id,name,price\n2,b,6\n")
    box.write(ORDERS + "3.csv", "name,id\nc,3\n")
    box.write("acme/bills/1.csv", "id\n1\n")
    box.write("acme/bills/2.csv", "id,sum\n2,5\n")
    for arguments in (("--dry-run",), ()):
        result = box.run(*arguments, command=command)
        assert result.returncode == 1
        statuses = {name: row[2] for name, row in closing_table(result.stdout).items()}
        assert statuses == {
            "acme/bills/1.csv": "new",
            "acme/bills/2.csv": "refused",
            ORDERS + "1.csv": "new",
            ORDERS + "2.csv": "refused",
            ORDERS + "3.csv": "refused",
        }
        assert f'{ORDERS}2.csv: its columns are frozen, and this file\'s differ: added "price"' in (
            result.stderr
        )
        assert "3.csv: its columns are frozen, and this file's differ: in another" in result.stderr
    assert [name for name, *_ in box.query("describe raw.acme_orders")][:2] == ["id", "name"]
    assert box.query("select id from raw.acme_orders union all select id from raw.acme_bills") == [
        ("1",),
        ("1",),
    ]


def test_files_with_any_subset_of_the_documented_columns(box: Box, tmp_path: Path) -> None:
    """Only a column that is not documented is said; a delimiter at the end of lines is none."""
    settings = '[acme.orders]\ncolumns = ["id", "Name", "price"]\nany_subset = true\n'
    box.write(ORDERS + "1.csv", "id,NAME\n1,a\n")
    box.write(ORDERS + "2.csv", "price,id,\n5,2,\n")
    box.write(ORDERS + "3.csv", "id,tax,name\n3,1,c\n")
    box.write(ORDERS + "4.csv", "name\nd\n")
    result = box.run(command=frozen_loader(tmp_path, settings))
    assert result.returncode == 0, result.stderr
    assert changes(box) == {"3.csv": {"added": ["tax"]}}
    assert result.stderr.count("columns changed") == 1
    assert box.query("select id, name, price, tax from raw.acme_orders order by all") == [
        ("1", "a", None, None),
        ("2", None, "5", None),
        ("3", "c", None, "1"),
        (None, "d", None, None),
    ]
    (tmp_path / "project").rename(tmp_path / "before")
    box.write(ORDERS + "5.csv", "name,tax\ne,2\n")
    box.write(ORDERS + "6.csv", "price,name,\n1,f,\n")
    result = box.run(command=frozen_loader(tmp_path, settings + "frozen = true\n"))
    assert result.returncode == 1
    assert f'{ORDERS}5.csv: its columns are frozen, and this file\'s differ: added "tax"' in (
        result.stderr
    )
    assert box.query("select price from raw.acme_orders where name = 'f'") == [("1",)]


def test_encoding_by_configuration(box: Box, tmp_path: Path) -> None:
    content = "id,город\n1,Москва\n".encode("cp1251")
    box.write(ORDERS + "1.csv", content)
    result = box.run()
    assert result.returncode == 1
    assert "not valid UTF-8" in result.stderr
    assert "sources.toml" in result.stderr
    command = frozen_loader(tmp_path, '[acme.orders]\nencoding = "cp1251"\n')
    box.load(command=command)
    assert box.query("select * exclude (_file_id, _dlt_load_id) from raw.acme_orders") == [
        ("1", "Москва", 1)
    ]
    assert box.query("select encoding, header from raw.landed_files") == [
        ("cp1251", '["id", "город"]')
    ]
    box.write(ORDERS + "2.csv", b"id,x\n1,\x98\n")
    result = box.run(command=command)
    assert "2.csv: is not valid cp1251: byte 0x98" in result.stderr
    assert "Traceback" not in result.stderr


def test_fallback_encoding_of_files_that_are_not_utf8(box: Box, tmp_path: Path) -> None:
    """Any byte is kept as one character; a file that is UTF-8 is read as that."""
    box.write(ORDERS + "1.csv", b"id,tail\n1,\xe4NK\xe6\xe2\n2,N\x811\n")
    box.write(ORDERS + "2.csv", "id,tail\n3,caf\u00e9\n")
    assert box.run().returncode == 1
    command = frozen_loader(tmp_path, '[acme.orders]\nfallback_encoding = "latin-1"\n')
    result = box.run(command=command)
    assert result.returncode == 0, result.stderr
    assert "1.csv: byte 0x" in result.stderr
    assert box.query("select id, tail from raw.acme_orders order by id") == [
        ("1", "\u00e4NK\u00e6\u00e2"),
        ("2", "N\u00811"),
        ("3", "caf\u00e9"),
    ]


def test_delimiter_by_configuration(box: Box, tmp_path: Path) -> None:
    """It decides where the file does not; a file's own declaration goes before it."""
    box.write(ORDERS + "1.csv", "id,x~day\n1,5~2\n3,7~4\n")
    box.write(ORDERS + "2.csv", "sep=;\nid,x;day\n5,0;6\n")
    result = box.run()
    assert "columns changed" in result.stderr
    box.database.unlink()
    command = frozen_loader(tmp_path, '[acme.orders]\ndelimiter = "~"\n')
    result = box.run(command=command)
    assert result.returncode == 0, result.stderr
    assert "columns changed" not in result.stderr
    assert box.query("select id_x, day from raw.acme_orders order by id_x") == [
        ("1,5", "2"),
        ("3,7", "4"),
        ("5,0", "6"),
    ]
    assert box.query("select delimiter from raw.landed_files order by path") == [("~",), (";",)]


@pytest.mark.parametrize(
    "settings",
    [
        "[acme]\norders = 3\n",
        "[acme.orders]\nfrosen = true\n",
        "acme",
        '[a.b]\nencoding = "x"',
        '[a.b]\nencoding = "hex"',
        "[a.b]\ncolumns = [1]",
        '[a.b]\nfrozen = "no"',
        '[a.b]\ndelimiter = "||"',
        "[a.b]\ndelimiter = 1",
        "[a.b]\ndelimiter = 'x'",
    ],
)
def test_settings_that_are_not_understood(settings: str, box: Box, tmp_path: Path) -> None:
    box.write(ORDERS + "1.csv", "id\n1\n")
    result = box.run(command=frozen_loader(tmp_path, settings))
    assert result.returncode == 1
    assert "sources.toml is not understood" in result.stderr
    assert "Traceback" not in result.stderr


def test_changes_of_a_header_without_names_or_before_the_first() -> None:
    table = TableColumns()
    assert table.changes(("a",), ["a"], table.header) == {}
    table.see(("a", "b"), ["a", "b"])
    assert table.changes((), [], table.header) == {}
    assert changes_in_words(table.changes(("c",), ["c"], table.header)).startswith('added "c"')
    assert columns.known_sources()["nycflights13_airlines"] == Source(("carrier", "name"))
