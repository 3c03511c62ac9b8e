-- The source gives the hour of the scheduled departure in UTC: the one computed from the local
-- schedule and the airport's time zone is the same for every flight.
with staged as (

    select * from {{ untested(ref('stg_nycflights13__flights')) }}

),

flights as (

    select
        flight_id,
        raw_file_id,
        raw_row_number,
        cast({{ dbt.date_trunc('hour', 'scheduled_departure_at') }} as {{ dbt.type_timestamp() }})
            as scheduled_departure_hour_at

    from {{ untested(ref('fct_flights')) }}

)

select
    flights.flight_id,
    staged.scheduled_departure_hour_at as expected,
    flights.scheduled_departure_hour_at as found

from staged
inner join
    flights
    on
        staged.raw_file_id = flights.raw_file_id
        and staged.raw_row_number = flights.raw_row_number
where
    flights.scheduled_departure_hour_at is null
    or staged.scheduled_departure_hour_at <> flights.scheduled_departure_hour_at
