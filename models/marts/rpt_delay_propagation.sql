{{ config(**by_month('fct_aircraft_turns')) }}

with turns as (

    select
        *,
        case
            when incoming_delay_minutes <= 0 then 'not late'
            when incoming_delay_minutes < 15 then '1 to 14'
            when incoming_delay_minutes < 30 then '15 to 29'
            when incoming_delay_minutes < 60 then '30 to 59'
            when incoming_delay_minutes < 120 then '60 to 119'
            else '120 and more'
        end as incoming_delay_band

    from {{ ref('fct_aircraft_turns') }}
    {{ where_due() }}

),

measured as (

    select
        flight_month,
        carrier_code,
        airport_code,
        incoming_delay_band,
        cast(count(*) as bigint) as turns,
        cast(sum(
            case
                when outgoing_delay_minutes >= {{ var('on_time_threshold_minutes') }} then 1
                else 0
            end
        ) as bigint) as late_departures,
        cast(sum(passed_on_minutes + absorbed_minutes) as bigint) as incoming_late_minutes_total,
        cast(sum(passed_on_minutes) as bigint) as passed_on_minutes_total,
        cast(sum(absorbed_minutes) as bigint) as absorbed_minutes_total,
        cast(sum(added_minutes) as bigint) as added_minutes_total

    from turns
    group by flight_month, carrier_code, airport_code, incoming_delay_band

),

final as (

    select
        {{ hash_key(['flight_month', 'carrier_code', 'airport_code', 'incoming_delay_band']) }}
            as delay_propagation_id,
        carrier_code,
        airport_code,
        incoming_delay_band,
        flight_month,
        turns,
        late_departures,
        incoming_late_minutes_total,
        passed_on_minutes_total,
        absorbed_minutes_total,
        added_minutes_total,
        cast(passed_on_minutes_total as {{ type_double() }})
        / nullif(incoming_late_minutes_total, 0) as passed_on_share

    from measured

)

select * from final
