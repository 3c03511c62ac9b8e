{#- Overrides dbt-spark's own: Hive's metastore takes comments of 255 characters at most. -#}
{% macro get_column_comment_sql(column_name, column_dict) -%}
    {%- set comment = column_dict.get(column_name, {}).get('description', '') | truncate(255, true, '...', 0) -%}
    {{ adapter.quote(column_name) }} comment {{ spark_literal(comment) }}
{%- endmacro %}
