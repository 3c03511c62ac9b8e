"""Put files of any kind into the landing zone, as they are.

\b
    python ingest/land.py flights.csv --to acme/flights
    python ingest/land.py scan.pdf --to acme/invoices --tag year=2024 --tag kind=invoice
    python ingest/land.py *.parquet --to acme/orders --landing s3://bucket/landing

A file gets its own name in landing/<source>/<table>/, and is there whole or not at all. With it
are kept its id (the SHA-256 of its bytes), media type, tags, when it was received and who put it
there: in a hidden folder beside it or, in a bucket, as metadata and tags of the object. Another
file under a name that is taken becomes the new version; the old one is kept in .lake/versions/.
The same bytes again change nothing; new tags are added to those that it has.

`ingest/load.py` then loads CSV, JSON lines and Parquet, and lists all others in raw.landed_files;
`ingest/find.py` finds files by id, tag, source and time.

Exit codes: 0 all files are there; 1 one is not, and the message says why; 2 the command line is
wrong; 130 interrupted.
"""

import getpass
import hashlib
import json
import mimetypes
import os
import re
import socket
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

if __name__ == "__main__":
    # Run as a script, Python looks for modules in this folder; `ingest` itself lies above it.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from ingest import interrupts

    interrupts.end_at_once()

import click

from ingest import interrupts
from ingest.errors import FileRefused, LoadError
from ingest.landing import OWN_LANDING, TABLE_PART, Landing, Note, open_landing
from ingest.options import landing_option
from ingest.unpack import CHUNK_BYTES

MEDIA_TYPES = {
    ".csv": "text/csv",
    ".jsonl": "application/jsonl",
    ".ndjson": "application/x-ndjson",
    ".parquet": "application/vnd.apache.parquet",
    ".zst": "application/zstd",
    ".gz": "application/gzip",
    ".bz2": "application/x-bzip2",
}
# What S3 takes for the tags of an object.
MAX_TAGS, MAX_KEY, MAX_VALUE = 10, 128, 256
TAG = re.compile(r"[\w +\-=.:/@]*")


class TagType(click.ParamType):
    """A tag as key=value, such as S3 takes them."""

    name = "key=value"

    def convert(self, value: str, parameter: object, context: object) -> tuple[str, str]:
        """Parse the option's text; a wrong one is a usage error."""
        key, sign, text = str(value).partition("=")
        if not sign or not key or not TAG.fullmatch(key) or not TAG.fullmatch(text):
            self.fail(
                f"{value!r}: expected key=value, of letters, digits, spaces and + - = . _ : / @"
            )
        if len(key) > MAX_KEY or len(text) > MAX_VALUE or key.lower().startswith("aws:"):
            self.fail(
                f"{value!r}: expected a key of {MAX_KEY} characters at most that does not begin"
                f" with aws:, and a value of {MAX_VALUE}"
            )
        return key, text


class FolderType(click.ParamType):
    """The folder of a table, as source/table."""

    name = "source/table"

    def convert(self, value: str, parameter: object, context: object) -> str:
        """Check the option's text; a wrong one is a usage error."""
        if not re.fullmatch(f"{TABLE_PART}/{TABLE_PART}", str(value)):
            self.fail(
                f"{value!r}: expected <source>/<table>, each of lower-case letters, digits and"
                " single underscores, such as acme/orders"
            )
        return value


@click.command(help=__doc__)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--to", "folder", required=True, type=FolderType(), help="Where they belong.")
@click.option("--tag", "tags", multiple=True, type=TagType(), help="A tag; may be given often.")
@landing_option
@click.option("--by", help="Who puts them there.  [default: user@host]")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object per file.")
def main(
    files: tuple[Path, ...],
    folder: str,
    tags: tuple[tuple[str, str], ...],
    landing: str | None,
    by: str | None,
    as_json: bool,
) -> None:
    """Run the command. The text of `--help` is the module's."""
    interrupts.raise_them()
    names = Counter(file.name for file in files)
    if twice := [name for name, count in names.items() if count > 1]:
        raise click.UsageError(f"more than one file is called {twice[0]}: land them one by one")
    by = by or f"{user_name()}@{socket.gethostname()}"
    failed = False
    try:
        zone = open_landing(landing or OWN_LANDING)
        with zone.arriving(folder) as copies:
            for file in files:
                try:
                    status, note = land(file, f"{folder}/{file.name}", dict(tags), by, zone, copies)
                except (FileRefused, OSError) as error:
                    reason = getattr(error, "strerror", None) or str(error)
                    click.echo(f"Error: {file}: {reason[0].lower()}{reason[1:]}", err=True)
                    failed = True
                    continue
                say(status, zone.shown(f"{folder}/{file.name}"), note, as_json=as_json)
    except OSError as error:
        raise LoadError(f"{error.filename}: {(error.strerror or str(error)).lower()}") from error
    except KeyboardInterrupt:
        click.echo("Interrupted. Each file is there whole or not at all; run again.", err=True)
        sys.exit(interrupts.INTERRUPTED)
    sys.exit(failed)


def user_name() -> str:
    """Return the name of who runs this; the number of who has no name, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def land(
    path: Path, name: str, tags: dict[str, str], by: str, zone: Landing, copies: Path
) -> tuple[str, Note]:
    """Put one file into the landing zone; return what became of it, and its note.

    That is `new`, `replaced` (the old version is kept), `tagged` (the same bytes, other tags) or
    `unchanged`. Raises FileRefused for what is no file that can be landed, and OSError.
    """
    if path.name.startswith("."):
        raise FileRefused("a hidden name, which a load passes over: rename it")
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise FileRefused("its name is not UTF-8: rename it") from None
    if not path.is_file():
        path.stat()
        raise FileRefused("is not a regular file")
    copy = copies / "copy"
    object_id = copied(path, copy)
    received = datetime.now(UTC).isoformat(timespec="microseconds")
    note = Note(object_id, media_type(path.name), received, by, tags)
    there = zone.there(name)
    if there is None or zone.id_of(there) != object_id:
        check_number(tags)
        zone.put(name, copy, note)
        return ("replaced" if there else "new"), note
    old = zone.note(there)
    merged = (old.tags if old else {}) | tags
    if old and merged == old.tags:
        return "unchanged", old
    check_number(merged)
    note = replace(old or note, tags=merged)
    zone.take_note(there, note)
    return "tagged", note


def copied(path: Path, copy: Path) -> str:
    """Copy a file's bytes as they are at this moment; return their SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as source, copy.open("wb") as target:
        before = os.fstat(source.fileno())
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            target.write(chunk)
        after = os.fstat(source.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise FileRefused("it changed while it was read: land it again when it is complete")
    return digest.hexdigest()


def check_number(tags: dict[str, str]) -> None:
    """Raise FileRefused for more tags than an object can have."""
    if len(tags) > MAX_TAGS:
        raise FileRefused(f"it would have {len(tags)} tags: expected {MAX_TAGS} at most")


def media_type(name: str) -> str:
    """Return the media type that a name tells."""
    known = MEDIA_TYPES.get(Path(name).suffix.lower())
    return known or mimetypes.guess_type(name)[0] or "application/octet-stream"


def say(status: str, shown: str, note: Note, *, as_json: bool) -> None:
    """Tell what became of a file."""
    if as_json:
        facts = {"status": status, "file": shown, **vars(note)}
        click.echo(json.dumps(facts, ensure_ascii=False))
    else:
        click.echo(f"{status:9}  {note.object_id}  {click.format_filename(shown)}")


if __name__ == "__main__":
    main()
