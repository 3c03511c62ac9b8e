{% macro text_or_null(column) -%}
    nullif(nullif({{ column }}, 'NA'), '')
{%- endmacro %}

{% macro raw_cast(column, type) -%}
    {{ cast_or_null(text_or_null(column), type) }}
{%- endmacro %}

{% macro date_from_parts_or_null(year, month, day) -%}
    {{ cast_or_null(
        dbt.concat([year, "'-'", "lpad(" ~ month ~ ", 2, '0')", "'-'", "lpad(" ~ day ~ ", 2, '0')"]),
        'date'
    ) }}
{%- endmacro %}
