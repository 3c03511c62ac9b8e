-- The wall clock that the UTC hour and the station's time zone give is the one in the file.
select
    observations.weather_observation_id,
    staged.observation_date_local,
    staged.observation_hour_local,
    observations.observed_at_local as found

from {{ ref('stg_nycflights13__weather') }} as staged
inner join
    {{ ref('fct_weather_observations') }} as observations
    on
        staged.raw_file_id = observations.raw_file_id
        and staged.raw_row_number = observations.raw_row_number
where
    observations.observed_at_local is null
    or staged.observation_date_local is null
    or staged.observation_hour_local is null
    or staged.observation_date_local <> observations.observation_date_local
    or staged.observation_hour_local <> extract(hour from observations.observed_at_local)
