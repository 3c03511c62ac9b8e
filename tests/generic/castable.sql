{#- Rows in which a text column of the raw layer holds a value that does not cast. -#}
{% test castable(model, column_name, type) %}

    select
        _file_id,
        _row_number,
        '{{ column_name }}' as column_name,
        {{ column_name }} as found,
        '{{ type }}' as expected

    from {{ model }}
    where
        {{ text_or_null(column_name) }} is not null
        and {{ raw_cast(column_name, type) }} is null

{% endtest %}
