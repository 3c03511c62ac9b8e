{#- A test that fails says only how many rows it found: this puts them into the command's output. -#}
{% macro say_rows(relation, query, columns) %}
    {%- if execute and flags.WHICH in ('build', 'test') and load_relation(relation) -%}
        {%- for row in run_query(query).rows -%}
            {%- set said = [] -%}
            {%- for column in columns -%}
                {%- do said.append(column ~ ": " ~ row[column]) -%}
            {%- endfor -%}
            {{- log(said | join(", "), info=true) -}}
        {%- endfor -%}
    {%- endif -%}
{% endmacro %}
