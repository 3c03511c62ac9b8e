{#- The default variants are those of DuckDB and PostgreSQL, which have these functions in common. -#}
{% macro local_to_utc(local_timestamp, time_zone) %}
    {{- return(adapter.dispatch('local_to_utc', 'ontime')(local_timestamp, time_zone)) -}}
{% endmacro %}

{% macro default__local_to_utc(local_timestamp, time_zone) -%}
    timezone('UTC', timezone({{ time_zone }}, {{ local_timestamp }}))
{%- endmacro %}

{% macro utc_to_local(utc_timestamp, time_zone) %}
    {{- return(adapter.dispatch('utc_to_local', 'ontime')(utc_timestamp, time_zone)) -}}
{% endmacro %}

{% macro default__utc_to_local(utc_timestamp, time_zone) -%}
    timezone({{ time_zone }}, timezone('UTC', {{ utc_timestamp }}))
{%- endmacro %}

{#- The names of the time zones that the engine knows: a query with the column `name`. -#}
{% macro time_zone_names() %}
    {{- return(adapter.dispatch('time_zone_names', 'ontime')()) -}}
{% endmacro %}

{% macro default__time_zone_names() -%}
    select name from pg_timezone_names()
{%- endmacro %}
