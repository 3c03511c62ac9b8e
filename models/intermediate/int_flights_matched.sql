with flights as (

    select
        *,
        cast({{ dbt.date_trunc('hour', 'scheduled_departure_at') }} as {{ dbt.type_timestamp() }})
            as scheduled_departure_hour_at

    from {{ ref('int_flights_timed') }}

),

weather as (

    select * from {{ ref('int_weather_corrected') }}

),

aircraft as (

    select * from {{ ref('int_aircraft_standardised') }}

),

matched as (

    select
        flights.*,
        weather.weather_observation_id,
        case
            when flights.tail_number is null then 'no tail number'
            when aircraft.tail_number is null then 'not registered'
            when not aircraft.is_airliner then 'doubtful'
            else 'registered'
        end as aircraft_match

    from flights
    left join
        weather
        on
            flights.origin_airport_code = weather.airport_code
            and flights.scheduled_departure_hour_at = weather.observed_at
    left join aircraft on flights.tail_number = aircraft.tail_number

)

select * from matched
