{{ config(**by_month('int_flights_unioned', lookups={
    'int_airports_corrected': ['airport_code', 'time_zone'],
    'int_aircraft_standardised': ['tail_number', 'is_airliner'],
    'int_weather_corrected': ['weather_observation_id'],
    'cancellation_reasons': ['cancellation_code', 'cancellation_reason'],
})) }}

with flights as (

    select * from {{ ref('int_flights_matched') }}
    {{ where_due() }}

),

final as (

    select
        flight_id,
        source,
        carrier_code,
        tail_number,
        origin_airport_code,
        destination_airport_code,
        weather_observation_id,
        flight_status,
        cancellation_reason,
        aircraft_match,
        flight_number,
        distance_miles,
        air_time_minutes,
        departure_delay_minutes,
        arrival_delay_minutes,
        taxi_out_minutes,
        taxi_in_minutes,
        scheduled_elapsed_minutes,
        actual_elapsed_minutes,
        carrier_delay_minutes,
        weather_delay_minutes,
        nas_delay_minutes,
        security_delay_minutes,
        late_aircraft_delay_minutes,
        diversion_airport_landings,
        diversion_arrival_delay_minutes,
        cast(extract(hour from scheduled_departure_at_local) as integer)
            as scheduled_departure_hour,
        is_departure_on_time,
        is_arrival_on_time,
        is_cancelled,
        is_diverted,
        is_destination_reached,
        flight_date,
        flight_month,
        scheduled_departure_at,
        scheduled_departure_at_local,
        departed_at,
        departed_at_local,
        wheels_off_at,
        wheels_on_at,
        scheduled_arrival_at,
        scheduled_arrival_at_local,
        arrived_at,
        arrived_at_local,
        raw_file_id,
        raw_row_number

    from flights

)

select * from final
