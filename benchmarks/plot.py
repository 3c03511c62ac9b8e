"""Draw growth.svg from results.json: seconds and peak memory against rows.

python benchmarks/plot.py benchmarks/results.json benchmarks/growth.svg
"""

# /// script
# dependencies = ["matplotlib"]
# ///

import json
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from report import LIMIT, LOADER, MIB, by_size

results, picture = map(Path, sys.argv[1:])
sizes = by_size(json.loads(results.read_text()))
# Text stays text, and the same figures give the same file.
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "ontime"})
figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for name in (LOADER, LIMIT):
    points = [summaries[name] for summaries in sizes.values() if name in summaries]
    millions = [point.rows / 1e6 for point in points]
    for panel, values in zip(
        panels,
        ([point.seconds for point in points], [point.peak_bytes / MIB for point in points]),
        strict=True,
    ):
        panel.plot(millions, values, marker="o", label=name)
for panel, label in zip(panels, ("seconds", "peak memory, MiB"), strict=True):
    panel.set(xlabel="million rows", ylabel=label, xlim=(0, None), ylim=(0, None))
    panel.grid(alpha=0.3)
    panel.legend()
figure.savefig(picture, metadata={"Date": None})
