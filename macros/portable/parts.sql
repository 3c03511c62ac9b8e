{#-
    How a table is kept of which a build replaces parts, as configuration of a model. DuckDB and
    PostgreSQL remove the old rows and insert the new ones in one transaction. Spark has none over
    several statements and removes no rows of Parquet: there a part is a partition, which is
    overwritten as a whole.
-#}
{% macro replaced_by(columns) %}
    {{- return(adapter.dispatch('replaced_by', 'ontime')(columns)) -}}
{% endmacro %}

{% macro default__replaced_by(columns) %}
    {{- return({'materialized': 'incremental', 'incremental_strategy': 'append'}) -}}
{% endmacro %}

{% macro spark__replaced_by(columns) %}
    {{- return({
        'materialized': 'incremental',
        'incremental_strategy': 'insert_overwrite',
        'partition_by': columns,
    }) -}}
{% endmacro %}
