{% macro percentile(fraction, expression) %}
    {{- return(adapter.dispatch('percentile', 'ontime')(fraction, expression)) -}}
{% endmacro %}

{% macro default__percentile(fraction, expression) -%}
    cast(
        percentile_cont({{ fraction }}) within group (order by {{ expression }})
        as {{ type_double() }}
    )
{%- endmacro %}
