{% macro ordered_list(expression, order_by) %}
    {{- return(adapter.dispatch('ordered_list', 'ontime')(expression, order_by)) -}}
{% endmacro %}

{% macro default__ordered_list(expression, order_by) -%}
    string_agg({{ expression }}, ',' order by {{ order_by }})
{%- endmacro %}

{% macro spark__ordered_list(expression, order_by) -%}
    listagg({{ expression }}, ',') within group (order by {{ order_by }})
{%- endmacro %}
