-- Schedule plus delay gives the clock times that the file has, for every departure and arrival
-- but one, which fell into the hour that daylight saving skipped on 10 March 2013.
with staged as (

    select * from {{ untested(ref('stg_nycflights13__flights')) }}

),

flights as (

    select * from {{ untested(ref('fct_flights')) }}

),

compared as (

    select
        flights.flight_id,
        flights.departed_at_local,
        staged.departure_hhmm,
        flights.arrived_at_local,
        staged.arrival_hhmm,
        extract(hour from flights.departed_at_local) * 100
        + extract(minute from flights.departed_at_local) as departure_clock,
        extract(hour from flights.arrived_at_local) * 100
        + extract(minute from flights.arrived_at_local) as arrival_clock

    from staged
    inner join
        flights
        on
            staged.raw_file_id = flights.raw_file_id
            and staged.raw_row_number = flights.raw_row_number

)

select * from compared
where
    coalesce(departure_clock, -1) <> coalesce(mod(departure_hhmm, 2400), -1)
    or (
        coalesce(arrival_clock, -1) <> coalesce(mod(arrival_hhmm, 2400), -1)
        and not (
            arrived_at_local = cast('2013-03-10 03:03:00' as {{ dbt.type_timestamp() }})
            and arrival_hhmm = 203
        )
    )
