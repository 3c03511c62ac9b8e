"""dlt: as dlt_rows, but told to load Parquet files in place of SQL statements."""

# /// script
# dependencies = ["dlt[duckdb,filesystem]", "duckdb<2", "pandas", "pyarrow"]
# ///

import runpy
import sys
from pathlib import Path

sys.argv.append("parquet")
runpy.run_path(str(Path(__file__).with_name("dlt_rows.py")))
