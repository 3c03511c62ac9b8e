"""The formats of files that can be loaded: who scans and who reads which."""

from importlib import import_module

from ingest.columns import Source
from ingest.landing import JSON_LINES, PARQUET, LandedFile
from ingest.read import Job, Reading, read_file
from ingest.scan import Scan, scan_file


def scan(file: LandedFile, source: Source) -> Scan:
    """Read a file once, before any parser, as its format asks for.

    Raises FileRefused for a file that cannot be read, and OSError where it cannot be opened.
    """
    if file.form == JSON_LINES:
        return import_module("ingest.json_lines").scan_json_lines(file)
    if file.form == PARQUET:
        return import_module("ingest.parquet").scan_parquet(file)
    return scan_file(file, source)


def read(job: Job) -> Reading:
    """Write the records of a scanned file to Parquet, as its format asks for.

    Raises FileRefused where too many records are broken or something is not accounted for.
    """
    if job.scan.form == JSON_LINES:
        return import_module("ingest.json_lines").read_json_lines(job)
    if job.scan.form == PARQUET:
        return import_module("ingest.parquet").read_parquet(job)
    return read_file(job)
