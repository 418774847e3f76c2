#!/usr/bin/env python3
"""ratio.py FILE: what oomwatch reaches of the sinks that were run before and after it, from the JSON lines of bench.py."""
import json
import sys

rows = [json.loads(line) for line in open(sys.argv[1])]
sinks = [row for row in rows if row["name"] == "sink"]
ours = [row for row in rows if row["name"] != "sink"]


def figure(row, workload, key):
    found = row.get(workload, {})
    return found.get("sat", {}).get("M_per_cpu_s") if key == "M_per_cpu_s" else found.get(key)


for row in ours:
    print(f"{row['name']}: start {row['start_ms_median']} ms, idle {row['rss_idle_mb']} MiB, load {row['load']:.1f}")
    for workload in (w for w in "ABC" if w in row):
        for key, unit in (("M_per_cpu_s", "M messages per CPU-second"), ("cpu_s_per_M", "CPU-s per million at a fixed rate")):
            mine, bare = figure(row, workload, key), [figure(sink, workload, key) for sink in sinks]
            bare = [value for value in bare if value]
            if mine and bare:
                mean = sum(bare) / len(bare)
                print(f"  {workload} {unit}: {mine} (sinks {bare}): {mine / mean:.2f} of the bare limit")
        print(f"  {workload} RSS {row[workload].get('rss_mb')} MiB, peak {row[workload].get('rss_peak_mb')} MiB")
