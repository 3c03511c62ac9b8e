"""ingestr, the newest release, which fetches its program when it is first run."""

# /// script
# dependencies = ["ingestr"]
# ///

import os
import sys
from pathlib import Path

csv, database = sys.argv[1:]
program = Path(sys.executable).with_name("ingestr")
source = ["--source-uri", f"csv://{csv}", "--source-table", "flights"]
destination = ["--dest-uri", f"duckdb:///{database}", "--dest-table", "main.flights"]
os.execv(program, [program, "ingest", "--yes", "--progress", "log", *source, *destination])
