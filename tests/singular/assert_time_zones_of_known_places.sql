-- Places whose zone is easily taken for another, and the zone they must have; each must be there.
{% set zones = {
    'GUM': 'Pacific/Guam',
    'SPN': 'Pacific/Saipan',
    'ROP': 'Pacific/Saipan',
    'YAP': 'Pacific/Chuuk',
    'ROR': 'Pacific/Palau',
    'PPG': 'Pacific/Pago_Pago',
    'SJU': 'America/Puerto_Rico',
    'STT': 'America/St_Thomas',
    'STX': 'America/St_Thomas',
    'PHX': 'America/Phoenix',
    'YUM': 'America/Phoenix',
    'BLD': 'America/Los_Angeles',
    'HNL': 'Pacific/Honolulu',
    'ANC': 'America/Anchorage',
    'SNP': 'America/Anchorage',
    'ADK': 'America/Adak',
    'IND': 'America/Indiana/Indianapolis',
    'SBN': 'America/Indiana/Indianapolis',
    'EVV': 'America/Chicago',
    'BOI': 'America/Boise',
    'PFN': 'America/Chicago',
} %}

with expected as (

    {%- for airport_code, time_zone in zones.items() %}
    select
        '{{ airport_code }}' as airport_code,
        '{{ time_zone }}' as time_zone
    {{ "union all" if not loop.last }}
    {%- endfor %}

)

select
    expected.airport_code,
    expected.time_zone as expected_zone,
    dim_airports.time_zone as found_zone
from expected
left join {{ ref('dim_airports') }} as dim_airports
    on expected.airport_code = dim_airports.airport_code
where dim_airports.time_zone is null or expected.time_zone <> dim_airports.time_zone
