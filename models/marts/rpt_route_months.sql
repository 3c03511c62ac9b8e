{{ config(**by_month('fct_flights')) }}

with flights as (

    select * from {{ ref('fct_flights') }}
    {{ where_due() }}

),

measured as (

    select
        flight_month,
        origin_airport_code,
        destination_airport_code,
        {{ measure_flights() }}

    from flights
    group by flight_month, origin_airport_code, destination_airport_code

),

final as (

    select
        {{ hash_key(['flight_month', 'origin_airport_code', 'destination_airport_code']) }}
            as route_month_id,
        origin_airport_code,
        destination_airport_code,
        flight_month,
        {%- for measure in flight_measures() %}
        {{ measure }},
        {%- endfor %}
        {{ flight_rates() }}

    from measured

)

select * from final
