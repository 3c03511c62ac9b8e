"""The macros in macros/portable/, and those that rest on them, answer the same on each engine."""

import json
from pathlib import Path

import pytest

from .conftest import Box, SparkBox, run_dbt

# For each expression over the texts `a` and `b`: what they are, and what is expected, as text.
ANSWERS: dict[str, list[tuple[str | None, ...]]] = {
    "{{ cast_or_null('a', 'integer') }}": [
        ("12", "12"),
        ("-5", "-5"),
        ("+7", "7"),
        ("0005", "5"),
        ("-0", "0"),
        ("2147483647", "2147483647"),
        ("-2147483648", "-2147483648"),
        ("2147483648", None),
        ("9999999999", None),
        ("12345678901", None),
        ("1.5", None),
        ("1e3", None),
        ("0x1f", None),
        ("1_000", None),
        ("1,000", None),
        (" 12", None),
        ("12 ", None),
        ("12\n", None),
        ("12a", None),
        ("--5", None),
        ("+", None),
        ("١٢", None),
        ("NA", None),
        ("", None),
        (None, None),
    ],
    "{{ cast_or_null('a', 'whole_number') }}": [
        ("12", "12"),
        ("12.00", "12"),
        ("12.", "12"),
        ("-3.0", "-3"),
        ("2400.00", "2400"),
        ("12.50", None),
        (".0", None),
        ("12.0.0", None),
        ("9999999999.0", None),
        ("", None),
        (None, None),
    ],
    "{{ cast_or_null('a', 'double') }}": [
        ("1.5", "1.5"),
        ("-0.25", "-0.25"),
        (".5", "0.5"),
        ("5.", "5.0"),
        ("1e3", "1000.0"),
        ("-1E-2", "-0.01"),
        ("16777217", "16777217.0"),
        ("0.1234567890123", "0.1234567890123"),
        ("9e99", "9.0e99"),
        ("1e-99", "1.0e-99"),
        ("1e999", None),
        ("1e-999", None),
        ("1e", None),
        ("nan", None),
        ("Infinity", None),
        ("1,5", None),
        (" 1.5", None),
        ("", None),
        (None, None),
    ],
    "{{ cast_or_null('a', 'date') }}": [
        ("2013-01-31", "2013-01-31"),
        ("2024-02-29", "2024-02-29"),
        ("2000-02-29", "2000-02-29"),
        ("2023-02-29", None),
        ("1900-02-29", None),
        ("2013-04-31", None),
        ("2013-13-01", None),
        ("2013-00-10", None),
        ("0000-01-01", None),
        ("2013-1-1", None),
        ("2013", None),
        ("2013-01-31 00:00:00", None),
        ("today", None),
        ("", None),
        (None, None),
    ],
    "{{ timestamp_text(cast_or_null('a', 'timestamp')) }}": [
        ("2013-01-31T23:59:59Z", "2013-01-31 23:59:59"),
        ("2013-01-31 23:59:59", "2013-01-31 23:59:59"),
        ("2024-02-29T00:00:00Z", "2024-02-29 00:00:00"),
        ("2023-02-29T00:00:00Z", None),
        ("2013-01-31T24:00:00Z", None),
        ("2013-01-31T23:59:60Z", None),
        ("2013-01-31T23:60:00Z", None),
        ("2013-01-31T10:00:00+02:00", None),
        ("2013-01-31T10:00:00.5Z", None),
        ("2013-01-31", None),
        ("", None),
        (None, None),
    ],
    "{{ date_from_parts_or_null('a', \"'2'\", 'b') }}": [
        ("2024", "29", "2024-02-29"),
        ("2024", "5", "2024-02-05"),
        ("2023", "29", None),
        ("2023", "", None),
        (None, "1", None),
    ],
    "{{ written_date_or_null('a') }}": [
        ("1/31/2023", "2023-01-31"),
        ("2/29/2024 12:00:00 AM", "2024-02-29"),
        ("2/29/2023", None),
        ("2023-01-31 00:00", "2023-01-31"),
        ("2023-01-31 00:01", None),
        ("31/1/2023", None),
        (None, None),
    ],
    # Standard time and daylight saving time, the hour that is skipped, and the one that repeats.
    "{{ timestamp_text(local_to_utc(at_a, 'b')) }}": [
        ("2013-01-01 05:15:00", "America/New_York", "2013-01-01 10:15:00"),
        ("2013-07-01 05:15:00", "America/New_York", "2013-07-01 09:15:00"),
        ("2013-03-10 01:59:00", "America/New_York", "2013-03-10 06:59:00"),
        ("2013-03-10 02:30:00", "America/New_York", "2013-03-10 07:30:00"),
        ("2013-03-10 03:00:00", "America/New_York", "2013-03-10 07:00:00"),
        ("2013-11-03 00:59:00", "America/New_York", "2013-11-03 04:59:00"),
        ("2013-11-03 01:00:00", "America/New_York", "2013-11-03 06:00:00"),
        ("2013-11-03 01:30:00", "America/New_York", "2013-11-03 06:30:00"),
        ("2013-11-03 02:00:00", "America/New_York", "2013-11-03 07:00:00"),
        ("1987-04-05 02:30:00", "America/Chicago", "1987-04-05 08:30:00"),
        ("1987-10-25 01:30:00", "America/Chicago", "1987-10-25 07:30:00"),
        ("2005-07-01 12:00:00", "America/Indiana/Indianapolis", "2005-07-01 17:00:00"),
        ("2007-07-01 12:00:00", "America/Indiana/Indianapolis", "2007-07-01 16:00:00"),
        ("2013-07-01 12:00:00", "America/Phoenix", "2013-07-01 19:00:00"),
        ("2024-02-29 23:00:00", "Pacific/Honolulu", "2024-03-01 09:00:00"),
        ("2013-07-01 12:00:00", "Pacific/Guam", "2013-07-01 02:00:00"),
        ("2013-07-01 12:00:00", None, None),
        (None, "America/New_York", None),
    ],
    "{{ timestamp_text(utc_to_local(at_a, 'b')) }}": [
        ("2013-03-10 06:59:00", "America/New_York", "2013-03-10 01:59:00"),
        ("2013-03-10 07:00:00", "America/New_York", "2013-03-10 03:00:00"),
        ("2013-11-03 05:30:00", "America/New_York", "2013-11-03 01:30:00"),
        ("2013-11-03 06:30:00", "America/New_York", "2013-11-03 01:30:00"),
        ("2013-11-03 07:30:00", "America/New_York", "2013-11-03 02:30:00"),
        ("2024-03-01 09:00:00", "Pacific/Honolulu", "2024-02-29 23:00:00"),
        ("2013-07-01 02:00:00", "Pacific/Guam", "2013-07-01 12:00:00"),
        ("2013-07-01 02:00:00", None, None),
        (None, "America/New_York", None),
    ],
    "{{ hhmm_to_minutes('cast(a as integer)') }}": [
        ("0", "0"),
        ("5", "5"),
        ("59", "59"),
        ("100", "60"),
        ("2359", "1439"),
        ("2400", "1440"),
        (None, None),
    ],
    "{{ timestamp_text(add_minutes('cast(b as integer)', at_a)) }}": [
        ("2013-01-01 00:00:00", "1440", "2013-01-02 00:00:00"),
        ("2013-01-01 00:10:00", "-15", "2012-12-31 23:55:00"),
        ("2024-02-28 23:59:00", "1", "2024-02-29 00:00:00"),
        ("2013-01-01 00:00:00", "0", "2013-01-01 00:00:00"),
        ("2013-01-01 00:00:00", None, None),
        (None, "5", None),
    ],
    "{{ minutes_between(at_a, at_b) }}": [
        ("2013-01-01 00:00:00", "2013-01-02 00:00:00", "1440"),
        ("2013-01-01 00:10:00", "2012-12-31 23:55:00", "-15"),
        ("2024-02-28 12:00:00", "2024-03-01 12:00:00", "2880"),
        (None, "2024-03-01 12:00:00", None),
    ],
    "{{ dbt.datediff('cast(a as date)', 'cast(b as date)', 'day') }}": [
        ("2024-02-28", "2024-03-01", "2"),
        ("2023-02-28", "2023-03-01", "1"),
        ("2024-03-01", "2024-02-28", "-2"),
        ("2024-03-01", None, None),
    ],
    "{{ dbt.datediff('cast(a as date)', 'cast(b as date)', 'month') }}": [
        ("2023-12-31", "2024-01-01", "1"),
        ("2024-01-01", "2024-01-31", "0"),
        ("2024-01-31", "2022-12-01", "-13"),
    ],
    "cast({{ dbt.dateadd('month', 1, 'cast(a as date)') }} as date)": [
        ("2024-01-31", "2024-02-29"),
        ("2023-01-31", "2023-02-28"),
        ("2023-12-15", "2024-01-15"),
        (None, None),
    ],
    "cast({{ dbt.dateadd('day', -1, 'cast(a as date)') }} as date)": [
        ("2024-03-01", "2024-02-29"),
        ("2024-01-01", "2023-12-31"),
    ],
    "cast(cast(a as numeric(12, 2)) * 3 as numeric(12, 2))": [
        ("0.10", "0.30"),
        ("-7.05", "-21.15"),
    ],
    "{{ hash_key(['a', 'b']) }}": [
        ("2013-01-01", "UA", "21d0d91dd9d2fe82730e3d2068108f6c"),
        ("é", None, "2f204cd52da504f9cb4104f9e821d9c9"),
        (None, None, "b99834bc19bbad24580b3adfa04fb947"),
    ],
    "cast(cast(a as {{ type_double() }}) as bigint)": [("16777217", "16777217")],
    "(select count(*) from ({{ time_zone_names() }}) as zones where name = a)": [
        ("America/New_York", "1"),
        ("Pacific/Guam", "1"),
        ("America/Indiana/Indianapolis", "1"),
        ("America/Nowhere", "0"),
    ],
}
# What `at_a` and `at_b` are in them.
TIMES = "".join(
    f"{{% set at_{name} = 'cast({name} as ' ~ dbt.type_timestamp() ~ ')' %}}" for name in "ab"
)
# For each expression over the integers `x`: what they are, and what is expected.
AGGREGATES: dict[str, list[tuple[tuple[int | None, ...], str | None]]] = {
    "{{ percentile(0.5, 'x') }}": [
        ((1, 2, 3, 4), "2.5"),
        ((3, 1, None, 2), "2.0"),
        ((-15, 5), "-5.0"),
        ((None,), None),
    ],
    "{{ ordered_list('cast(x as ' ~ dbt.type_string() ~ ')', 'x') }}": [
        ((3, 10, None, 2), "2,3,10"),
        ((None,), None),
    ],
    "{{ percentile(0.9, 'x') }}": [((0, 10), "9.0"), ((7,), "7.0")],
}


def literal(value: object) -> str:
    """A value in SQL."""
    return "null" if value is None else "'" + str(value).replace("'", "''") + "'"


def question() -> tuple[str, list[tuple[str, tuple, str | None]]]:
    """One query for all cases, numbered; and the cases: expression, input and expected answer.

    Each expression has its own inputs: Spark would also compute it of others before it leaves them.
    """
    cases, selects = [], []
    text = "cast({} as {{{{ dbt.type_string() }}}})".format
    for expression, answers in ANSWERS.items():
        inputs = []
        for *given, expected in answers:
            a, b = (*given, None)[:2]
            inputs.append(
                f"select {len(cases)} as number, {text(literal(a))} as a, {text(literal(b))} as b"
            )
            cases.append((expression, tuple(given), expected))
        selects.append(
            f"select number, '=' || {text(expression)} as found"
            f" from ({' union all '.join(inputs)}) as inputs"
        )
    for expression, answers in AGGREGATES.items():
        for given, expected in answers:
            rows = " union all ".join(f"select cast({literal(x)} as integer) as x" for x in given)
            selects.append(
                f"select {len(cases)} as number, '=' || {text(expression)} as found"
                f" from ({rows}) as numbers"
            )
            cases.append((expression, given, expected))
    return TIMES + " union all ".join(selects), cases


@pytest.mark.parametrize(
    "box", ["duckdb", "postgres", pytest.param("spark", marks=pytest.mark.spark)], indirect=True
)
def test_macros_answer_as_the_table_says(box: Box) -> None:
    query, cases = question()
    result = run_dbt("--quiet", "show", "--limit", "-1", "--output", "json", "--inline", query,
                     database=box.database, **box.variables)  # fmt: skip
    assert result.returncode == 0, result.stdout
    rows = json.loads(result.stdout)["show"]
    found = {row["number"]: row["found"] and row["found"].removeprefix("=") for row in rows}
    assert len(found) == len(cases)
    wrong = [
        f"{expression} of {given}: {found[number]}, expected {expected}"
        for number, (expression, given, expected) in enumerate(cases)
        if not same(found[number], expected)
    ]
    assert wrong == []


def same(found: str | None, expected: str | None) -> bool:
    """Tell whether two texts are equal, numbers with a fraction by their value."""
    if found is None or expected is None or "." not in expected:
        return found == expected
    return float(found) == float(expected)


@pytest.mark.spark
def test_spark_sends_no_large_table_whole(spark_box: SparkBox, landing: Path) -> None:
    """Many rows can be small in a file, and more than a worker has room for in memory."""
    spark_box.load("--landing", landing)
    planned = """
        {% if execute %}
            {% do register_raw_tables() %}
            {% set plan = run_query("explain select one.tailnum from raw.nycflights13_flights as one
                inner join raw.nycflights13_flights as other on one.tailnum = other.tailnum
                ").columns[0].values() | join %}
            select
                {{ plan.count("SortMergeJoin") }} as merged,
                {{ plan.count("Inner, Build") }} as sent
        {% endif %}
    """
    result = run_dbt("--quiet", "show", "--output", "json", "--inline", planned,
                     database=spark_box.database, **spark_box.variables)  # fmt: skip
    assert result.returncode == 0, result.stdout
    [row] = json.loads(result.stdout)["show"]
    assert (row["merged"] > 0, row["sent"]) == (True, 0)
