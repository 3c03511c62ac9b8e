{% macro type_double() %}
    {{- return(adapter.dispatch('type_double', 'ontime')()) -}}
{% endmacro %}

{% macro default__type_double() %}double{% endmacro %}

{% macro postgres__type_double() %}double precision{% endmacro %}

{#- A moment, that is a time with its zone; models have times in UTC or wall clock times only. -#}
{% macro type_moment() %}
    {{- return(adapter.dispatch('type_moment', 'ontime')()) -}}
{% endmacro %}

{% macro default__type_moment() %}timestamp with time zone{% endmacro %}

{% macro spark__type_moment() %}timestamp{% endmacro %}

{#- What `dbt.type_timestamp()` is on Spark, whose `timestamp` is a moment. -#}
{% macro spark__type_timestamp() %}timestamp_ntz{% endmacro %}
