with airlines as (

    select * from {{ ref('stg_nycflights13__airlines') }}

),

carriers as (

    select * from {{ ref('carriers') }}

),

ordered_names as (

    select
        carrier_code,
        carrier_name,
        row_number() over (
            partition by carrier_code order by first_year_of_use desc
        ) as names_since

    from carriers

),

-- A name that is still in use has no last year, and neither has its code.
years_of_use as (

    select
        carrier_code,
        cast(min(first_year_of_use) as integer) as first_year_of_use,
        cast(
            case when count(*) = count(last_year_of_use) then max(last_year_of_use) end
            as integer
        ) as last_year_of_use

    from carriers
    group by carrier_code

),

known_carriers as (

    select
        years_of_use.carrier_code,
        ordered_names.carrier_name,
        years_of_use.first_year_of_use,
        years_of_use.last_year_of_use

    from years_of_use
    inner join ordered_names
        on
            years_of_use.carrier_code = ordered_names.carrier_code
            and ordered_names.names_since = 1

),

named as (

    select
        coalesce(airlines.carrier_code, known_carriers.carrier_code) as carrier_code,
        coalesce(airlines.carrier_name, known_carriers.carrier_name) as carrier_name,
        known_carriers.first_year_of_use,
        known_carriers.last_year_of_use,
        airlines.raw_file_id,
        airlines.raw_row_number

    from airlines
    full outer join known_carriers on airlines.carrier_code = known_carriers.carrier_code

)

select * from named
