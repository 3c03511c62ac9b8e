{{ config(materialized='table') }}

with dated as (

    select * from {{ ref('int_flight_files_dated') }}

),

landed_files as (

    select * from {{ ref('stg_ingest__landed_files') }}
    where is_current and {{ holds_flights() }}

),

-- Nothing here depends on the order in which files were loaded.
ranked as (

    select
        dated.source,
        dated.raw_file_id,
        dated.load_id,
        dated.record_count,
        row_number() over (
            partition by dated.flight_month
            order by
                case dated.source when 'bts' then 1 else 2 end asc,
                landed_files.column_count desc nulls last,
                landed_files.modified_at desc nulls last,
                dated.raw_file_id asc
        ) as file_rank,
        dated.flight_month

    from dated
    inner join
        landed_files
        on
            dated.source = landed_files.source_name
            and dated.raw_file_id = landed_files.raw_file_id
            and dated.load_id = landed_files.load_id
    where dated.flight_month is not null

)

select * from ranked
