"""ingestr 0.14, the last one that is written in Python."""

# /// script
# dependencies = ["ingestr<0.15"]
# ///

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).with_name("ingestr_newest.py")))
