with flights as (

    select * from {{ ref('fct_flights') }}

),

taxied as (

    select
        flight_month,
        origin_airport_code as airport_code,
        cast(extract(hour from departed_at_local) as integer) as hour_local,
        taxi_out_minutes,
        cast(null as integer) as taxi_in_minutes

    from flights
    where taxi_out_minutes is not null and departed_at_local is not null
    union all
    select
        flight_month,
        destination_airport_code as airport_code,
        cast(extract(hour from arrived_at_local) as integer) as hour_local,
        cast(null as integer) as taxi_out_minutes,
        taxi_in_minutes

    from flights
    where taxi_in_minutes is not null and arrived_at_local is not null

),

measured as (

    select
        flight_month,
        airport_code,
        hour_local,
        {%- for direction in ['out', 'in'] %}
        {%- set minutes = "taxi_" ~ direction ~ "_minutes" %}
        cast(count({{ minutes }}) as bigint) as taxi_{{ direction }}_flights,
        cast(sum(coalesce({{ minutes }}, 0)) as bigint) as {{ minutes }}_total,
        avg(cast({{ minutes }} as {{ type_double() }})) as mean_{{ minutes }},
        {%- for name, fraction in {'median': 0.5, 'p90': 0.9}.items() %}
        cast(percentile_cont({{ fraction }}) within group (order by {{ minutes }}) as {{ type_double() }})
            as {{ name }}_{{ minutes }}{{ "," if direction == 'out' or not loop.last }}
        {%- endfor %}
        {%- endfor %}

    from taxied
    group by flight_month, airport_code, hour_local

),

final as (

    select
        {{ hash_key(['flight_month', 'airport_code', 'hour_local']) }} as taxi_time_id,
        airport_code,
        hour_local,
        flight_month,
        {%- for direction in ['out', 'in'] %}
        {%- set minutes = "taxi_" ~ direction ~ "_minutes" %}
        taxi_{{ direction }}_flights,
        {{ minutes }}_total,
        mean_{{ minutes }},
        median_{{ minutes }},
        p90_{{ minutes }}{{ "," if not loop.last }}
        {%- endfor %}

    from measured

)

select * from final
