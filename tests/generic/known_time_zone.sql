{#- Rows whose time zone the engine does not know: it would fail on them, or take them for UTC. -#}
{% test known_time_zone(model, column_name) %}

    with zones as (

        select {{ column_name }} as time_zone
        from {{ model }}
        where {{ column_name }} is not null

    )

    select zones.time_zone
    from zones
    left join ({{ time_zone_names() }}) as known_zones on zones.time_zone = known_zones.name
    where known_zones.name is null

{% endtest %}
