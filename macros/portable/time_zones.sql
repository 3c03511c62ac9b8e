{#- The default variants are those of DuckDB and PostgreSQL, which have these functions in common. -#}
{% macro local_to_utc(local_timestamp, time_zone) %}
    {{- return(adapter.dispatch('local_to_utc', 'ontime')(local_timestamp, time_zone)) -}}
{% endmacro %}

{% macro default__local_to_utc(local_timestamp, time_zone) -%}
    timezone('UTC', timezone({{ time_zone }}, {{ local_timestamp }}))
{%- endmacro %}

{#- Spark takes the first of two equal wall clock times, an hour before the second. -#}
{% macro spark__local_to_utc(local_timestamp, time_zone) -%}
    {%- set first = "convert_timezone(" ~ time_zone ~ ", 'UTC', " ~ local_timestamp ~ ")" -%}
    {%- set second = first ~ " + interval 1 hour" -%}
    case
        when convert_timezone('UTC', {{ time_zone }}, {{ second }}) = {{ local_timestamp }}
            then {{ second }}
        else {{ first }}
    end
{%- endmacro %}

{% macro utc_to_local(utc_timestamp, time_zone) %}
    {{- return(adapter.dispatch('utc_to_local', 'ontime')(utc_timestamp, time_zone)) -}}
{% endmacro %}

{% macro default__utc_to_local(utc_timestamp, time_zone) -%}
    timezone({{ time_zone }}, timezone('UTC', {{ utc_timestamp }}))
{%- endmacro %}

{% macro spark__utc_to_local(utc_timestamp, time_zone) -%}
    convert_timezone('UTC', {{ time_zone }}, {{ utc_timestamp }})
{%- endmacro %}

{#- The names of the time zones that the engine knows: a query with the column `name`. -#}
{% macro time_zone_names() %}
    {{- return(adapter.dispatch('time_zone_names', 'ontime')()) -}}
{% endmacro %}

{% macro default__time_zone_names() -%}
    select name from pg_timezone_names()
{%- endmacro %}

{#- Spark has no list of its own: it is Java that knows the zones. -#}
{% macro spark__time_zone_names() -%}
    select explode(split(
        trim(both '[]' from java_method('java.time.ZoneId', 'getAvailableZoneIds')), ', '
    )) as name
{%- endmacro %}
