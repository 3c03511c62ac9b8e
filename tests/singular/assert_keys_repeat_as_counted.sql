-- How often keys that one would expect to be unique do repeat in the bundled files: the reason
-- why the grain of fct_flights has six columns. Silent where another source holds some flights.
with flights as (

    select * from {{ untested(ref('fct_flights')) }}
    where raw_file_id = '{{ var('nycflights13_file_ids')['flights'] }}'

),

{% set keys = {
    'flight_date, carrier_code, flight_number': 24,
    'flight_date, carrier_code, flight_number, origin_airport_code': 0,
    'scheduled_departure_at, carrier_code, flight_number': 0,
    'flight_date, flight_number': 29768,
    'flight_date, origin_airport_code, destination_airport_code, carrier_code, scheduled_departure_at': 94,
} -%}
{%- for key in keys %}
repeats_{{ loop.index }} as (

    select {{ key }}
    from flights
    group by {{ key }}
    having count(*) > 1

),
{% endfor %}
routes_with_two_distances as (

    select
        origin_airport_code,
        destination_airport_code

    from flights
    group by origin_airport_code, destination_airport_code
    having count(distinct distance_miles) > 1

),

tail_numbers_of_two_carriers as (

    select tail_number
    from flights
    where tail_number is not null
    group by tail_number
    having count(distinct carrier_code) > 1

),

counted as (
    {% for key, rows in keys.items() %}
    select
        '{{ key }}' as fact,
        {{ rows }} as expected,
        count(*) as found

    from repeats_{{ loop.index }}
    union all
    {%- endfor %}
    select
        'routes with two distances' as fact,
        2 as expected,
        count(*) as found

    from routes_with_two_distances
    union all
    select
        'tail numbers of two carriers' as fact,
        17 as expected,
        count(*) as found

    from tail_numbers_of_two_carriers

)

select * from counted
where expected <> found and 336776 = (select count(*) from flights)
