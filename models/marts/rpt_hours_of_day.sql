{{ config(**by_month('fct_flights')) }}

with flights as (

    select * from {{ ref('fct_flights') }}
    {{ where_due() }}

),

measured as (

    select
        flight_month,
        origin_airport_code,
        scheduled_departure_hour,
        {{ measure_flights() }}

    from flights
    group by flight_month, origin_airport_code, scheduled_departure_hour

),

final as (

    select
        {{ hash_key(['flight_month', 'origin_airport_code', 'scheduled_departure_hour']) }}
            as hour_of_day_id,
        origin_airport_code,
        scheduled_departure_hour,
        flight_month,
        {%- for measure in flight_measures() %}
        {{ measure }},
        {%- endfor %}
        {{ flight_rates() }}

    from measured

)

select * from final
