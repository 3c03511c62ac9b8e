{#- Values of a BTS on-time table that are present and do not cast, with file and record number. -#}
{% test bts_values_cast(model) %}

    {%- set casts = [] -%}
    {%- for name, (cast_as, columns) in bts_columns().items() if cast_as not in ('code', 'text') -%}
        {%- for column in columns -%}
            {%- do casts.append((column, bts_value(cast_as, [column]))) -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- for column in bts_date_columns()['dates'] -%}
        {%- do casts.append((column, written_date_or_null(text_or_null(column)))) -%}
    {%- endfor -%}
    {%- set whole = bts_date_columns() -%}
    {%- for column in whole['years'] + whole['months'] + whole['days'] -%}
        {%- do casts.append((column, raw_cast(column, 'integer'))) -%}
    {%- endfor %}

    {{ values_not_cast(model, casts) }}

{% endtest %}
