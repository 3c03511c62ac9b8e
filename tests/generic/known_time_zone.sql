{#- Rows whose time zone the engine does not know: it would fail on them, or take them for UTC. -#}
{% test known_time_zone(model, column_name) %}

    select model.*
    from {{ model }} as model
    left join ({{ time_zone_names() }}) as known_zones on model.{{ column_name }} = known_zones.name
    where model.{{ column_name }} is not null and known_zones.name is null

{% endtest %}
