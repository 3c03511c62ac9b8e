with observations as (

    select * from {{ ref('int_weather_corrected') }}

)

select * from observations
