"""report_check.py REPORT.json N_RANKS TRANSPORT BACKEND - did the run use what it was told to use?"""
import json
import sys

path, n_ranks, transport, backend = sys.argv[1:5]
report = json.load(open(path))
assert report["n_ranks"] == int(n_ranks), f"{report['n_ranks']} ranks"
# one rank sends nothing: any transport means local then
expected = "local" if report["n_ranks"] == 1 and transport == "nccl" else transport
assert expected in json.dumps(report["transport"]), report["transport"]
assert backend in json.dumps(report["backend"]), report["backend"]
# a step of one picture has two units: a third rank has nothing to do, or takes turns when it is as fast
busy = sum(rank["units"] > 0 for rank in report["ranks"])
assert busy >= min(int(n_ranks), 2), f"{busy} ranks had work"
