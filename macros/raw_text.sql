{% macro text_or_null(column) -%}
    nullif(nullif({{ column }}, 'NA'), '')
{%- endmacro %}

{% macro raw_cast(column, type) -%}
    {{ cast_or_null(text_or_null(column), type) }}
{%- endmacro %}

{% macro date_from_parts_or_null(year, month, day) -%}
    {{ cast_or_null(
        dbt.concat([year, "'-'", two_digits(month), "'-'", two_digits(day)]), 'date'
    ) }}
{%- endmacro %}

{% macro two_digits(column) -%}
    case when length({{ column }}) = 1 then '0' || {{ column }} else {{ column }} end
{%- endmacro %}

{#-
    A date as 2023-01-31 or, as Americans write it, 1/31/2023; a time after it must be midnight.
    Spreadsheets and databases write dates so.
-#}
{% macro written_date_or_null(expression) -%}
    {%- set date = "split_part(" ~ expression ~ ", ' ', 1)" -%}
    case
        when {{ expression }} not like '% %'
            or substr({{ expression }}, length({{ date }}) + 2) in (
                '0:00', '00:00', '0:00:00', '00:00:00', '12:00 AM', '12:00:00 AM'
            )
            then {{ cast_or_null(iso_date(date), 'date') }}
    end
{%- endmacro %}

{% macro iso_date(text) -%}
    {%- set part = "split_part(" ~ text ~ ", '/', " -%}
    case
        when {{ text }} like '%/%/%/%' then null
        when {{ text }} like '%/%/%'
            then {{ part }}3) || '-' || {{ two_digits(part ~ "1)") }} || '-' || {{ two_digits(part ~ "2)") }}
        else {{ text }}
    end
{%- endmacro %}
