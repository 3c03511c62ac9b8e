"""What the figures of results.json come to: the Markdown that run.py puts into README.md."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

LOADER = "ontime"
LIMIT = "limit"
MIB = 1 << 20
GOAL_RATIOS = {1: 2.5, 10: 1.5, 30: 1.5}
GOAL_MEMORY_SIZE = 90
GOAL_MEMORY_BYTES = 10**9
GOAL_UNCHANGED_SECONDS = 2
GOAL_UNCHANGED_FILES = 1000


@dataclass(frozen=True)
class Summary:
    """The medians of one contestant's runs at one size; `ratio` is that of the rounds' ratios."""

    rows: int
    runs: int
    seconds: float
    cpu_seconds: float
    peak_bytes: float
    ratio: float


def by_size(results: dict) -> dict[int, dict[str, Summary]]:
    """Return the summaries by size and contestant."""
    sizes: dict[int, dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for run in results["runs"]:
        sizes[run["size"]][run["name"]].append(run)
    summaries: dict[int, dict[str, Summary]] = {}
    for size, contestants in sorted(sizes.items()):
        limits = {run["round"]: run["seconds"] for run in contestants[LIMIT]}
        summaries[size] = {
            name: Summary(
                rows=size * results["input"]["rows"],
                runs=len(runs),
                seconds=median(run["seconds"] for run in runs),
                cpu_seconds=median(run["cpu_seconds"] for run in runs),
                peak_bytes=median(run["peak_bytes"] for run in runs),
                ratio=median(run["seconds"] / limits[run["round"]] for run in runs),
            )
            for name, runs in contestants.items()
        }
    return summaries


def markdown(results: dict, *, with_plot: bool) -> str:
    """Return everything that the figures say."""
    sizes = by_size(results)
    parts = [setting(results), "### Goals", _goals(sizes, results["unchanged"])]
    for size, summaries in sizes.items():
        rows = f"{size * results['input']['rows']:,} rows"
        megabytes = f"{size * results['input']['bytes'] / 1e6:,.0f} MB"
        parts += [f"### {size}x: {rows}, {megabytes}", _speeds(summaries)]
    if with_plot:
        parts.append("![Seconds and peak memory against rows](growth.svg)")
    if results["unchanged"]:
        parts += ["### Nothing new", _unchanged(results["unchanged"])]
    parts += ["### What survives", _survival(results["survival"])]
    parts += ["### The contestants", _contestants(results)]
    return "\n\n".join(parts)


def table(header: tuple[str, ...], rows: list[tuple]) -> str:
    """Return a Markdown table; a column whose cells begin with a digit is set to the right."""
    cells = [[str(cell).replace("|", r"\|") for cell in row] for row in rows]
    is_right = [
        all(row[column][:1].isdigit() or row[column] == "-" for row in cells)
        for column in range(len(header))
    ]
    lines = [header, ["--:" if right else "---" for right in is_right], *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def setting(results: dict) -> str:
    """Say when and on what machine the figures were measured."""
    machine = results["machine"]
    return (
        f"Measured on {results['date']}: {machine['cpu']}, {machine['cores']} cores,"
        f" {machine['memory_bytes'] / (1 << 30):.0f} GiB of memory, {machine['os']},"
        f" Python {machine['python']}."
    )


def _goals(sizes: dict[int, dict[str, Summary]], unchanged: dict) -> str:
    def found(size: int) -> Summary | None:
        return sizes.get(size, {}).get(LOADER)

    goals: list[tuple[str, float, float | None, str]] = []
    for size, goal in GOAL_RATIOS.items():
        ratio = found(size).ratio if found(size) else None
        goals.append((f"{size}x: times the limit", goal, ratio, "{:.2f}"))
    peak = found(GOAL_MEMORY_SIZE).peak_bytes / 1e9 if found(GOAL_MEMORY_SIZE) else None
    name = f"{GOAL_MEMORY_SIZE}x: peak memory, GB"
    goals.append((name, GOAL_MEMORY_BYTES / 1e9, peak, "{:.2f}"))
    is_measured = unchanged.get("files") == GOAL_UNCHANGED_FILES
    seconds = median(unchanged["seconds"]) if is_measured else None
    name = f"nothing new in {GOAL_UNCHANGED_FILES:,} files: seconds"
    goals.append((name, GOAL_UNCHANGED_SECONDS, seconds, "{:.2f}"))
    return table(
        ("goal", "under", "measured", "met"),
        [
            (
                name,
                f"{goal:g}",
                "-" if value is None else form.format(value),
                "not measured" if value is None else "yes" if value < goal else "**no**",
            )
            for name, goal, value, form in goals
        ],
    )


def _speeds(summaries: dict[str, Summary]) -> str:
    return table(
        ("contestant", "seconds", "times the limit", "rows/s", "CPU seconds", "peak MiB", "runs"),
        [
            (
                f"**{name}**" if name == LOADER else name,
                f"{each.seconds:.2f}",
                f"{each.ratio:.2f}",
                f"{each.rows / each.seconds:,.0f}",
                f"{each.cpu_seconds:.2f}",
                f"{each.peak_bytes / MIB:,.0f}",
                each.runs,
            )
            for name, each in sorted(summaries.items(), key=lambda item: item[1].seconds)
        ],
    )


def _unchanged(unchanged: dict) -> str:
    text = (
        f"{unchanged['files']:,} files that are all loaded: a run takes"
        f" {median(unchanged['seconds']):.2f} s (median of {len(unchanged['seconds'])}); the first,"
        f" which loaded them, took {unchanged['first_seconds']:.2f} s."
    )
    if unchanged["bytes_read"] is not None:
        landed, warehouse = (unchanged["bytes_read"][of] for of in ("landing", "warehouse"))
        text += (
            f" It reads {landed:,} bytes of the {unchanged['bytes']:,} that the files hold, and"
            f" {warehouse:,} of the warehouse, says strace."
        )
    return text


def _survival(survival: dict[str, dict]) -> str:
    return table(
        (
            "contestant",
            "flights: rows equal",
            "values equal",
            "changed in",
            "tricky.csv",
            "lost in",
        ),
        [
            (
                name,
                *_flights_survival(each.get("flights")),
                *_tricky_survival(each.get("tricky.csv")),
            )
            for name, each in survival.items()
        ],
    )


def _flights_survival(found: dict | None) -> Iterator[str]:
    if found is None:
        return "-", "-", "not loaded"
    equal = found["values"] - sum(found["values_lost"].values())
    extra = found["rows_in_table"] - found["rows"]
    rows = f"{found['rows_equal']:,} of {found['rows']:,}" + (f", {extra:+,}" if extra else "")
    share = f"{_floor_percent(equal, found['values'])} %"
    return rows, share, _columns_lost(found)


def _tricky_survival(found: dict | None) -> Iterator[str]:
    if found is None:
        return "-", "not loaded"
    equal = found["values"] - sum(found["values_lost"].values())
    return f"{equal} of {found['values']} cells", _columns_lost(found)


def _columns_lost(found: dict) -> str:
    lost, columns = found["values_lost"], found["values"] // found["rows"]
    if len(lost) == columns:
        return f"all {columns} columns"
    return ", ".join(f"`{name}`" for name in lost) or "nothing"


def _floor_percent(part: int, whole: int) -> str:
    """Return a percentage that says 100 only where nothing is missing."""
    return "100" if part == whole else f"{part * 1000 // whole / 10:.1f}"


def _contestants(results: dict) -> str:
    return table(
        ("contestant", "what it is", "versions", "failed"),
        [
            (
                name,
                about,
                ", ".join(f"{of} {v}" for of, v in results["versions"].get(name, {}).items())
                or "-",
                _failed(results["failures"].get(name, {})),
            )
            for name, about in results["contestants"].items()
        ],
    )


def _failed(errors: dict[str, str]) -> str:
    tasks: dict[str, list[str]] = defaultdict(list)
    for task, error in errors.items():
        tasks[error].append(task)
    return "; ".join(f"{', '.join(each)}: `{error}`" for error, each in tasks.items())
