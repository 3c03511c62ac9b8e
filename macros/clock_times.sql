{% macro hhmm_to_minutes(hhmm) -%}
    (cast(floor({{ hhmm }} / 100.0) as integer) * 60 + mod({{ hhmm }}, 100))
{%- endmacro %}

{% macro add_minutes(minutes, timestamp) -%}
    cast({{ dbt.dateadd('minute', minutes, timestamp) }} as {{ dbt.type_timestamp() }})
{%- endmacro %}

{% macro minutes_between(start, end) -%}
    cast({{ dbt.datediff(start, end, 'minute') }} as integer)
{%- endmacro %}
