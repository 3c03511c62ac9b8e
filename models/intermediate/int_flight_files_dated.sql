{{ config(materialized='incremental', incremental_strategy='append', on_schema_change='fail') }}

with landed_files as (

    select * from {{ ref('stg_ingest__landed_files') }}
    where is_current

),

bts as (

    select * from {{ ref('stg_bts__flights') }}
    {{ where_file_is_undated() }}

),

nycflights13 as (

    select * from {{ ref('stg_nycflights13__flights') }}
    {{ where_file_is_undated() }}

),

flights as (

    select
        'bts' as source,
        raw_file_id,
        flight_date

    from bts
    union all
    select
        'nycflights13' as source,
        raw_file_id,
        flight_date

    from nycflights13

),

months as (

    select
        source,
        raw_file_id,
        cast({{ dbt.date_trunc('month', 'flight_date') }} as date) as flight_month,
        cast(count(*) as bigint) as record_count

    from flights
    group by source, raw_file_id, cast({{ dbt.date_trunc('month', 'flight_date') }} as date)

),

final as (

    select
        months.source,
        months.raw_file_id,
        landed_files.load_id,
        months.record_count,
        months.flight_month

    from months
    inner join
        landed_files
        on
            months.source = landed_files.source_name
            and months.raw_file_id = landed_files.raw_file_id
    where landed_files.table_name in ('flights', 'on_time')

)

select * from final
