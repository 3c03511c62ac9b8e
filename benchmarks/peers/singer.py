"""Singer: `tap-csv-folder` piped into `target-duckdb` (Meltano's own tap-csv is not on PyPI)."""

# DuckDB as old as target-duckdb: with 1.5 the first row of each batch is lost.
# /// script
# dependencies = ["duckdb<1.2", "tap-csv-folder", "target-duckdb"]
# ///

import json
import subprocess
import sys
from pathlib import Path

csv, database = map(Path, sys.argv[1:])
settings = {
    "tap-csv-folder": {
        "filesystem": "local",
        "path": str(csv.parent),
        "read_mode": "one_stream_per_file",
    },
    "target-duckdb": {"filepath": str(database), "default_target_schema": "main"},
}
commands = []
for tool, config in settings.items():
    path = Path(f"{database}.{tool}.json")
    path.write_text(json.dumps(config))
    commands.append([Path(sys.executable).with_name(tool), "--config", path])
with subprocess.Popen(commands[0], stdout=subprocess.PIPE) as tap:
    target = subprocess.run(commands[1], stdin=tap.stdout)
sys.exit(tap.returncode or target.returncode)
