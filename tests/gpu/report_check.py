"""report_check.py REPORT.json N_RANKS TRANSPORT BACKEND - did the run use what it was told to use?"""
import json
import sys

path, n_ranks, transport, backend = sys.argv[1:5]
n_ranks = int(n_ranks)
report = json.load(open(path))
assert report["n_ranks"] == n_ranks, f"{report['n_ranks']} ranks"
# one rank sends nothing: any transport means local then
expected = "local" if n_ranks == 1 and transport == "nccl" else transport
assert expected in json.dumps(report["transport"]), report["transport"]
assert backend in json.dumps(report["backend"]), report["backend"]
# a step of one picture has two units: a third rank has nothing to do, or takes turns when it is as fast
busy = sum(rank["units"] > 0 for rank in report["ranks"])
assert busy >= min(n_ranks, 2), f"{busy} ranks had work"


def above_0(*names):
    for name in names:
        assert report.get(name, 0) > 0, f"{name}: {report.get(name)}"


# Opening. The bytes read are those of rank 0, which sends what others need where the transport can.
assert report["connect_seconds"] >= 0, report["connect_seconds"]
assert report["warm_seconds"] >= 0, report["warm_seconds"]
if backend == "cuda":
    above_0("weights_gb", "read_gb", "read_seconds", "read_gb_per_second")
if n_ranks > 1:
    above_0("connect_seconds")
if n_ranks > 1 and transport == "nccl":
    above_0("share_seconds", "share_gb_per_second")
else:
    assert "share_seconds" not in report, "weights were sent"
