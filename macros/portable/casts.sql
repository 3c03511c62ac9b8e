{% macro cast_or_null(expression, type) %}
    {%- if type not in castable_texts() -%}
        {{- exceptions.raise_compiler_error('cast_or_null knows no type ' ~ type) -}}
    {%- endif -%}
    {%- set text = {
        'whole_number': "split_part(" ~ expression ~ ", '.', 1)",
        'timestamp': "trim(trailing 'Z' from " ~ expression ~ ")",
    }.get(type, expression) -%}
    {%- set sql_type = {
        'whole_number': 'integer',
        'double': type_double(),
        'timestamp': dbt.type_timestamp(),
    }.get(type, type) -%}
    {{- return(adapter.dispatch('cast_or_null', 'ontime')(
        expression, castable_texts()[type], text, sql_type
    )) -}}
{% endmacro %}

{#-
    What an engine's own cast takes differs: DuckDB reads '1.5' and '1e3' as integers and '1e999' as
    infinity, PostgreSQL '24:00:00' as a time of day and no year 0. The pattern decides on every
    engine alike; the engine refuses only what no pattern can tell: 30 February, integers out of
    range.
-#}
{% macro castable_texts() %}
    {%- set date = '[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}' -%}
    {{- return({
        'integer': '[+-]?[0-9]{1,10}',
        'whole_number': '[+-]?[0-9]{1,10}([.]0*)?',
        'double': '[+-]?([0-9]{1,99}[.]?[0-9]{0,99}|[.][0-9]{1,99})([eE][+-]?[0-9]{1,2})?',
        'date': date,
        'timestamp': date ~ '[ T]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z?',
    }) -}}
{% endmacro %}

{% macro duckdb__cast_or_null(expression, pattern, text, sql_type) -%}
    case
        when regexp_full_match({{ expression }}, '{{ pattern }}')
            then try_cast({{ text }} as {{ sql_type }})
    end
{%- endmacro %}

{#- A case decides in order: what is no valid input is never cast. -#}
{% macro postgres__cast_or_null(expression, pattern, text, sql_type) -%}
    case
        when {{ expression }} !~ '^({{ pattern }})$' then null
        when pg_input_is_valid({{ text }}, '{{ sql_type }}') then cast({{ text }} as {{ sql_type }})
    end
{%- endmacro %}

{#- The end is \z, since $ would also be before a last line end. -#}
{% macro spark__cast_or_null(expression, pattern, text, sql_type) -%}
    case
        when regexp_like({{ expression }}, '^({{ pattern }})\\z')
            then try_cast({{ text }} as {{ sql_type }})
    end
{%- endmacro %}
