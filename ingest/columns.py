"""The columns of raw tables: what the sources document, what files bring, what changes."""

import codecs
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ingest.errors import LoadError

FILE_ID, ROW_NUMBER, LOAD_ID = "_file_id", "_row_number", "_dlt_load_id"
# dlt's names of the types that the raw schema uses.
TEXT, BIGINT, TIMESTAMP, BOOL = "text", "bigint", "timestamp", "bool"
LINEAGE = {FILE_ID: TEXT, ROW_NUMBER: BIGINT, LOAD_ID: TEXT}
LANDED_FILES = {
    "file_id": TEXT,
    "source_name": TEXT,
    "table_name": TEXT,
    "path": TEXT,
    "bytes": BIGINT,
    "modified_at": TIMESTAMP,
    "loaded_at": TIMESTAMP,
    "header": TEXT,
    "column_names": TEXT,
    "column_changes": TEXT,
    "encoding": TEXT,
    "delimiter": TEXT,
    "compression": TEXT,
    "records_read": BIGINT,
    "rows_loaded": BIGINT,
    "rows_rejected": BIGINT,
    "file_format": TEXT,
    "object_id": TEXT,
    "media_type": TEXT,
    "received_at": TIMESTAMP,
    "landed_by": TEXT,
    "tags": TEXT,
    "places": TEXT,
    "is_current": BOOL,
    "retired_at": TIMESTAMP,
    "retired_because": TEXT,
    LOAD_ID: TEXT,
}
REJECTED_ROWS = {
    "file_id": TEXT,
    "source_name": TEXT,
    "table_name": TEXT,
    "line": BIGINT,
    "reason": TEXT,
    "raw_text": TEXT,
    LOAD_ID: TEXT,
}
SOURCES = Path(__file__).with_name("sources.toml")
# PostgreSQL cuts longer names: they are made to fit before, with a hash, on every engine alike.
MAX_NAME_LENGTH = 63

# A column as files spell it: its name, and the how manieth of this name it is in its header.
Spelling = tuple[str, int]


@dataclass(frozen=True)
class Source:
    """What sources.toml says of one raw table: the documented header, and how files are taken."""

    columns: tuple[str, ...] = ()
    frozen: bool = False
    any_subset: bool = False
    encoding: str | None = None
    fallback_encoding: str | None = None
    delimiter: str | None = None


@cache
def known_sources() -> dict[str, Source]:
    """Return what sources.toml says, by raw table. Raises LoadError where it is not understood."""
    sources = {}
    try:
        for name, tables in tomllib.loads(SOURCES.read_text()).items():
            for table, settings in tables.items():
                sources[f"{name}_{table}"] = _source(**settings)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise LoadError(
            f"{SOURCES} is not understood: {error}; expected [<source>.<table>] with columns,"
            " frozen, any_subset, encoding, fallback_encoding and delimiter"
        ) from None
    return sources


def _source(
    columns: list[str] | None = None,
    frozen: bool = False,
    any_subset: bool = False,
    encoding: str | None = None,
    fallback_encoding: str | None = None,
    delimiter: str | None = None,
) -> Source:
    """Check the settings of one table. Raises TypeError or LookupError for what is none."""
    columns = [] if columns is None else columns
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise TypeError(f"columns = {columns!r} is not a list of names")
    for name, flag in (("frozen", frozen), ("any_subset", any_subset)):
        if not isinstance(flag, bool):
            raise TypeError(f"{name} = {flag!r} is neither true nor false")
    if delimiter is not None and not is_delimiter(delimiter):
        raise TypeError(f"delimiter = {delimiter!r} is not one sign, such as ;")
    codecs_named = _codec(encoding), _codec(fallback_encoding)
    return Source(tuple(columns), frozen, any_subset, *codecs_named, delimiter)


def is_delimiter(text: object) -> bool:
    """Tell whether a text is one character that can stand between fields."""
    is_one = isinstance(text, str) and len(text) == 1 and text.isascii()
    return is_one and not text.isalnum() and text not in '"\r\n\0 '


def _codec(encoding: str | None) -> str | None:
    """Return Python's own name of a text encoding. Raises LookupError for what is none."""
    if encoding is None:
        return None
    name = codecs.lookup(encoding).name
    "".encode(name)
    return name


def spellings(header: tuple[str, ...]) -> list[Spelling]:
    """Return a header's columns, each told apart from others of the same name."""
    seen: Counter[str] = Counter()
    found = []
    for name in header:
        seen[name] += 1
        found.append((name, seen[name]))
    return found


def column_names(header: tuple[str, ...], known: Mapping[Spelling, str] | None = None) -> list[str]:
    """Return one unique snake_case name of at most 63 bytes per column of the header, in order.

    A spelling that is `known` keeps its name. Accents are dropped and other letters outside ASCII
    spelled as their code point. A blank name becomes `column_<position>`; a name that is taken gets
    a suffix `_2`, `_3`, ... The lineage columns' names count as taken.
    """
    from dlt.common.normalizers.naming.snake_case import NamingConvention

    naming = NamingConvention(MAX_NAME_LENGTH)
    taken = {FILE_ID, ROW_NUMBER, LOAD_ID, "_dlt_id"}
    names: dict[int, str] = {}
    positions = {spelling: position for position, spelling in enumerate(spellings(header))}
    # Of spellings that share a name, the one that had it first keeps it.
    for spelling, name in (known or {}).items():
        if spelling in positions and spelling[0].strip() and name not in taken:
            names[positions[spelling]] = name
            taken.add(name)
    for position, original in enumerate(header):
        if position in names:
            continue
        ascii_only = _ascii(original)
        base = naming.normalize_identifier(ascii_only) if ascii_only else f"column_{position + 1}"
        name, suffix = base, 1
        while name in taken:
            suffix += 1
            end = f"_{suffix}"
            # dlt takes two underscores for one.
            name = base[: MAX_NAME_LENGTH - len(end)].rstrip("_") + end
        names[position] = name
        taken.add(name)
    return [names[position] for position in range(len(header))]


def _ascii(text: str) -> str:
    return "".join(
        letter if letter.isascii() else f"u{ord(letter):04x}"
        for letter in unicodedata.normalize("NFKD", text)
        if not unicodedata.combining(letter)
    ).strip()


@dataclass
class TableColumns:
    """How the files of one raw table spell its columns, and the header last seen."""

    names: dict[Spelling, str] = field(default_factory=dict)
    header: tuple[str, ...] = ()

    def see(self, header: tuple[str, ...], names: Sequence[str], *, is_before: bool = True) -> None:
        """Take note of a file's header and of the names that its columns have in the table.

        `is_before` tells that later files are compared with this one.
        """
        for spelling, name in zip(spellings(header), names, strict=True):
            self.names.setdefault(spelling, name)
        if is_before and header:
            self.header = header

    def changes(
        self, header: tuple[str, ...], names: Sequence[str], before: tuple[str, ...]
    ) -> dict[str, object]:
        """Compare a header with the one before; return what differs, nothing for equal ones.

        `added` and `missing` are lists of columns as the files spell them; `perhaps_renamed` maps
        a missing column to the added one that stands in its place; `reordered` is True where the
        columns that both have come in another order.
        """
        if not before or not header:
            return {}
        old_names = column_names(before, self.names)
        added = [new for new, name in zip(header, names, strict=True) if name not in old_names]
        missing = [old for old, name in zip(before, old_names, strict=True) if name not in names]
        renamed = {
            old: new
            for old, new in zip(before, header, strict=False)
            if old in missing and new in added
        }
        kept = [name for name in old_names if name in names]
        changes = {
            "added": added,
            "missing": missing,
            "perhaps_renamed": renamed,
            "reordered": kept != [name for name in names if name in old_names],
        }
        return {kind: found for kind, found in changes.items() if found}


def unexpected(changes: dict[str, object]) -> dict[str, object]:
    """Leave of `TableColumns.changes` what matters where a file may have any of the columns.

    That is the added columns, but for one without a name: a delimiter at the end of each line.
    """
    added = [name for name in changes.get("added", ()) if name.strip()]
    return {"added": added} if added else {}


def changes_in_words(changes: dict) -> str:
    """Say what `TableColumns.changes` found, as one line."""

    def listed(names: list[str]) -> str:
        return ", ".join(f'"{name}"' for name in names)

    parts = []
    if "added" in changes:
        parts.append(f"added {listed(changes['added'])} (null in earlier rows)")
    if "missing" in changes:
        parts.append(f"missing {listed(changes['missing'])} (null in its rows)")
    if "perhaps_renamed" in changes:
        pairs = (f'"{old}" to "{new}"' for old, new in changes["perhaps_renamed"].items())
        parts.append(f"perhaps renamed {', '.join(pairs)}")
    if "reordered" in changes:
        parts.append("in another order")
    return "; ".join(parts)
