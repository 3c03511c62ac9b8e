{{ config(on_schema_change='fail', **replaced_by(['source', 'raw_file_id'])) }}

{%- set undated_files = file_list('select raw_file_id from (' ~ undated_loads() ~ ') as undated')
    if is_incremental() %}

with undated as (

    {{ undated_loads() }}

),

bts as (

    select * from {{ ref('stg_bts__flights') }}
    {% if is_incremental() %}where raw_file_id in ({{ undated_files }}){% endif %}

),

nycflights13 as (

    select * from {{ ref('stg_nycflights13__flights') }}
    {% if is_incremental() %}where raw_file_id in ({{ undated_files }}){% endif %}

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
        undated.load_id,
        months.record_count,
        months.flight_month

    from months
    inner join
        undated
        on
            months.source = undated.source
            and months.raw_file_id = undated.raw_file_id

)

select * from final
