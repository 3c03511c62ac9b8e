with aircraft as (

    select * from {{ ref('int_aircraft_standardised') }}

)

select * from aircraft
