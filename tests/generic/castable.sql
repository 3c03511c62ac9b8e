{#- Rows in which a text column of the raw layer holds a value that does not cast. -#}
{% test castable(model, column_name, type) %}

    {%- set column = adapter.quote(column_name) %}

    select
        _file_id,
        _row_number,
        '{{ column_name }}' as column_name,
        {{ column }} as found,
        '{{ type }}' as expected

    from {{ model }}
    where
        {{ text_or_null(column) }} is not null
        and {{ raw_cast(column, type) }} is null

{% endtest %}
