"""Energy of each job by pandas: ``python merge_asof.py FOLDER SPANS``, in an environment that has pandas and pyarrow.

The plain way with columns: read the entries, give each the span of a job on its device that began last before it, drop
those after the span's end, and add up by job. ``SPANS`` is a Parquet file of device, start, end and job. Prints JSON:
the energy by job in mJ, wall and processor seconds, and the largest resident memory.
"""

import json
import pathlib
import resource
import sys
import time

import pandas as pd


def energy_by_job(folder: str, spans_path: str) -> "dict[str, int]":
    files = sorted(str(path) for path in pathlib.Path(folder).rglob("*.parquet"))
    columns = ["start", "device", "kind", "energy_mj"]
    entries = pd.concat([pd.read_parquet(path, columns=columns) for path in files], ignore_index=True)
    entries = entries[entries["kind"] == "gpu"]
    spans = pd.read_parquet(spans_path)
    # Numbers instead of names: merging by text takes several times as long.
    names = pd.Index(spans["device"].unique())
    entries = entries.assign(device=names.get_indexer(entries["device"])).sort_values("start", kind="stable")
    spans = spans.assign(device=names.get_indexer(spans["device"])).sort_values("start", kind="stable")
    joined = pd.merge_asof(entries[["start", "device", "energy_mj"]], spans, on="start", by="device")
    inside = joined[joined["start"] < joined["end"]]
    return {str(job): int(energy) for job, energy in inside.groupby("job")["energy_mj"].sum().items()}


if __name__ == "__main__":
    began, cpu = time.perf_counter(), time.process_time()
    found = energy_by_job(*sys.argv[1:])
    told = {
        "wall_s": time.perf_counter() - began,
        "cpu_s": time.process_time() - cpu,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "energy_mj": found,
    }
    print(json.dumps(told))
