{% macro cast_or_null(expression, type) %}
    {{- return(adapter.dispatch('cast_or_null', 'ontime')(expression, type)) -}}
{% endmacro %}

{#- DuckDB's own try_cast reads '1.5' and '1e3' as integers: the pattern is what decides. -#}
{% macro duckdb__cast_or_null(expression, type) %}
    {%- set patterns = {
        'integer': '[+-]?[0-9]{1,10}',
        'whole_number': '[+-]?[0-9]{1,10}([.]0*)?',
        'double': '[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?',
        'date': '[0-9]{4}-[0-9]{2}-[0-9]{2}',
        'timestamp': '[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}Z?',
    } -%}
    {%- if type not in patterns -%}
        {{- exceptions.raise_compiler_error('cast_or_null knows no type ' ~ type) -}}
    {%- endif -%}
    {%- set text = {
        'whole_number': "split_part(" ~ expression ~ ", '.', 1)",
        'timestamp': "rtrim(" ~ expression ~ ", 'Z')",
    }.get(type, expression) -%}
    case
        when regexp_full_match({{ expression }}, '{{ patterns[type] }}')
            then try_cast({{ text }} as {{ 'integer' if type == 'whole_number' else type }})
    end
{%- endmacro %}

{% macro type_double() %}
    {{- return(adapter.dispatch('type_double', 'ontime')()) -}}
{% endmacro %}

{% macro duckdb__type_double() %}double{% endmacro %}
