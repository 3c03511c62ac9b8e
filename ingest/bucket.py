"""A landing zone in a bucket: any store that fsspec has a package for, such as s3fs for s3://."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlencode

import fsspec

from ingest.errors import LoadError, NotThere, Unread
from ingest.landing import HIDDEN, LandedFile, Landing, Note, Place, Stamp, kept_name
from ingest.unpack import CHUNK_BYTES

# So many bytes of copies wait on disk between being checked and being loaded; what is beyond is
# fetched twice.
KEPT_BYTES = 2 << 30
EXTRAS = {"s3": "ontime[s3]", "s3a": "ontime[s3]", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs",
          "abfs": "adlfs", "abfss": "adlfs"}  # fmt: skip
OBJECT_ID, RECEIVED_AT, LANDED_BY = "ontime-id", "ontime-received-at", "ontime-landed-by"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Bucket(Landing):
    """A landing zone below a URL.

    An object is copied to disk as a whole, never held in memory. Where it is and with which
    credentials, the store's own environment variables say, such as AWS_ENDPOINT_URL.
    """

    def __init__(self, url: str):
        """Open the store. Raises LoadError where its package is not installed."""
        self.url = url.rstrip("/")
        scheme, _, path = url.partition("://")
        if not path.strip("/"):
            raise LoadError(f"{url} names no bucket: expected {scheme}://<bucket>/<folder>")
        try:
            # No cache: what lies there may change at any time, by anybody.
            self.store, self.root = fsspec.url_to_fs(
                self.url, use_listings_cache=False, skip_instance_cache=True
            )
        except ImportError as error:
            package = EXTRAS.get(scheme.lower(), "the package that it names")
            raise LoadError(
                f"{url}: the package for {scheme}:// is not installed ({error}): run"
                f" `pip install '{package}'`"
            ) from None
        except Exception as error:
            raise LoadError(f"{url} cannot be opened: {_in_one_line(error)}") from error
        self._is_s3 = "s3" in self.store.protocol
        # In memory at a time: 32 MB of an object that comes, twice 50 MB of one that goes.
        self._in_parts = {"chunksize": 8 << 20, "max_concurrency": 4} if self._is_s3 else {}
        # The stamps of the objects at or below the paths that were asked for.
        self._seen: dict[str, Stamp] = {}
        self._copies: dict[str, Path] = {}

    def __str__(self) -> str:
        """Return the URL."""
        return self.url

    @contextmanager
    def opened(self, workspace: Path | None) -> Iterator[None]:
        """Make ready to fetch files into a folder in `workspace`, or in the system's own."""
        self._folder = Path(tempfile.mkdtemp(prefix="objects-", dir=workspace))
        try:
            yield
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def names(self, paths: Sequence[str]) -> Iterator[str]:
        """Yield the names of the objects there."""
        if not paths:
            yield from self._all
        for path in paths:
            plain = path.rstrip("/")
            if plain != self.url and not plain.startswith(f"{self.url}/"):
                raise LoadError(
                    f"{path} lies outside the landing zone {self}: expected a URL below it"
                )
            found = self._list(plain)
            if not found:
                raise NotThere(f"{path} does not exist: expected an object or folder in {self}")
            self._seen |= found
            yield from found

    @cached_property
    def _all(self) -> dict[str, Stamp]:
        """The stamps of all objects, by name, as they were when they were first asked for."""
        return self._list(self.url)

    def _list(self, url: str) -> dict[str, Stamp]:
        """Return the stamps of the objects at or below a URL, by name; folders' marks are none."""
        with self._understood(url):
            found = self.store.find(self._key(url), detail=True)
        return {
            key.removeprefix(f"{self.root}/"): _stamp(info)
            for key, info in found.items()
            if info["type"] == "file" and not key.endswith("/")
        }

    def _key(self, url: str) -> str:
        return self.root + url.removeprefix(self.url)

    def file(self, name: str) -> LandedFile:
        """Return the object of a name, with the stamp that it had when it was listed."""
        return self._file(name, self._seen.get(name) or self._all.get(name))

    def _file(self, name: str, stamp: Stamp | None) -> LandedFile:
        source, table, *_ = name.split("/")
        return LandedFile(source, table, Path(name), name, url=self.shown(name), seen=stamp)

    def there(self, name: str) -> LandedFile | None:
        """Return the object of a name, with the stamp that it has now."""
        stamp = self._stamp_of(self.shown(name))
        return stamp and self._file(name, stamp)

    def fetch(self, file: LandedFile) -> LandedFile:
        """Copy an object to disk, unless it is there; return the file with the copy's path.

        Raises Unread where it is no longer what it was when it was listed, or goes meanwhile,
        and LoadError where the store cannot be reached.
        """
        copy = self._folder / hashlib.sha256(file.url.encode()).hexdigest()
        if file.url not in self._copies:
            self._make_room(file.seen.size)
            with self._understood(file.url, is_object=True):
                self.store.get_file(self._key(file.url), str(copy), **self._in_parts)
                stamp = _stamp(self.store.info(self._key(file.url)))
            if not stamp.is_same(file.seen) or copy.stat().st_size != stamp.size:
                copy.unlink()
                raise Unread("it changed while it was read: load it again when it is complete")
            self._copies[file.url] = copy
        return replace(file, path=copy)

    def _make_room(self, size: int) -> None:
        """Remove the oldest copies until another of `size` bytes has its place."""
        while self._copies and size + self._size() > KEPT_BYTES:
            self._copies.pop(next(iter(self._copies))).unlink()

    def _size(self) -> int:
        return sum(copy.stat().st_size for copy in self._copies.values())

    def has(self, place: Place) -> bool:
        """Tell whether the bytes that a place had still lie there."""
        for name in (place.name, *map(str, PurePosixPath(place.name).parents)):
            if stamp := self._all.get(name):
                return stamp.is_same(place.stamp)
        return False

    def name_of(self, path: str) -> str:
        """Return the name of an object, of which the URL or the name is given."""
        return path.removeprefix(f"{self.url}/")

    def shown(self, name: str) -> str:
        """Return the URL of an object."""
        return f"{self.url}/{name}"

    def note(self, file: LandedFile, known: Place | None = None) -> Note | None:
        """Return what an object's metadata and tags say.

        A new note changes an object's time: `take_note` sees to that.
        """
        if not self._is_s3 or (known and file.seen and known.modified_us == file.seen.modified_us):
            return None
        url = self.shown(file.archive)
        bucket, key, _ = self.store.split_path(self._key(url))
        with self._understood(url, is_object=True):
            head = self.store.call_s3("head_object", Bucket=bucket, Key=key)
            noted = {name: unquote(value) for name, value in head["Metadata"].items()}
            if not {OBJECT_ID, RECEIVED_AT, LANDED_BY} <= noted.keys():
                return None
            tags = self.store.get_tags(self._key(url))
        return Note(
            noted[OBJECT_ID],
            head["ContentType"],
            noted[RECEIVED_AT],
            noted[LANDED_BY],
            tags,
        )

    def take_note(self, file: LandedFile, note: Note) -> None:
        """Give an object metadata and tags, by copying it onto itself: its time tells of it."""
        with self._understood(file.url, did="changed"):
            self.store.copy(
                self._key(file.url),
                self._key(file.url),
                **_stored(note),
                MetadataDirective="REPLACE",
                TaggingDirective="REPLACE",
                CopySourceIfMatch=f'"{file.seen.etag}"',
            )

    def id_of(self, file: LandedFile) -> str:
        """Return the id of an object: as noted, or by reading it."""
        note = self.note(file)
        if note:
            return note.object_id
        digest = hashlib.sha256()
        with self._understood(file.url), self.store.open(self._key(file.url), "rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    def kept(self) -> Iterator[LandedFile]:
        """Yield the earlier versions of objects."""
        for name in sorted(self._all):
            if f"/{HIDDEN}/versions/" in name:
                yield self.file(name)

    @contextmanager
    def arriving(self, folder: str) -> Iterator[Path]:
        """Yield a folder for copies; the store itself tells of others that put objects there."""
        if not self._is_s3:
            raise LoadError(f"{self}: notes are kept with objects of S3 alone: expected s3://...")
        with tempfile.TemporaryDirectory(prefix="landing-") as copies:
            yield Path(copies)

    def put(self, name: str, copy: Path, note: Note) -> None:
        """Put an object into its place, if what lies there is still what was copied before."""
        url = self.shown(name)
        there = self.there(name)
        if there:
            self._keep(there)
        condition = {"IfMatch": f'"{there.seen.etag}"'} if there else {"mode": "create"}
        with self._understood(url, did="written"):
            self.store.put_file(
                str(copy), self._key(url), max_concurrency=2, **_stored(note), **condition
            )

    def _keep(self, file: LandedFile) -> None:
        """Copy an object within the store, with its note, as an earlier version."""
        note, object_id = self.note(file), self.id_of(file)
        version = self.shown(kept_name(file.name, object_id))
        if self._stamp_of(version):
            return
        with self._understood(version, did="written"):
            # A copy has metadata and tags of its source; in parts (over 5 GB), only what is named.
            self.store.copy(
                self._key(file.url),
                self._key(version),
                **(_stored(note) if note else {}),
                CopySourceIfMatch=f'"{file.seen.etag}"',
            )

    def _stamp_of(self, url: str) -> Stamp | None:
        """Return the stamp of an object as it is now; None where there is none."""
        with self._understood(url):
            try:
                return _stamp(self.store.info(self._key(url)))
            except FileNotFoundError:
                return None

    @contextmanager
    def _understood(
        self, url: str, *, is_object: bool = False, did: str = "read"
    ) -> Iterator[None]:
        """Turn what the libraries say into one line: of one object into Unread.

        An object that is gone or not allowed is its own problem; a store that cannot be reached
        ends the load.
        """
        try:
            yield
        except Exception as error:
            reason = _in_one_line(error)
            if is_object and isinstance(error, FileNotFoundError):
                raise Unread("it disappeared while it was read") from error
            if is_object and isinstance(error, PermissionError):
                raise Unread(f"it cannot be read: {reason}") from error
            raise LoadError(f"{url} cannot be {did}: {reason}{_hint(error)}") from error


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _stored(note: Note) -> dict[str, Any]:
    """Return a note as S3 keeps it: metadata, of which the values are ASCII, and tags."""
    noted = {
        OBJECT_ID: note.object_id,
        RECEIVED_AT: note.received_at,
        LANDED_BY: quote(note.landed_by, safe=" @"),
    }
    return {"ContentType": note.media_type, "Metadata": noted, "Tagging": urlencode(note.tags)}


def _hint(error: Exception) -> str:
    """Say what to do, by the names that errors have in the packages of the stores."""
    answer = getattr(error.__cause__, "response", {}).get("Error", {})
    if answer.get("Code") in ("PreconditionFailed", "ConditionalRequestConflict"):
        return ": somebody else changed it at this moment; run this again"
    name = type(error).__name__
    if "Credentials" in name:
        return ": set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile or role"
    if "Connect" in name:
        return ": is AWS_ENDPOINT_URL right, and the store up?"
    return ""


def _stamp(info: dict[str, Any]) -> Stamp:
    """Read the stamp of an object from what its store's package tells of it."""
    names = ("LastModified", "last_modified", "updated", "mtime", "created")
    modified = next((info[name] for name in names if info.get(name) is not None), EPOCH)
    if isinstance(modified, str):
        modified = datetime.fromisoformat(modified)
    if isinstance(modified, int | float):
        modified = datetime.fromtimestamp(modified, UTC)
    etag = info.get("ETag") or info.get("etag")
    modified_us = (modified.astimezone(UTC) - EPOCH) // timedelta(microseconds=1)
    return Stamp(info["size"], modified_us, etag and etag.strip('"'))
