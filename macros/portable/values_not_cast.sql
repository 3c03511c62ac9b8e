{#-
    Query: values of raw columns that are present and do not cast, given as a list of columns, each
    with the expression that casts it. DuckDB and PostgreSQL read only the columns of each part.
-#}
{% macro values_not_cast(relation, casts) %}
    {{- return(adapter.dispatch('values_not_cast', 'ontime')(relation, casts)) -}}
{% endmacro %}

{% macro default__values_not_cast(relation, casts) %}
    with wrong as (

        select
            *,
            {%- for column, value in casts %}
            {{ text_or_null(column) }} is not null and {{ value }} is null as wrong_{{ loop.index }}
            {{- "," if not loop.last }}
            {%- endfor %}

        from {{ relation }}

    ),

    wrong_anywhere as (

        select * from wrong
        where
            {%- for _ in casts %}
            {{ "or " if not loop.first }}wrong_{{ loop.index }}
            {%- endfor %}

    )

    {% for column, _ in casts %}
    select
        _file_id,
        _row_number,
        '{{ column }}' as column_name,
        {{ column }} as found

    from wrong_anywhere
    where wrong_{{ loop.index }}
    {{ "union all" if not loop.last }}
    {%- endfor %}
{% endmacro %}

{#- Spark would plan and scan once for each column. -#}
{% macro spark__values_not_cast(relation, casts) %}
    with stacked as (

        select
            _file_id,
            _row_number,
            stack(
                {{ casts | length }}
                {%- for column, value in casts %},
                '{{ column }}', {{ column }}, {{ text_or_null(column) }} is not null and {{ value }} is null
                {%- endfor %}
            ) as (column_name, found, is_wrong)

        from {{ relation }}

    )

    select
        _file_id,
        _row_number,
        column_name,
        found

    from stacked
    where is_wrong
{% endmacro %}
