{{ config(**by_month('rpt_route_months', lookups={
    'dim_airports': ['airport_code', 'airport_name'],
})) }}

with routes as (

    select * from {{ ref('rpt_route_months') }}
    {{ where_due() }}

),

airports as (

    select * from {{ ref('dim_airports') }}

),

departures as (

    select
        flight_month,
        origin_airport_code as airport_code,
        'departures' as direction,
        {{ add_up_flights() }}

    from routes
    group by flight_month, origin_airport_code

),

arrivals as (

    select
        flight_month,
        destination_airport_code as airport_code,
        'arrivals' as direction,
        {{ add_up_flights() }}

    from routes
    group by flight_month, destination_airport_code

),

both_directions as (

    select * from departures
    union all
    select * from arrivals

),

final as (

    select
        {{ hash_key([
            'both_directions.flight_month',
            'both_directions.airport_code',
            'both_directions.direction',
        ]) }} as airport_month_id,
        both_directions.airport_code,
        airports.airport_name,
        both_directions.direction,
        both_directions.flight_month,
        {%- for measure in flight_measures() %}
        both_directions.{{ measure }},
        {%- endfor %}
        {{ flight_rates() }}

    from both_directions
    left join airports on both_directions.airport_code = airports.airport_code

)

select * from final
