{#- Written by the hooks of the models that are built by month, and never built anew. -#}
{{ config(full_refresh=false, **replaced_by(['node_name'])) }}

with no_events as (

    select
        cast(null as {{ dbt.type_string() }}) as node_name,
        cast(null as {{ dbt.type_string() }}) as part,
        cast(null as {{ dbt.type_string() }}) as event_type,
        cast(null as {{ dbt.type_string() }}) as made_of,
        cast(null as {{ dbt.type_bigint() }}) as event_number,
        cast(null as {{ dbt.type_timestamp() }}) as happened_at

)

select * from no_events
where node_name is not null
