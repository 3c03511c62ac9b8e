{#- Rows for which a condition does not hold; a condition that is null holds. -#}
{% test holds(model, condition) %}

    select * from {{ model }}
    where not ({{ condition }})

{% endtest %}
