-- What BTS derives itself is what the marts compute: late or not, groups of delay and distance,
-- minutes late, elapsed time. In the 6,068 flights measured there is no exception; one row per
-- file, month and figure that differs in more than one of a thousand flights.
{% set figures = [
    ('departure late', 'is_reported_departure_late',
     'flights.departure_delay_minutes >= ' ~ var('on_time_threshold_minutes')),
    ('arrival late', 'is_reported_arrival_late', 'not flights.is_arrival_on_time'),
    ('departure delay group', 'reported_departure_delay_group', 'flights.departure_delay_group'),
    ('arrival delay group', 'reported_arrival_delay_group', 'flights.arrival_delay_group'),
    ('late departure minutes', 'reported_late_departure_minutes',
     'flights.late_departure_minutes'),
    ('late arrival minutes', 'reported_late_arrival_minutes', 'flights.late_arrival_minutes'),
    ('distance group', 'reported_distance_group', 'flights.distance_group'),
    ('elapsed minutes', 'actual_elapsed_minutes',
     'flights.taxi_out_minutes + flights.air_time_minutes + flights.taxi_in_minutes'),
] %}

with staged as (

    select * from {{ untested(ref('stg_bts__flights')) }}

),

flights as (

    select
        *,
        case
            when departure_delay_minutes > 0 then departure_delay_minutes
            else departure_delay_minutes * 0
        end as late_departure_minutes,
        case
            when arrival_delay_minutes > 0 then arrival_delay_minutes
            else arrival_delay_minutes * 0
        end as late_arrival_minutes,
        case
            when departure_delay_minutes is not null
                then
                    least(
                        greatest(cast(floor(departure_delay_minutes / 15.0) as integer), -2), 12
                    )
        end as departure_delay_group,
        case
            when arrival_delay_minutes is not null
                then least(greatest(cast(floor(arrival_delay_minutes / 15.0) as integer), -2), 12)
        end as arrival_delay_group,
        case
            when distance_miles is not null
                then least(cast(floor(distance_miles / 250.0) as integer) + 1, 11)
        end as distance_group

    from {{ untested(ref('fct_flights')) }}
    where source = 'bts'

),

compared as (

    select
        {%- for _, reported, computed in figures %}
        staged.{{ reported }} = ({{ computed }}) as is_same_{{ loop.index }},
        {%- endfor %}
        staged.raw_file_id,
        flights.flight_month

    from staged
    inner join
        flights
        on
            staged.raw_file_id = flights.raw_file_id
            and staged.raw_row_number = flights.raw_row_number

),

counted as (

    select
        {%- for _ in figures %}
        count(is_same_{{ loop.index }}) as flights_{{ loop.index }},
        sum(case when not is_same_{{ loop.index }} then 1 else 0 end) as others_{{ loop.index }},
        {%- endfor %}
        raw_file_id,
        flight_month

    from compared
    group by raw_file_id, flight_month

)

{% for figure, _, _ in figures %}
select
    raw_file_id,
    flight_month,
    '{{ figure }}' as figure,
    flights_{{ loop.index }} as flights,
    others_{{ loop.index }} as exceptions

from counted
where others_{{ loop.index }} * 1000 > flights_{{ loop.index }}
{{ "union all" if not loop.last }}
{%- endfor %}
