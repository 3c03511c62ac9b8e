{#-
    The names of the BTS on-time files and what they mean: the one table from which the staging
    model, the test of its values and the test of required columns are made. One line per meaning:

        its column in stg_bts__flights: (how it is cast, the raw columns that may hold it)

    The raw columns stand in the order: monthly files since 2018, monthly files until 2017 and data
    expo of 2009, download page; of several that hold a value the first is taken. A name that all
    shapes share but for upper case and underscores stands once. What a raw column holds that is
    not named here is described with the source; the flight date has a macro of its own.
-#}
{% macro bts_columns() %}
    {{- return({
        'carrier_code': ('code', ['reporting_airline', 'unique_carrier', 'op_unique_carrier']),
        'iata_carrier_code': ('code', ['iata_code_reporting_airline', 'carrier', 'op_carrier']),
        'tail_number': ('text', ['tail_number', 'tail_num']),
        'origin_airport_code': ('code', ['origin']),
        'origin_airport_id': ('text', ['origin_airport_id']),
        'origin_city_name': ('text', ['origin_city_name']),
        'origin_state_code': ('text', ['origin_state', 'origin_state_abr']),
        'destination_airport_code': ('code', ['dest']),
        'destination_airport_id': ('text', ['dest_airport_id']),
        'destination_city_name': ('text', ['dest_city_name']),
        'destination_state_code': ('text', ['dest_state', 'dest_state_abr']),
        'cancellation_code': ('text', ['cancellation_code']),
        'diversion_1_airport_code': ('text', ['div1_airport']),
        'diversion_2_airport_code': ('text', ['div2_airport']),
        'diversion_3_airport_code': ('text', ['div3_airport']),
        'diversion_4_airport_code': ('text', ['div4_airport']),
        'diversion_5_airport_code': ('text', ['div5_airport']),
        'flight_number': (
            'whole_number',
            ['flight_number_reporting_airline', 'flight_num', 'op_carrier_fl_num', 'fl_num']
        ),
        'distance_miles': ('whole_number', ['distance']),
        'scheduled_departure_hhmm': ('whole_number', ['crs_dep_time']),
        'departure_hhmm': ('whole_number', ['dep_time']),
        'departure_delay_minutes': ('whole_number', ['dep_delay']),
        'taxi_out_minutes': ('whole_number', ['taxi_out']),
        'wheels_off_hhmm': ('whole_number', ['wheels_off']),
        'wheels_on_hhmm': ('whole_number', ['wheels_on']),
        'taxi_in_minutes': ('whole_number', ['taxi_in']),
        'scheduled_arrival_hhmm': ('whole_number', ['crs_arr_time']),
        'arrival_hhmm': ('whole_number', ['arr_time']),
        'arrival_delay_minutes': ('whole_number', ['arr_delay']),
        'scheduled_elapsed_minutes': ('whole_number', ['crs_elapsed_time']),
        'actual_elapsed_minutes': ('whole_number', ['actual_elapsed_time']),
        'air_time_minutes': ('whole_number', ['air_time']),
        'carrier_delay_minutes': ('whole_number', ['carrier_delay']),
        'weather_delay_minutes': ('whole_number', ['weather_delay']),
        'nas_delay_minutes': ('whole_number', ['nas_delay']),
        'security_delay_minutes': ('whole_number', ['security_delay']),
        'late_aircraft_delay_minutes': ('whole_number', ['late_aircraft_delay']),
        'first_departure_hhmm': ('whole_number', ['first_dep_time']),
        'gate_return_minutes': ('whole_number', ['total_add_g_time', 'total_add_gtime']),
        'longest_gate_return_minutes': ('whole_number', ['longest_add_g_time', 'longest_add_gtime']),
        'diversion_airport_landings': ('whole_number', ['div_airport_landings']),
        'diversion_elapsed_minutes': ('whole_number', ['div_actual_elapsed_time']),
        'diversion_arrival_delay_minutes': ('whole_number', ['div_arr_delay']),
        'diversion_distance_miles': ('whole_number', ['div_distance']),
        'reported_late_departure_minutes': ('whole_number', ['dep_delay_minutes', 'dep_delay_new']),
        'reported_departure_delay_group': (
            'whole_number', ['departure_delay_groups', 'dep_delay_group']
        ),
        'reported_late_arrival_minutes': ('whole_number', ['arr_delay_minutes', 'arr_delay_new']),
        'reported_arrival_delay_group': (
            'whole_number', ['arrival_delay_groups', 'arr_delay_group']
        ),
        'reported_distance_group': ('whole_number', ['distance_group']),
        'is_reported_cancelled': ('flag', ['cancelled']),
        'is_reported_diverted': ('flag', ['diverted']),
        'is_destination_reached': ('flag', ['div_reached_dest']),
        'is_reported_departure_late': ('flag', ['dep_del15']),
        'is_reported_arrival_late': ('flag', ['arr_del15']),
    }) -}}
{% endmacro %}

{#- The flight date is one column, or year, month and day. -#}
{% macro bts_date_columns() %}
    {{- return({
        'dates': ['flight_date', 'fl_date'],
        'years': ['year'],
        'months': ['month'],
        'days': ['dayof_month', 'day_of_month'],
    }) -}}
{% endmacro %}

{#- What a file must have: each is a list of alternatives, and all columns of one must be there. -#}
{% macro bts_required_columns() %}
    {%- set dates = bts_date_columns() -%}
    {%- set required = {'flight_date': []} -%}
    {%- for date in dates['dates'] -%}
        {%- do required['flight_date'].append([date]) -%}
    {%- endfor -%}
    {%- for day in dates['days'] -%}
        {%- do required['flight_date'].append(dates['years'] + dates['months'] + [day]) -%}
    {%- endfor -%}
    {%- for name in [
        'carrier_code', 'flight_number', 'origin_airport_code', 'destination_airport_code',
        'scheduled_departure_hhmm', 'departure_delay_minutes', 'arrival_delay_minutes',
    ] -%}
        {%- do required.update({name: bts_columns()[name][1] | map('string') | batch(1) | list}) -%}
    {%- endfor -%}
    {{- return(required) -}}
{% endmacro %}

{% macro bts_value(cast_as, columns) -%}
    {%- set present = [] -%}
    {%- for column in columns -%}
        {%- do present.append(
            "nullif(" ~ column ~ ", '')" if cast_as == 'code' else text_or_null(column)
        ) -%}
    {%- endfor -%}
    {%- set value = "coalesce(" ~ present | join(', ') ~ ")" if present | length > 1
        else present[0] -%}
    {%- if cast_as in ('code', 'text') -%}
        {{ value }}
    {%- elif cast_as == 'flag' -%}
        case {{ cast_or_null(value, 'whole_number') }} when 1 then true when 0 then false end
    {%- else -%}
        {{ cast_or_null(value, cast_as) }}
    {%- endif -%}
{%- endmacro %}

{% macro bts_flight_date() -%}
    {%- set columns = bts_date_columns() -%}
    {%- set date = bts_value('text', columns['dates']) -%}
    coalesce(
        {{ written_date_or_null(date) }},
        {{ date_from_parts_or_null(
            bts_value('text', columns['years']),
            bts_value('text', columns['months']),
            bts_value('text', columns['days'])
        ) }}
    )
{%- endmacro %}

{% macro bts_lacks(alternatives) -%}
    {%- set whole = [] -%}
    {%- for columns in alternatives -%}
        {%- set each = [] -%}
        {%- for column in columns -%}
            {%- do each.append("column_names_json like '%\"" ~ column ~ "\"%'") -%}
        {%- endfor -%}
        {%- do whole.append("(" ~ each | join(" and ") ~ ")") -%}
    {%- endfor -%}
    not ({{ whole | join(" or ") }})
{%- endmacro %}

{% macro bts_lacking(landed_files) %}
    with landed_files as (

        select
            landing_path,
            coalesce(column_names_json, '') as column_names_json

        from {{ landed_files }}
        where
            is_current
            and rows_loaded > 0
            and source_name = 'bts'
            and table_name = 'on_time'

    ),

    lacking as (
        {% for column, alternatives in bts_required_columns().items() %}
        select
            landing_path,
            '{{ column }}' as missing_column,
            '{{ alternatives | map("join", " and ") | join(", or ") }}' as expected_columns

        from landed_files
        where {{ bts_lacks(alternatives) }}
        {{ "union all" if not loop.last }}
        {%- endfor %}

    )

    select * from lacking
{% endmacro %}
