{#- After a table was built or added to, before its transaction ends. -#}
{% macro gather_statistics() %}
    {%- if model.config.materialized in ('table', 'incremental') -%}
        {{- return(adapter.dispatch('gather_statistics', 'ontime')()) -}}
    {%- endif -%}
{% endmacro %}

{% macro default__gather_statistics() %}{% endmacro %}

{#- The server does it, too, but some time later: what is built next would be planned without. -#}
{% macro postgres__gather_statistics() -%}
    analyze {{ this }}
{%- endmacro %}
