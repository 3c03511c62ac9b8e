-- Every BTS file has the columns without which its flights could not be told apart or counted:
-- one row per file and column that it lacks, under the names by which it may come. The command's
-- output has the rows as well.
{%- set landed_files = ref('stg_ingest__landed_files') %}
{%- set lacking %}
with landed_files as (

    select
        landing_path,
        coalesce(column_names_json, '') as column_names_json

    from {{ landed_files }}
    where
        is_current
        and rows_loaded > 0
        and source_name = 'bts'
        and table_name = 'on_time'

),

lacking as (
    {% for column, alternatives in bts_required_columns().items() %}
    select
        landing_path,
        '{{ column }}' as missing_column,
        '{{ alternatives | map("join", " and ") | join(", or ") }}' as expected_columns

    from landed_files
    where {{ bts_lacks(alternatives) }}
    {{ "union all" if not loop.last }}
    {%- endfor %}

)

select * from lacking
{% endset %}
{%- do say_rows(landed_files, lacking, ['landing_path', 'missing_column', 'expected_columns']) %}

{{ lacking }}
