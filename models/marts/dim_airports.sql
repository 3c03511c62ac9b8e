with airports as (

    select * from {{ ref('int_airports_corrected') }}

)

select * from airports
