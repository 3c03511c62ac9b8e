-- Every staged record is a row of fct_flights, once: joins lose and double nothing.
with staged as (

    select
        raw_file_id,
        raw_row_number

    from {{ ref('stg_nycflights13__flights') }}

),

flights as (

    select
        raw_file_id,
        raw_row_number,
        count(*) as flight_count

    from {{ ref('fct_flights') }}
    group by raw_file_id, raw_row_number

)

select
    staged.raw_file_id,
    staged.raw_row_number,
    flights.flight_count

from staged
left join
    flights
    on
        staged.raw_file_id = flights.raw_file_id
        and staged.raw_row_number = flights.raw_row_number
where coalesce(flights.flight_count, 0) <> 1
