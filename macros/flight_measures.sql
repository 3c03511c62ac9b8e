{#- Counts and totals of flights that can be added up further, by column name. -#}
{% macro flight_measures() %}
    {{- return({
        'scheduled_flights': '1',
        'arrived_flights': "case when flight_status = 'arrived' then 1 else 0 end",
        'cancelled_flights': "case when flight_status = 'cancelled' then 1 else 0 end",
        'diverted_flights': "case when flight_status = 'diverted' then 1 else 0 end",
        'unknown_status_flights': "case when flight_status = 'unknown' then 1 else 0 end",
        'departed_flights': 'case when departure_delay_minutes is not null then 1 else 0 end',
        'departures_on_time': 'case when is_departure_on_time then 1 else 0 end',
        'arrivals_on_time': 'case when is_arrival_on_time then 1 else 0 end',
        'departure_delay_minutes_total': 'coalesce(departure_delay_minutes, 0)',
        'arrival_delay_minutes_total': 'coalesce(arrival_delay_minutes, 0)',
        'late_arrival_minutes_total': 'case when arrival_delay_minutes > 0 then arrival_delay_minutes else 0 end',
        'distance_miles_total': 'coalesce(distance_miles, 0)',
    }) -}}
{% endmacro %}

{% macro measure_flights() %}
    {%- for name, expression in flight_measures().items() %}
    cast(sum({{ expression }}) as bigint) as {{ name }}{{ "," if not loop.last }}
    {%- endfor %}
{% endmacro %}

{% macro add_up_flights() %}
    {%- for name in flight_measures() %}
    cast(sum({{ name }}) as bigint) as {{ name }}{{ "," if not loop.last }}
    {%- endfor %}
{% endmacro %}

{% macro flight_rates() %}
    {%- set rates = {
        'on_time_arrival_rate': ('arrivals_on_time', 'scheduled_flights'),
        'on_time_arrival_rate_of_completed': ('arrivals_on_time', 'arrived_flights'),
        'on_time_departure_rate': ('departures_on_time', 'scheduled_flights'),
        'cancellation_rate': ('cancelled_flights', 'scheduled_flights'),
        'mean_departure_delay_minutes': ('departure_delay_minutes_total', 'departed_flights'),
        'mean_arrival_delay_minutes': ('arrival_delay_minutes_total', 'arrived_flights'),
        'mean_late_arrival_minutes': ('late_arrival_minutes_total', 'arrived_flights'),
    } %}
    {%- for name, (numerator, denominator) in rates.items() %}
    cast({{ numerator }} as {{ type_double() }}) / nullif({{ denominator }}, 0) as {{ name }}
    {{- "," if not loop.last }}
    {%- endfor %}
{% endmacro %}
