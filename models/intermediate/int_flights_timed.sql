{{ config(materialized='table') }}

with flights as (

    select
        *,
        {{ hhmm_to_minutes('scheduled_departure_hhmm') }} as scheduled_departure_minutes,
        {{ hhmm_to_minutes('scheduled_arrival_hhmm') }} as scheduled_arrival_minutes,
        {{ hhmm_to_minutes('arrival_hhmm') }} as arrival_minutes,
        cast(flight_date as {{ dbt.type_timestamp() }}) as flight_day_at_local

    from {{ ref('stg_nycflights13__flights') }}

),

airports as (

    select * from {{ ref('int_airports_corrected') }}

),

statused as (

    select
        *,
        case
            when arrival_delay_minutes is not null then 'arrived'
            when departure_hhmm is null then 'cancelled'
            when arrival_hhmm is not null then 'diverted'
            else 'unknown'
        end as flight_status

    from flights

),

scheduled as (

    select
        statused.*,
        origins.time_zone as origin_time_zone,
        destinations.time_zone as destination_time_zone,
        {{ add_minutes('statused.scheduled_departure_minutes', 'statused.flight_day_at_local') }}
            as scheduled_departure_at_local,
        {{ add_minutes(
            'statused.scheduled_arrival_minutes + case'
            ~ ' when statused.scheduled_arrival_minutes < statused.scheduled_departure_minutes'
            ~ ' then 1440 else 0 end',
            'statused.flight_day_at_local'
        ) }} as scheduled_arrival_at_local,
        -- A diverted flight that reached its destination has a clock time there and no delay.
        case
            when statused.arrival_delay_minutes is null
                then {{ add_minutes('statused.arrival_minutes', 'statused.flight_day_at_local') }}
        end as undelayed_arrival_at_local

    from statused
    left join airports as origins on statused.origin_airport_code = origins.airport_code
    left join
        airports as destinations
        on statused.destination_airport_code = destinations.airport_code

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
            when arrival_delay_minutes is not null
                then {{ add_minutes('arrival_delay_minutes', 'scheduled_arrival_at') }}
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
        {{ hash_key([
            'flight_date',
            'carrier_code',
            'flight_number',
            'origin_airport_code',
            'destination_airport_code',
            'scheduled_departure_hhmm',
        ]) }} as flight_id,
        'nycflights13' as source,
        carrier_code,
        tail_number,
        origin_airport_code,
        destination_airport_code,
        flight_status,
        cast(null as {{ dbt.type_string() }}) as cancellation_reason,
        flight_number,
        distance_miles,
        air_time_minutes,
        departure_delay_minutes,
        arrival_delay_minutes,
        cast(null as integer) as carrier_delay_minutes,
        cast(null as integer) as weather_delay_minutes,
        cast(null as integer) as nas_delay_minutes,
        cast(null as integer) as security_delay_minutes,
        cast(null as integer) as late_aircraft_delay_minutes,
        coalesce(departure_delay_minutes < {{ var('on_time_threshold_minutes') }}, false)
            as is_departure_on_time,
        coalesce(arrival_delay_minutes < {{ var('on_time_threshold_minutes') }}, false)
            as is_arrival_on_time,
        case when flight_status <> 'unknown' then flight_status = 'cancelled' end as is_cancelled,
        case when flight_status <> 'unknown' then flight_status = 'diverted' end as is_diverted,
        flight_date,
        cast({{ dbt.date_trunc('month', 'flight_date') }} as date) as flight_month,
        scheduled_departure_at,
        scheduled_departure_at_local,
        departed_at,
        coalesce(
            {{ utc_to_local('departed_at', 'origin_time_zone') }},
            {{ add_minutes('departure_delay_minutes', 'scheduled_departure_at_local') }}
        ) as departed_at_local,
        scheduled_arrival_at,
        scheduled_arrival_at_local,
        arrived_at,
        coalesce(
            {{ utc_to_local('arrived_at', 'destination_time_zone') }},
            {{ add_minutes('arrival_delay_minutes', 'scheduled_arrival_at_local') }}
        ) as arrived_at_local,
        raw_file_id,
        raw_row_number

    from arrived

)

select * from timed
