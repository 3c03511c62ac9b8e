{#-
    At the start of a run: makes known what the loader wrote beside the database. On DuckDB and
    PostgreSQL the raw tables are in the database.
-#}
{% macro register_raw_tables() %}
    {{- adapter.dispatch('register_raw_tables', 'ontime')() -}}
{% endmacro %}

{% macro default__register_raw_tables() %}{% endmacro %}

{#-
    The loader leaves Parquet files in a folder for each raw table, and whole copies of its
    registry of files, of which the one with the greatest number counts. A row is there if the
    registry has its file and load: the views in `raw` show these, those in `raw_files` all. All
    views read one view of the registry, which is replaced last, and with it all at one moment.
-#}
{% macro spark__register_raw_tables() %}
    {%- if not execute -%}{{- return('') -}}{%- endif -%}
    {%- set lake = env_var('ONTIME_LAKE', 'warehouse/lake') -%}
    {%- if '://' not in lake and not lake.startswith('/') -%}
        {%- set lake = flags.PROJECT_DIR ~ '/' ~ lake -%}
    {%- endif -%}
    {%- set folder = lake.rstrip('/') ~ '/raw' -%}
    {#- A snapshot that was lost or removed by hand is followed by another one of its number. -#}
    {%- set number, written_at = run_query(
        "select max(snapshot_number), cast(max(_metadata.file_modification_time) as string)"
        ~ " from parquet.`" ~ folder ~ "/landed_files`"
    ).rows[0] -%}
    {%- set registered = adapter.get_relation(none, 'raw', 'landed_files') -%}
    {%- set snapshot = folder ~ '@' ~ number ~ '@' ~ written_at -%}
    {%- if registered and 'ontime.snapshot=' ~ snapshot ~ ']' in registered.information -%}
        {{- return('') -}}
    {%- endif -%}

    {%- set registry -%}
        as select * except (snapshot_number) from raw_files.landed_files
        where snapshot_number = {{ number }}
    {%- endset -%}
    {%- do run_query("create database if not exists raw_files") -%}
    {%- do run_query("create database if not exists raw") -%}
    {%- do register_files('landed_files', folder) -%}
    {%- do run_query("create view if not exists raw.landed_files " ~ registry) -%}
    {%- for row in run_query(
        "select distinct element_at(split(path, '/'), -2) from binaryFile.`" ~ folder ~ "/*`"
        ~ " where path like '%.parquet'"
    ).rows if row[0] != 'landed_files' -%}
        {%- do register_files(row[0], folder) -%}
        {%- do run_query(
            "create or replace view raw." ~ row[0] ~ " as select files.* from raw_files." ~ row[0]
            ~ " as files left semi join raw.landed_files as landed on landed.is_current"
            ~ " and files._dlt_load_id = landed._dlt_load_id and " ~ (
                "files.source_name = landed.source_name and files.table_name = landed.table_name"
                ~ " and files.file_id = landed.file_id"
                if row[0] == 'rejected_rows' else
                "files._file_id = landed.file_id"
                ~ " and concat(landed.source_name, '_', landed.table_name) = '" ~ row[0] ~ "'"
            )
        ) -%}
    {%- endfor -%}
    {%- do run_query(
        "create or replace view raw.landed_files"
        ~ " tblproperties ('ontime.snapshot' = '" ~ snapshot ~ "') " ~ registry
    ) -%}
{% endmacro %}

{#- Registers all Parquet files of a folder as a table, with the columns that any of them has. -#}
{% macro register_files(table, folder) %}
    {%- do run_query("drop table if exists raw_files." ~ table) -%}
    {%- do run_query(
        "create table raw_files." ~ table ~ " using parquet options (mergeSchema 'true')"
        ~ " location '" ~ folder ~ "/" ~ table ~ "'"
    ) -%}
{% endmacro %}
