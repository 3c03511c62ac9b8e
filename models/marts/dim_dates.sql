with days as (

    {{ dbt.date_spine(
        'day',
        "cast('" ~ var('calendar_start_date') ~ "' as date)",
        "cast('" ~ var('calendar_end_date') ~ "' as date)"
    ) }}

),

us_holidays as (

    select * from {{ ref('us_holidays') }}

),

dated as (

    select cast(date_day as date) as date_day
    from days

),

numbered as (

    select
        date_day,
        cast(extract(year from date_day) as integer) as calendar_year,
        cast(extract(quarter from date_day) as integer) as calendar_quarter,
        cast(extract(month from date_day) as integer) as month_of_year,
        cast(extract(day from date_day) as integer) as day_of_month,
        -- 1 January 1900 was a Monday: engines number the days of the week differently.
        cast(
            mod({{ dbt.datediff("cast('1900-01-01' as date)", 'date_day', 'day') }}, 7) + 1
            as integer
        ) as iso_day_of_week,
        cast({{ dbt.date_trunc('month', 'date_day') }} as date) as month_start_date

    from dated

),

named as (

    select
        date_day,
        case month_of_year
            {%- for name in [
                'January', 'February', 'March', 'April', 'May', 'June', 'July',
                'August', 'September', 'October', 'November', 'December',
            ] %}
            when {{ loop.index }} then '{{ name }}'
            {%- endfor %}
        end as month_name,
        case iso_day_of_week
            {%- for name in [
                'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday',
            ] %}
            when {{ loop.index }} then '{{ name }}'
            {%- endfor %}
        end as day_name,
        calendar_year,
        calendar_quarter,
        month_of_year,
        day_of_month,
        iso_day_of_week,
        iso_day_of_week >= 6 as is_weekend,
        month_start_date

    from numbered

),

with_holidays as (

    select
        named.date_day,
        named.month_name,
        named.day_name,
        us_holidays.holiday_name,
        named.calendar_year,
        named.calendar_quarter,
        named.month_of_year,
        named.day_of_month,
        named.iso_day_of_week,
        named.is_weekend,
        us_holidays.holiday_date is not null as is_us_holiday,
        named.month_start_date

    from named
    left join us_holidays on named.date_day = us_holidays.holiday_date

)

select * from with_holidays
