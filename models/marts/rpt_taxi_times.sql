{{ config(**by_month('fct_flights')) }}

with flights as (

    select * from {{ ref('fct_flights') }}
    {{ where_due() }}

),

taxied as (

    select
        flight_month,
        origin_airport_code as airport_code,
        cast(extract(hour from departed_at_local) as integer) as hour_local,
        taxi_out_minutes,
        cast(null as integer) as taxi_in_minutes

    from flights
    where taxi_out_minutes is not null and departed_at_local is not null
    union all
    select
        flight_month,
        destination_airport_code as airport_code,
        cast(extract(hour from arrived_at_local) as integer) as hour_local,
        cast(null as integer) as taxi_out_minutes,
        taxi_in_minutes

    from flights
    where taxi_in_minutes is not null and arrived_at_local is not null

),

measured as (

    select
        flight_month,
        airport_code,
        hour_local,
        cast(count(taxi_out_minutes) as bigint) as taxi_out_flights,
        cast(sum(coalesce(taxi_out_minutes, 0)) as bigint) as taxi_out_minutes_total,
        avg(cast(taxi_out_minutes as {{ type_double() }})) as mean_taxi_out_minutes,
        {{ percentile(0.5, 'taxi_out_minutes') }} as median_taxi_out_minutes,
        {{ percentile(0.9, 'taxi_out_minutes') }} as p90_taxi_out_minutes,
        cast(count(taxi_in_minutes) as bigint) as taxi_in_flights,
        cast(sum(coalesce(taxi_in_minutes, 0)) as bigint) as taxi_in_minutes_total,
        avg(cast(taxi_in_minutes as {{ type_double() }})) as mean_taxi_in_minutes,
        {{ percentile(0.5, 'taxi_in_minutes') }} as median_taxi_in_minutes,
        {{ percentile(0.9, 'taxi_in_minutes') }} as p90_taxi_in_minutes

    from taxied
    group by flight_month, airport_code, hour_local

),

final as (

    select
        {{ hash_key(['flight_month', 'airport_code', 'hour_local']) }} as taxi_time_id,
        airport_code,
        hour_local,
        flight_month,
        taxi_out_flights,
        taxi_out_minutes_total,
        mean_taxi_out_minutes,
        median_taxi_out_minutes,
        p90_taxi_out_minutes,
        taxi_in_flights,
        taxi_in_minutes_total,
        mean_taxi_in_minutes,
        median_taxi_in_minutes,
        p90_taxi_in_minutes

    from measured

)

select * from final
