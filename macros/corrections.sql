{#- The seed known_corrections, one row per record of `entity`, one column per attribute. -#}
{% macro pivoted_corrections(entity, attributes) %}
    select
        record_key,
        {%- for attribute in attributes %}
        max(case when attribute = '{{ attribute }}' then corrected_value end) as {{ attribute }},
        max(case when attribute = '{{ attribute }}' then 1 else 0 end) as corrects_{{ attribute }}
        {{- "," if not loop.last }}
        {%- endfor %}
    from known_corrections
    where entity = '{{ entity }}'
    group by record_key
{% endmacro %}

{% macro corrected(table, attribute, type=none) -%}
    case
        when corrections.corrects_{{ attribute }} = 1
            then {% if type %}cast(corrections.{{ attribute }} as {{ type }}){% else %}corrections.{{ attribute }}{% endif %}
        else {{ table }}.{{ attribute }}
    end as {{ attribute }}
{%- endmacro %}
