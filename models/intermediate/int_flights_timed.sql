with flights as (

    select
        *,
        {{ hhmm_to_minutes('scheduled_departure_hhmm') }} as scheduled_departure_minutes,
        {{ hhmm_to_minutes('scheduled_arrival_hhmm') }} as scheduled_arrival_minutes,
        {{ hhmm_to_minutes('arrival_hhmm') }} as arrival_minutes,
        cast(flight_date as {{ dbt.type_timestamp() }}) as flight_day_at_local

    from {{ ref('int_flights_unioned') }}
    where not is_superseded

),

cancellation_reasons as (

    select * from {{ ref('cancellation_reasons') }}

),

-- Read once each: what is read twice keeps an engine from leaving out columns that nobody asks for.
origins as (

    select * from {{ ref('int_airports_corrected') }}

),

destinations as (

    select * from {{ ref('int_airports_corrected') }}

),

statused as (

    select
        *,
        -- The flags decide where they are given; what they leave open follows from the times.
        case
            when is_reported_cancelled then 'cancelled'
            when is_reported_diverted then 'diverted'
            when not is_reported_cancelled and not is_reported_diverted then 'arrived'
            when arrival_delay_minutes is not null then 'arrived'
            when
                is_reported_cancelled is null
                and departure_hhmm is null
                and departure_delay_minutes is null
                then 'cancelled'
            when is_reported_diverted is null and arrival_hhmm is not null then 'diverted'
            else 'unknown'
        end as flight_status,
        -- How late it came to its destination, by whatever way.
        coalesce(arrival_delay_minutes, diversion_arrival_delay_minutes)
            as any_arrival_delay_minutes

    from flights

),

-- A flight that did not arrive as scheduled has no arrival delay, and a cancelled one no arrival.
operated as (

    select
        statused.*,
        cancellation_reasons.cancellation_reason,
        case when statused.flight_status = 'arrived' then statused.arrival_delay_minutes end
            as own_arrival_delay_minutes,
        case when statused.flight_status <> 'cancelled' then statused.any_arrival_delay_minutes end
            as total_arrival_delay_minutes,
        case when statused.flight_status <> 'cancelled' then statused.arrival_minutes end
            as own_arrival_minutes

    from statused
    left join
        cancellation_reasons
        on
            statused.cancellation_code = cancellation_reasons.cancellation_code
            and statused.flight_status = 'cancelled'

),

scheduled as (

    select
        operated.*,
        origins.time_zone as origin_time_zone,
        destinations.time_zone as destination_time_zone,
        {{ add_minutes('operated.scheduled_departure_minutes', 'operated.flight_day_at_local') }}
            as scheduled_departure_at_local,
        {{ add_minutes(
            'operated.scheduled_arrival_minutes + case'
            ~ ' when operated.scheduled_arrival_minutes < operated.scheduled_departure_minutes'
            ~ ' then 1440 else 0 end',
            'operated.flight_day_at_local'
        ) }} as scheduled_arrival_at_local,
        -- A diverted flight that reached its destination has a clock time there and no delay.
        case
            when operated.total_arrival_delay_minutes is null
                then {{ add_minutes(
                    'operated.own_arrival_minutes', 'operated.flight_day_at_local'
                ) }}
        end as undelayed_arrival_at_local

    from operated
    left join origins on operated.origin_airport_code = origins.airport_code
    left join
        destinations
        on operated.destination_airport_code = destinations.airport_code

),

in_utc as (

    select
        *,
        {{ local_to_utc('scheduled_departure_at_local', 'origin_time_zone') }}
            as scheduled_departure_at,
        {{ local_to_utc('scheduled_arrival_at_local', 'destination_time_zone') }}
            as scheduled_arrival_at,
        {{ local_to_utc('undelayed_arrival_at_local', 'destination_time_zone') }}
            as undelayed_arrival_at

    from scheduled

),

departed as (

    select
        *,
        {{ add_minutes('departure_delay_minutes', 'scheduled_departure_at') }} as departed_at

    from in_utc

),

arrived as (

    select
        *,
        case
            when total_arrival_delay_minutes is not null
                then {{ add_minutes('total_arrival_delay_minutes', 'scheduled_arrival_at') }}
            when undelayed_arrival_at > departed_at then undelayed_arrival_at
            else {{ add_minutes(
                '1440 * (cast(floor('
                ~ dbt.datediff('undelayed_arrival_at', 'departed_at', 'minute')
                ~ ' / 1440.0) as integer) + 1)',
                'undelayed_arrival_at'
            ) }}
        end as arrived_at

    from departed

),

timed as (

    select
        flight_id,
        source,
        carrier_code,
        tail_number,
        origin_airport_code,
        destination_airport_code,
        flight_status,
        cancellation_reason,
        flight_number,
        distance_miles,
        air_time_minutes,
        departure_delay_minutes,
        own_arrival_delay_minutes as arrival_delay_minutes,
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
        coalesce(
            flight_status <> 'cancelled'
            and departure_delay_minutes < {{ var('on_time_threshold_minutes') }},
            false
        ) as is_departure_on_time,
        coalesce(own_arrival_delay_minutes < {{ var('on_time_threshold_minutes') }}, false)
            as is_arrival_on_time,
        case when flight_status <> 'unknown' then flight_status = 'cancelled' end as is_cancelled,
        case when flight_status <> 'unknown' then flight_status = 'diverted' end as is_diverted,
        is_destination_reached,
        flight_date,
        flight_month,
        scheduled_departure_at,
        scheduled_departure_at_local,
        departed_at,
        coalesce(
            {{ utc_to_local('departed_at', 'origin_time_zone') }},
            {{ add_minutes('departure_delay_minutes', 'scheduled_departure_at_local') }}
        ) as departed_at_local,
        {{ add_minutes('taxi_out_minutes', 'departed_at') }} as wheels_off_at,
        {{ add_minutes('-1 * taxi_in_minutes', 'arrived_at') }} as wheels_on_at,
        scheduled_arrival_at,
        scheduled_arrival_at_local,
        arrived_at,
        coalesce(
            {{ utc_to_local('arrived_at', 'destination_time_zone') }},
            {{ add_minutes('total_arrival_delay_minutes', 'scheduled_arrival_at_local') }}
        ) as arrived_at_local,
        raw_file_id,
        raw_row_number

    from arrived

)

select * from timed
