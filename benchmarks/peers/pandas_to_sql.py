"""pandas: `read_csv`, `to_sql` (SQLAlchemy, duckdb-engine)."""

# /// script
# dependencies = ["duckdb<2", "duckdb-engine", "pandas", "sqlalchemy"]
# ///

import sys

import pandas as pd
from sqlalchemy import create_engine

csv, database = sys.argv[1:]
pd.read_csv(csv).to_sql("flights", create_engine(f"duckdb:///{database}"), index=False)
