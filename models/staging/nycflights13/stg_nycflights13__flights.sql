with source as (

    select * from {{ source('nycflights13', 'flights') }}

),

renamed as (

    select
        carrier as carrier_code,
        {{ raw_cast('flight', 'integer') }} as flight_number,
        {{ text_or_null('tailnum') }} as tail_number,
        origin as origin_airport_code,
        dest as destination_airport_code,
        {{ raw_cast('distance', 'integer') }} as distance_miles,
        {{ raw_cast('air_time', 'integer') }} as air_time_minutes,
        {{ raw_cast('sched_dep_time', 'integer') }} as scheduled_departure_hhmm,
        {{ raw_cast('dep_time', 'integer') }} as departure_hhmm,
        {{ raw_cast('dep_delay', 'integer') }} as departure_delay_minutes,
        {{ raw_cast('sched_arr_time', 'integer') }} as scheduled_arrival_hhmm,
        {{ raw_cast('arr_time', 'integer') }} as arrival_hhmm,
        {{ raw_cast('arr_delay', 'integer') }} as arrival_delay_minutes,
        {{ raw_cast('hour', 'integer') }} as scheduled_departure_hour,
        {{ raw_cast('minute', 'integer') }} as scheduled_departure_minute,
        {{ date_from_parts_or_null('year', 'month', 'day') }} as flight_date,
        {{ raw_cast('time_hour', 'timestamp') }} as scheduled_departure_hour_at,
        _file_id as raw_file_id,
        _row_number as raw_row_number

    from source

)

select * from renamed
