"""temporary"""

import sys, tempfile
from pathlib import Path
from statistics import median
from benchmarks import cpu
from benchmarks.rows import choose
from benchmarks.stage import Stage

pats = sys.argv[1].split(",")
with tempfile.TemporaryDirectory() as t, Stage(Path(t)) as stage:
    prepared, samples = cpu.rounds(stage, choose(pats), count=3, seconds=1, note=lambda s: print(s, file=sys.stderr))
    for one in prepared:
        r = one.row
        v = [s.cpu_us for s in samples[r.name]]
        ref = samples.get(r.reference)
        print(
            f"{r.title:60} {median(v):8.1f} {'exact' if one.is_exact else 'contains'} {median(v) / median([s.cpu_us for s in ref]):.2f} foreign {median([s.foreign_share for s in samples[r.name]]):.2f}"
        )
