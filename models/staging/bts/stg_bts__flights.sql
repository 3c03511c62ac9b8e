with source as (

    select * from {{ source('bts', 'on_time') }}

),

renamed as (

    select
        {%- for name, (cast_as, columns) in bts_columns().items() %}
        {{ bts_value(cast_as, columns) }} as {{ name }},
        {%- endfor %}
        {{ bts_flight_date() }} as flight_date,
        _file_id as raw_file_id,
        _row_number as raw_row_number

    from source

)

select * from renamed
