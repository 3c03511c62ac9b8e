{#-
    Facts that were counted in a delivered file with other tools. Each names a condition and how
    many of the model's rows meet it; the test compares while the file's rows are in the model,
    and shows each fact that differs. With `records` it compares only while the model has that many
    rows of the file: where another source holds some of its flights, the facts are others.
-#}
{% test facts_of_file(model, file_id, facts, records=none) %}

    with rows_of_file as (

        select * from {{ model }}
        where raw_file_id = '{{ file_id }}'

    ),

    counted as (

        select
            {%- for fact in facts %}
            sum(case when {{ fact.where }} then 1 else 0 end) as found_{{ loop.index }},
            {%- endfor %}
            count(*) as rows_of_file

        from rows_of_file

    ),

    compared as (

        {%- for fact in facts %}
        select
            '{{ fact.name }}' as fact,
            {{ fact.rows }} as expected,
            found_{{ loop.index }} as found

        from counted
        where rows_of_file {{ '= ' ~ records if records else '> 0' }}
        {{ "union all" if not loop.last }}
        {%- endfor %}

    )

    select * from compared
    where expected <> found

{% endtest %}
