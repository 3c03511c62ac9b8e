{{ config(**by_month('fct_flights', lookups={'dim_airlines': ['carrier_code', 'carrier_name']})) }}

with flights as (

    select * from {{ ref('fct_flights') }}
    {{ where_due() }}

),

airlines as (

    select * from {{ ref('dim_airlines') }}

),

measured as (

    select
        flight_month,
        carrier_code,
        {{ measure_flights() }}

    from flights
    group by flight_month, carrier_code

),

final as (

    select
        {{ hash_key(['measured.flight_month', 'measured.carrier_code']) }} as carrier_month_id,
        measured.carrier_code,
        airlines.carrier_name,
        measured.flight_month,
        {%- for measure in flight_measures() %}
        measured.{{ measure }},
        {%- endfor %}
        {{ flight_rates() }}

    from measured
    left join airlines on measured.carrier_code = airlines.carrier_code

)

select * from final
