{{ config(materialized='table') }}

with planes as (

    select * from {{ ref('stg_nycflights13__planes') }}

),

manufacturers as (

    select * from {{ ref('aircraft_manufacturers') }}

),

seat_exceptions as (

    select * from {{ ref('seat_count_exceptions') }}

),

standardised as (

    select
        planes.tail_number,
        planes.aircraft_type,
        coalesce(manufacturers.manufacturer, planes.manufacturer) as manufacturer,
        planes.manufacturer as registered_manufacturer,
        planes.model,
        planes.engine_type,
        planes.manufactured_year,
        planes.engines,
        planes.seats,
        planes.cruising_speed_mph,
        seat_exceptions.model is null as is_seat_count_plausible,
        planes.seats >= {{ var('smallest_airliner_seats') }} as is_airliner,
        planes.raw_file_id,
        planes.raw_row_number

    from planes
    left join manufacturers on planes.manufacturer = manufacturers.registered_manufacturer
    left join
        seat_exceptions
        on
            planes.model = seat_exceptions.model
            and planes.seats = seat_exceptions.registered_seats

)

select * from standardised
