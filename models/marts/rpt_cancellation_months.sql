{{ config(**by_month('fct_flights')) }}

with flights as (

    select
        flight_month,
        carrier_code,
        origin_airport_code,
        flight_status,
        coalesce(cancellation_reason, 'not given') as cancellation_reason

    from {{ ref('fct_flights') }}
    {{ where_due() }}

),

scheduled as (

    select
        flight_month,
        carrier_code,
        origin_airport_code,
        cast(count(*) as bigint) as scheduled_flights

    from flights
    group by flight_month, carrier_code, origin_airport_code

),

cancelled as (

    select
        flight_month,
        carrier_code,
        origin_airport_code,
        cancellation_reason,
        cast(count(*) as bigint) as cancelled_flights

    from flights
    where flight_status = 'cancelled'
    group by flight_month, carrier_code, origin_airport_code, cancellation_reason

),

final as (

    select
        {{ hash_key([
            'cancelled.flight_month',
            'cancelled.carrier_code',
            'cancelled.origin_airport_code',
            'cancelled.cancellation_reason',
        ]) }} as cancellation_month_id,
        cancelled.carrier_code,
        cancelled.origin_airport_code,
        cancelled.cancellation_reason,
        cancelled.flight_month,
        cancelled.cancelled_flights,
        scheduled.scheduled_flights,
        cast(cancelled.cancelled_flights as {{ type_double() }})
        / nullif(scheduled.scheduled_flights, 0) as cancellation_rate

    from cancelled
    inner join
        scheduled
        on
            cancelled.flight_month = scheduled.flight_month
            and cancelled.carrier_code = scheduled.carrier_code
            and cancelled.origin_airport_code = scheduled.origin_airport_code

)

select * from final
