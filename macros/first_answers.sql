{% macro first_answers() %}
    {%- if not execute -%}{{- return('') -}}{%- endif -%}

    {%- set total = run_query(
        "select count(*), min(flight_date), max(flight_date),"
        ~ " 100.0 * sum(case when is_arrival_on_time then 1 else 0 end) / nullif(count(*), 0)"
        ~ " from " ~ ref('fct_flights')
    ).rows[0] -%}
    {%- if total[0] == 0 -%}
        {{- print("No flights yet: put files into landing/nycflights13/flights/ and load them.") -}}
        {{- return('') -}}
    {%- endif -%}
    {{- print(
        "\n" ~ "{:,}".format(total[0] | int) ~ " flights from " ~ total[1] ~ " to " ~ total[2] ~ ", "
        ~ "%.1f" | format(total[3] | float) ~ " % arrived on time (of all scheduled, as DOT counts)."
    ) -}}

    {%- set questions = {
        'Which airlines arrive on time?':
            "carrier_name as label from " ~ ref('rpt_carrier_months'),
        'At which hour should one leave?':
            "concat(scheduled_departure_hour, ':00') as label from " ~ ref('rpt_hours_of_day'),
        'To which airports is one late?':
            "concat(airport_code, ' ', airport_name) as label from " ~ ref('rpt_airport_months')
            ~ " where direction = 'arrivals'",
    } -%}
    {%- for question, labels in questions.items() -%}
        {%- set best_first = run_query(
            "select label, 100.0 * sum(arrivals_on_time) / sum(scheduled_flights) as rate,"
            ~ " sum(scheduled_flights) as flights"
            ~ " from (select arrivals_on_time, scheduled_flights, " ~ labels ~ ") as labelled"
            ~ " group by label having sum(scheduled_flights) >= 100 order by rate desc"
        ).rows | list -%}
        {{- print("\n" ~ question) -}}
        {%- for label, rate, flights in best_first[:3] + best_first[3:][-3:] -%}
            {%- if loop.index == 4 -%}{{- print("    ...") -}}{%- endif -%}
            {{- print(
                "  " ~ "%5.1f %% of " | format(rate | float)
                ~ "%7s flights  " | format("{:,}".format(flights | int)) ~ label
            ) -}}
        {%- endfor -%}
    {%- endfor -%}
    {{- print("\n`make docs` shows every table and column; README.md has a worked question.") -}}
{% endmacro %}
