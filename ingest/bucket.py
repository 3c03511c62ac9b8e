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

import fsspec

from ingest.errors import FileRefused, LoadError
from ingest.landing import LandedFile, Landing, Place, Stamp

# So many bytes of copies wait on disk between being checked and being loaded; what is beyond is
# fetched twice.
KEPT_BYTES = 2 << 30
EXTRAS = {"s3": "ontime[s3]", "s3a": "ontime[s3]", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs",
          "abfs": "adlfs", "abfss": "adlfs"}  # fmt: skip
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
                raise LoadError(f"{path} does not exist: expected an object or folder in {self}")
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
        source, table, *_ = name.split("/")
        stamp = self._seen.get(name) or self._all.get(name)
        return LandedFile(source, table, Path(name), name, url=self.shown(name), seen=stamp)

    def fetch(self, file: LandedFile) -> LandedFile:
        """Copy an object to disk, unless it is there; return the file with the copy's path.

        Raises FileRefused where it is no longer what it was when it was listed, or goes meanwhile,
        and LoadError where the store cannot be reached.
        """
        copy = self._folder / hashlib.sha256(file.url.encode()).hexdigest()
        if file.url not in self._copies:
            self._make_room(file.seen.size)
            with self._understood(file.url, is_object=True):
                self.store.get_file(self._key(file.url), str(copy))
                stamp = _stamp(self.store.info(self._key(file.url)))
            if not stamp.is_same(file.seen) or copy.stat().st_size != stamp.size:
                copy.unlink()
                raise FileRefused("it changed while it was read: load it again when it is complete")
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

    @contextmanager
    def _understood(self, url: str, *, is_object: bool = False) -> Iterator[None]:
        """Turn what the libraries say into one line: of one object into FileRefused.

        An object that is gone or not allowed is its own problem; a store that cannot be reached
        ends the load.
        """
        try:
            yield
        except Exception as error:
            reason = _in_one_line(error)
            if is_object and isinstance(error, FileNotFoundError):
                raise FileRefused("it disappeared while it was read") from error
            if is_object and isinstance(error, PermissionError):
                raise FileRefused(f"it cannot be read: {reason}") from error
            raise LoadError(f"{url} cannot be read: {reason}{_hint(error)}") from error


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _hint(error: Exception) -> str:
    """Say what to do, by the names that errors have in the packages of the stores."""
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
