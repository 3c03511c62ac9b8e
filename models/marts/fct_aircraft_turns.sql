{{ config(**by_month('fct_flights', with_neighbours=true)) }}

with flights as (

    select * from {{ ref('fct_flights') }}
    {{ where_due(with_neighbours=true) }}

),

legs as (

    select
        *,
        coalesce(arrival_delay_minutes, diversion_arrival_delay_minutes) as incoming_delay_minutes

    from flights
    where
        tail_number is not null
        and departed_at is not null
        and flight_status <> 'cancelled'

),

-- Each leg with the one that the same aircraft flew after it.
followed as (

    select
        tail_number,
        destination_airport_code as airport_code,
        flight_id as incoming_flight_id,
        incoming_delay_minutes,
        scheduled_arrival_at,
        arrived_at,
        lead(flight_id) over legs_of_aircraft as outgoing_flight_id,
        lead(carrier_code) over legs_of_aircraft as carrier_code,
        lead(origin_airport_code) over legs_of_aircraft as next_origin_airport_code,
        lead(departure_delay_minutes) over legs_of_aircraft as outgoing_delay_minutes,
        lead(flight_date) over legs_of_aircraft as flight_date,
        lead(flight_month) over legs_of_aircraft as flight_month,
        lead(scheduled_departure_at) over legs_of_aircraft as scheduled_departure_at,
        lead(departed_at) over legs_of_aircraft as departed_at

    from legs
    window legs_of_aircraft as (partition by tail_number order by departed_at, flight_id)

),

turns as (

    select
        *,
        {{ minutes_between('scheduled_arrival_at', 'scheduled_departure_at') }}
            as scheduled_turn_minutes,
        {{ minutes_between('arrived_at', 'departed_at') }} as actual_turn_minutes,
        greatest(incoming_delay_minutes, 0) as incoming_late_minutes,
        greatest(outgoing_delay_minutes, 0) as outgoing_late_minutes

    from followed
    where
        next_origin_airport_code = airport_code
        and incoming_delay_minutes is not null
        and departed_at >= arrived_at

),

final as (

    select
        {{ hash_key(['incoming_flight_id', 'outgoing_flight_id']) }} as aircraft_turn_id,
        incoming_flight_id,
        outgoing_flight_id,
        carrier_code,
        tail_number,
        airport_code,
        incoming_delay_minutes,
        outgoing_delay_minutes,
        scheduled_turn_minutes,
        actual_turn_minutes,
        least(incoming_late_minutes, outgoing_late_minutes) as passed_on_minutes,
        incoming_late_minutes - least(incoming_late_minutes, outgoing_late_minutes)
            as absorbed_minutes,
        outgoing_late_minutes - least(incoming_late_minutes, outgoing_late_minutes)
            as added_minutes,
        flight_date,
        flight_month,
        arrived_at,
        departed_at

    from turns
    where actual_turn_minutes <= {{ var('longest_turn_minutes') }}

),

-- The months beside those that are built were read to find the flights before and after.
due as (

    select * from final
    {{ where_due() }}

)

select * from due
