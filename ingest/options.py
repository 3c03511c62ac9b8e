"""The options that more than one command has."""

import click

target_option = click.option(
    "--target",
    envvar="DBT_TARGET",
    metavar="NAME",
    help="Target in profiles.yml.  [default: its own; environment: DBT_TARGET]",
)
landing_option = click.option(
    "--landing",
    envvar="ONTIME_LANDING",
    metavar="FOLDER-OR-URL",
    help="The landing zone.  [default: landing/ in the project; environment: ONTIME_LANDING]",
)
