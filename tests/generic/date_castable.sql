{#- Rows of a raw table whose year, month and day are present and make no date. -#}
{% test date_castable(model, year, month, day) %}

    select
        _file_id,
        _row_number,
        {{ year }} as found_year,
        {{ month }} as found_month,
        {{ day }} as found_day

    from {{ model }}
    where
        {{ text_or_null(year) }} is not null
        and {{ text_or_null(month) }} is not null
        and {{ text_or_null(day) }} is not null
        and {{ date_from_parts_or_null(year, month, day) }} is null

{% endtest %}
