{#-
    dbt-spark's own go through moments, multiply only the last part of a sum, and make expressions
    so long that Spark cannot compile them.
-#}
{% macro spark__dateadd(datepart, interval, from_date_or_timestamp) -%}
    dateadd({{ datepart }}, {{ interval }}, {{ from_date_or_timestamp }})
{%- endmacro %}

{#- How many ends of the unit lie between, as DuckDB and PostgreSQL have it. -#}
{% macro spark__datediff(first_date, second_date, datepart) -%}
    timestampdiff(
        {{ datepart }},
        date_trunc('{{ datepart }}', {{ first_date }}),
        date_trunc('{{ datepart }}', {{ second_date }})
    )
{%- endmacro %}
