"""The marts that a warehouse holds, and when each of their months was built."""

from dataclasses import dataclass

import pyarrow as pa

from ingest.engine import Engine
from ingest.errors import LoadError

MARTS = "marts"
MONTH = "flight_month"
# Names of facts, which are large, begin so; all other marts are published as a whole.
FACTS = "fct_"
# What DuckDB may take while it writes them elsewhere.
MEMORY_LIMIT = "1GB"


@dataclass(frozen=True)
class Mart:
    """A mart in the warehouse.

    `months` says of each month when it was built, as the builds' own record has it; it is empty
    for a mart that is not published by month, and where nothing is recorded.
    """

    name: str
    columns: pa.Schema
    by_month: bool
    months: dict[str, str]

    def select(self, months: list[str] | None = None) -> str:
        """Return the query of its rows: all, or those of some months."""
        literals = ", ".join(f"date '{month}'" for month in months or [])
        where = f" where {MONTH} in ({literals})" if months else ""
        return f"select * from {MARTS}.{self.name}{where}"


def marts(engine: Engine) -> list[Mart]:
    """Return the marts that the warehouse holds. Raises LoadError where there is none."""
    tables = engine.query(
        "select table_name from information_schema.tables where table_schema = ?"
        # What a killed build leaves.
        " and position('__dbt_' in table_name) = 0 order by table_name",
        [MARTS],
    )
    if not tables:
        raise LoadError(f"{engine.database} has no marts: `dbt build` makes them")
    built = built_months(engine)
    found = []
    for name in (table["table_name"] for table in tables):
        with engine.rows(f"select * from {MARTS}.{name} where false") as rows:
            columns = rows.schema
        by_month = name.startswith(FACTS) and MONTH in columns.names
        found.append(Mart(name, columns, by_month, built.get(name, {}) if by_month else {}))
    return found


def built_months(engine: Engine) -> dict[str, dict[str, str]]:
    """Return when each month of each model was built last, from the builds' own record."""
    schema, table = "intermediate", "int_build_events"
    if not engine.query(
        "select 1 as one from information_schema.tables where table_schema = ? and table_name = ?",
        [schema, table],
    ):
        return {}
    months: dict[str, dict[str, str]] = {}
    for row in engine.query(
        "select node_name, part, event_number, cast(happened_at as varchar) as happened_at from"
        " (select *, row_number() over (partition by node_name, part order by event_number desc)"
        f" as age from {schema}.{table} where event_type = 'built') as built where age = 1"
        " order by node_name, part"
    ):
        made = f"{row['happened_at']}, event {row['event_number']}"
        months.setdefault(row["node_name"], {})[row["part"]] = made
    return months
