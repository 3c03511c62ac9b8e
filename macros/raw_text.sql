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
