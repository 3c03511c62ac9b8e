-- No flight stays when its file is forgotten or replaced: each file and month of the unioned
-- flights is one of a current file, with all its records.
with unioned as (

    select
        source,
        raw_file_id,
        flight_month,
        count(*) as flights

    from {{ ref('int_flights_unioned') }}
    group by source, raw_file_id, flight_month

)

select unioned.*
from unioned
left join
    {{ ref('int_flight_files_ranked') }} as files
    on
        unioned.source = files.source
        and unioned.raw_file_id = files.raw_file_id
        and unioned.flight_month = files.flight_month
where files.raw_file_id is null or unioned.flights <> files.record_count
