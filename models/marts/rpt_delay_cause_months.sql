{{ config(**by_month('fct_flights')) }}

{%- set causes = {
    'carrier': 'carrier_delay_minutes',
    'weather': 'weather_delay_minutes',
    'national air system': 'nas_delay_minutes',
    'security': 'security_delay_minutes',
    'late aircraft': 'late_aircraft_delay_minutes',
} -%}

with flights as (

    select * from {{ ref('fct_flights') }}
    {{ where_due() }}

),

-- Some files give zeros for flights that are not late: they have no cause.
explained as (

    select
        {%- for column in causes.values() %}
        coalesce({{ column }}, 0) as {{ column }},
        {%- endfor %}
        flight_month,
        carrier_code,
        destination_airport_code

    from flights
    where
        arrival_delay_minutes >= {{ var('on_time_threshold_minutes') }}
        and coalesce({{ causes.values() | join(', ') }}) is not null

),

totals as (

    select
        flight_month,
        carrier_code,
        destination_airport_code,
        count(*) as explained_flights,
        {%- for column in causes.values() %}
        cast(sum({{ column }}) as bigint) as {{ column }},
        cast(sum(case when {{ column }} > 0 then 1 else 0 end) as bigint) as {{ column }}_flights,
        {%- endfor %}
        cast(sum({{ causes.values() | join(' + ') }}) as bigint) as all_delay_minutes

    from explained
    group by flight_month, carrier_code, destination_airport_code

),

by_cause as (

    {% for cause, column in causes.items() -%}
    select
        flight_month,
        carrier_code,
        destination_airport_code,
        '{{ cause }}' as delay_cause,
        explained_flights,
        {{ column }}_flights as affected_flights,
        {{ column }} as delay_minutes_total,
        all_delay_minutes

    from totals
    {{ "union all" if not loop.last }}
    {% endfor %}

),

final as (

    select
        {{ hash_key(['flight_month', 'carrier_code', 'destination_airport_code', 'delay_cause']) }}
            as delay_cause_month_id,
        carrier_code,
        destination_airport_code,
        delay_cause,
        flight_month,
        cast(explained_flights as bigint) as explained_flights,
        affected_flights,
        delay_minutes_total,
        cast(delay_minutes_total as {{ type_double() }}) / nullif(all_delay_minutes, 0)
            as delay_share

    from by_cause

)

select * from final
