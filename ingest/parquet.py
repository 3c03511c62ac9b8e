"""Parquet as text: each value as DuckDB casts it to text."""

import hashlib
import json

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.errors import FileRefused
from ingest.landing import PARQUET, LandedFile, Place
from ingest.read import BATCH_ROWS, Job, Reading, Reject, as_pattern, engine, plainly_named
from ingest.scan import Scan
from ingest.unpack import CHUNK_BYTES


def scan_parquet(file: LandedFile) -> Scan:
    """Read a Parquet file once for its hash; its own metadata tell its columns and records.

    Raises FileRefused for one that is damaged, and OSError where it cannot be opened.
    """
    stamp = file.stamp
    digest = hashlib.sha256()
    with file.path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    try:
        with pq.ParquetFile(file.path) as parquet:
            header = tuple(parquet.schema_arrow.names)
            records = parquet.metadata.num_rows
    except pa.ArrowException as error:
        raise FileRefused(f"a damaged Parquet file: {error}; deliver it again") from error
    return Scan(
        file_id=digest.hexdigest(),
        place=Place.of(file.name, stamp, None),
        encoding=None,
        header=header,
        lines=records,
        records=records,
        form=PARQUET,
    )


def read_parquet(job: Job) -> Reading:
    """Write the records of a Parquet file, as text, to another.

    A record with a NUL character is a broken one, since not every warehouse can hold it; its `line`
    is the record's number. Raises FileRefused where too many records are broken or the file is.
    """
    number = 0
    with job.rows() as writer, job.rejects() as rejects:
        try:
            path = plainly_named(job.path, job.parquet.with_suffix(".link"))
            relation = engine().read_parquet(as_pattern(path), hive_partitioning=False)
            quoted = ('"' + name.replace('"', '""') + '"' for name in relation.columns)
            texts = ", ".join(f"cast({name} as varchar)" for name in quoted)
            for batch in relation.project(texts).to_arrow_reader(BATCH_ROWS):
                numbers = pa.array(range(number + 1, number + 1 + batch.num_rows), pa.int64())
                number += batch.num_rows
                job.progress(batch.num_rows)
                is_broken = _has_nul(batch)
                if pc.any(is_broken).as_py():
                    for row, line in zip(
                        batch.filter(is_broken).to_pylist(),
                        numbers.filter(is_broken).to_pylist(),
                        strict=True,
                    ):
                        raw = json.dumps([*row.values()], ensure_ascii=False)
                        rejects.write(Reject(line, "a NUL character", raw))
                    batch, numbers = (
                        each.filter(pc.invert(is_broken)) for each in (batch, numbers)
                    )
                writer.write(batch.columns, numbers)
        except (duckdb.Error, UnicodeDecodeError) as error:
            reason = str(error).splitlines()[0]
            raise FileRefused(f"a damaged Parquet file: {reason}; deliver it again") from error
        if number != job.scan.records:
            raise FileRefused(
                f"it has {number:,} records and says {job.scan.records:,}: deliver it again"
            )
    return rejects.reading(number)


def _has_nul(batch: pa.RecordBatch) -> pa.Array:
    """Tell of each row whether a value has a NUL character."""
    found = pa.array([False] * batch.num_rows) if not batch.num_columns else None
    for column in batch.columns:
        here = pc.fill_null(pc.match_substring(column, "\0"), False)
        found = here if found is None else pc.or_(found, here)
    return found
