with source as (

    select * from {{ source('ingest', 'rejected_rows') }}

),

renamed as (

    select
        {{ hash_key(['source_name', 'table_name', 'file_id', 'line']) }} as rejected_row_id,
        file_id as raw_file_id,
        source_name,
        table_name,
        reason,
        raw_text,
        line as line_number,
        _dlt_load_id as load_id

    from source

)

select * from renamed
