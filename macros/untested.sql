{#-
    `dbt build` tests what is new: the months that were built and the files that were loaded since
    all tests last passed. `dbt test`, and a full refresh, test everything. What was tested stands
    in `int_build_events`, too; while one test fails nothing is added there, and the next build
    tests the same months and files again.

    Which rows are new is told by `tested_by` in the `meta` of a model or source: the column that
    has the month or file, and of which node the months are (`raw`: the files that are loaded).
-#}

{#- dbt's hook for what a generic test reads. -#}
{% macro get_where_subquery(relation) -%}
    {%- set conditions = [config.get('where'), untested_parts(relation)] | select | list -%}
    {%- if conditions -%}
        (select * from {{ relation }} where ({{ conditions | join(') and (') }})) as dbt_subquery
    {%- else -%}
        {{ relation }}
    {%- endif -%}
{%- endmacro %}

{#- What a singular test reads of a relation. -#}
{% macro untested(relation) -%}
    {%- set condition = untested_parts(relation) -%}
    {{ "(select * from " ~ relation ~ " where " ~ condition ~ ") as untested_rows" if condition
        else relation }}
{%- endmacro %}

{#- The condition that leaves a relation's untested rows; nothing where all are to be tested. -#}
{% macro untested_parts(relation) %}
    {%- if not execute or flags.WHICH != 'build' or flags.FULL_REFRESH -%}{{- return('') -}}{%- endif -%}
    {%- if not (is_built('int_build_events') and is_built('int_flight_files_ranked')) -%}
        {{- return('') -}}
    {%- endif -%}
    {%- for node in graph.nodes.values() | list + graph.sources.values() | list
        if node.resource_type in ('model', 'source')
        and node.schema == relation.schema
        and (node.identifier or node.alias) == relation.identifier
        and node.config.meta.tested_by -%}
        {%- set rule = node.config.meta.tested_by -%}
        {%- set parts = run_query(
            files_with_events() if rule.of == 'raw'
            else latest_events(node.name if rule.of == 'itself' else rule.of)
        ).rows -%}
        {%- set untested = [] -%}
        {%- for part in parts if part['event_type'] != 'tested' -%}
            {%- do untested.append(
                "'" ~ part['file_id'] ~ "'" if rule.of == 'raw'
                else "cast('" ~ part['part'] ~ "' as date)"
            ) -%}
        {%- endfor -%}
        {{- return(
            '' if untested | length == parts | length
            else rule.column ~ " in (" ~ (untested | join(', ') or 'null') ~ ")"
        ) -}}
    {%- endfor -%}
    {{- return('') -}}
{% endmacro %}

{#-
    Query: the loads whose rows are there. One is tested when it and all months of its flights are:
    tests that compare staging with marts read both.
-#}
{% macro files_with_events() -%}
    {%- set part = dbt.concat([
        'landed_files.source_name', "'/'", 'landed_files.table_name', "' '",
        'landed_files.file_id', "'@'", 'landed_files._dlt_load_id',
    ]) -%}
    select
        {{ part }} as part,
        landed_files.file_id,
        landed_files.file_id as made_of,
        landed_files.loaded_at,
        min(case
            when files.part is null then 'built'
            when ranked.raw_file_id is not null and coalesce(months.event_type, '') <> 'tested'
                then 'built'
            else 'tested'
        end) as event_type
    from {{ graph.sources['source.ontime.ingest.landed_files'].relation_name }} as landed_files
    left join ({{ latest_events('raw') }}) as files on {{ part }} = files.part
    left join {{ graph.nodes['model.ontime.int_flight_files_ranked'].relation_name }} as ranked
        on landed_files.source_name = ranked.source and landed_files.file_id = ranked.raw_file_id
    left join ({{ latest_events('fct_flights') }}) as months
        on cast(ranked.flight_month as {{ dbt.type_string() }}) = months.part
    where landed_files.is_current
    group by {{ part }}, landed_files.file_id, landed_files.loaded_at
{%- endmacro %}

{#- At the end of a run in which every test passed: what was new is tested. -#}
{% macro note_tested(results) %}
    {%- if execute and flags.WHICH in ('build', 'test') and not flags.EMPTY
        and is_built('int_flight_files_ranked') -%}
        {%- set passed = results | selectattr('status', 'equalto', 'pass')
            | map(attribute='node.unique_id') | list -%}
        {%- set missing = graph.nodes.values() | selectattr('resource_type', 'equalto', 'test')
            | map(attribute='unique_id') | reject('in', passed) | list -%}
        {%- if not missing -%}
            {%- for node in graph.nodes.values() if node.config.meta.made_from -%}
                {%- do run_if_any(add_events(
                    "select * from (" ~ latest_events(node.name) ~ ") as events"
                    ~ " where event_type = 'built'", node.name, 'tested'
                )) -%}
            {%- endfor -%}
            {#- A file that was loaded meanwhile was not tested. -#}
            {{ add_events(
                "select * from (" ~ files_with_events() ~ ") as files where event_type <> 'tested'"
                ~ " and loaded_at < cast('" ~ run_started_at.strftime("%Y-%m-%d %H:%M:%S")
                ~ "+00:00' as " ~ type_moment() ~ ")", 'raw', 'tested'
            ) }}
        {%- endif -%}
    {%- endif -%}
{% endmacro %}
