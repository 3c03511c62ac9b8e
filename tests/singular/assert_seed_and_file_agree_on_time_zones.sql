-- An airport has the same zone whether the delivered file is loaded or not.
select
    airports.airport_code,
    airports.time_zone,
    us_airports.time_zone as zone_of_seed
from {{ ref('int_airports_corrected') }} as airports
inner join {{ ref('us_airports') }} as us_airports
    on airports.airport_code = us_airports.airport_code
where airports.time_zone <> us_airports.time_zone
