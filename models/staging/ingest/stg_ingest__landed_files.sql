with source as (

    select * from {{ source('ingest', 'landed_files') }}

),

renamed as (

    select
        {{ hash_key(['source_name', 'table_name', 'file_id']) }} as landed_file_id,
        file_id as raw_file_id,
        source_name,
        table_name,
        path as landing_path,
        header as header_json,
        encoding,
        delimiter,
        compression,
        tags as tags_json,
        bytes as size_bytes,
        records_read,
        rows_loaded,
        rows_rejected,
        is_current,
        modified_at,
        loaded_at,
        _dlt_load_id as load_id

    from source

)

select * from renamed
