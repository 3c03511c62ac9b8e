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
        column_names as column_names_json,
        column_changes as column_changes_json,
        encoding,
        delimiter,
        compression,
        file_format,
        object_id,
        media_type,
        landed_by,
        tags as tags_json,
        places as places_json,
        retired_because,
        -- Names in raw tables hold neither quotes nor commas: one separator between two of them.
        case
            when column_names = '[]' then 0
            else
                1 + cast(
                    (length(column_names) - length(replace(column_names, '", "', ''))) / 4
                    as integer
                )
        end as column_count,
        bytes as size_bytes,
        records_read,
        rows_loaded,
        rows_rejected,
        is_current,
        modified_at,
        received_at,
        loaded_at,
        retired_at,
        _dlt_load_id as load_id

    from source

)

select * from renamed
