{#-
    Overrides dbt-spark's own, which in a session writes null as the text None and does not escape
    quotes.
-#}
{% macro spark__load_csv_rows(model, agate_table) %}
    {%- set types = [] -%}
    {%- for name in agate_table.column_names -%}
        {%- do types.append(
            model.config.column_types.get(name, adapter.convert_type(agate_table, loop.index0))
        ) -%}
    {%- endfor -%}
    {%- set statements = [] -%}
    {%- for chunk in agate_table.rows | batch(get_batch_size()) -%}
        {%- set rows = [] -%}
        {%- for row in chunk -%}
            {%- set values = [] -%}
            {%- for value in row -%}
                {%- do values.append("cast(" ~ spark_literal(value) ~ " as " ~ types[loop.index0] ~ ")") -%}
            {%- endfor -%}
            {%- do rows.append("(" ~ values | join(", ") ~ ")") -%}
        {%- endfor -%}
        {%- do statements.append(
            "insert into " ~ this.render() ~ " values " ~ rows | join(", ")
        ) -%}
        {%- do adapter.add_query(statements[-1], abridge_sql_log=True) -%}
    {%- endfor -%}
    {{- return(statements[0]) -}}
{% endmacro %}

{#- A value as a literal: null, or text, which a cast turns into any other type. -#}
{% macro spark_literal(value) -%}
    {%- if value is none -%}
        null
    {%- else -%}
        '{{ value | string | replace("\\", "\\\\") | replace("'", "\\'") }}'
    {%- endif -%}
{%- endmacro %}
