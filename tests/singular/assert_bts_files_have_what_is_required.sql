-- Every BTS file has the columns without which its flights could not be told apart or counted:
-- one row per file and column that it lacks, under the names by which it may come. The command's
-- output has the rows as well.
{%- set lacking = bts_lacking(ref('stg_ingest__landed_files')) %}
{%- do say_rows(
    ref('stg_ingest__landed_files'), lacking, ['landing_path', 'missing_column', 'expected_columns']
) %}

{{ lacking }}
