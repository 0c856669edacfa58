#!/usr/bin/env python3
"""scaling_tables.py FOLDER - FOLDER/reports/*.json as scaling.csv, scaling.md and plots; see launch/scaling."""
import argparse
import csv
import glob
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys

# What may differ between the jobs of one table.
OUTPUTS = ("out", "report", "latents-out", "checkpoint", "trace", "overwrite", "quiet", "images")

COLUMNS = ("mode", "nodes", "ranks", "images", "jobs", "seconds_median", "seconds_p5", "seconds_p95",
           "images_per_second", "speedup", "efficiency", "step_ms", "step_speedup",
           "busy_percent", "idle_percent", "wire_percent", "skew_percent")

DEFINITIONS = """\
* **seconds**: one job from prompt to pictures in memory (encode + noise + load + sample + decode), median of the jobs; **p5-p95**:
  percentiles 5 and 95 of the same, interpolated.
* **images/s**: images / median seconds. **speed-up**: images/s over that of the base. **efficiency**: speed-up over
  (ranks / ranks of the base); the ideal is 100 %. Rank 0 alone encodes the text, which bounds both.
* **step ms**: one sampling step of all images, median of the jobs' medians; **of a step**: speed-up of sampling alone,
  (images / step ms) over that of the base.
* **wire**: seconds inside transfers, of the busy + idle + wire seconds of sampling; all ranks and jobs together.
* **skew**: (busiest rank - least busy rank) / busiest rank, in busy seconds of one job; the largest of the jobs.
"""


class Refused(Exception):
    """What the reports are not fit for."""


def read(path):
    try:
        with open(path) as file:
            report = json.load(file)
        report["file"] = path
        report["seconds"] = sum(report[k + "_seconds"] for k in ("encode", "noise", "load", "sample", "decode"))
        report["images"] = report["settings"]["images"]
        report["n_units"] = len(report["unit_costs"]) * report["images"]
        return report
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(f"{path} is no report of this version of rankpool: {error!r}") from error


def fixed(report):
    """All that must be equal in one table."""
    same = {k: v for k, v in report["settings"].items() if k not in OUTPUTS}
    for key in ("rankpool", "model", "width", "height", "threads_per_rank", "backend", "precision"):
        same[key] = report[key]
    same["device"] = report.get("device")
    if report["n_ranks"] > 1:
        same["transport used"] = report["transport"]
    return same


def check_same(reports):
    seen = {}
    for report in reports:
        for key, value in fixed(report).items():
            first = seen.setdefault(key, (value, report["file"]))
            if first[0] != value:
                raise Refused(f"settings differ, no table is made of both: {key} is {first[0]!r} in {first[1]} "
                              f"and {value!r} in {report['file']}")


def mode_of(reports, wanted):
    """strong: one number of images; weak: one number for each rank."""
    total = {r["images"] for r in reports}
    each = {r["images"] / r["n_ranks"] for r in reports}
    found = [m for m, s in (("strong", total), ("weak", each)) if len(s) == 1]
    if not found or (wanted and wanted not in found):
        raise Refused(f"settings differ, no table is made of both: images {sorted(total)} on ranks "
                      f"{sorted({r['n_ranks'] for r in reports})} are no {wanted or 'strong or weak'} scaling")
    return wanted or found[0]


def best_rounds(reports):
    """Of each number of ranks the round (RANKS-ROUND-JOB.json) with the shortest median job."""
    rounds = {}
    for report in reports:
        name = os.path.basename(report["file"]).rsplit("-", 1)[0]
        rounds.setdefault(report["n_ranks"], {}).setdefault(name, []).append(report)
    best = [min(r.values(), key=lambda jobs: statistics.median(j["seconds"] for j in jobs)) for r in rounds.values()]
    return [report for jobs in best for report in jobs], max(len(r) for r in rounds.values())


def percentile(values, share):
    values = sorted(values)
    at = share * (len(values) - 1)
    low = int(at)
    high = min(low + 1, len(values) - 1)
    return values[low] + (at - low) * (values[high] - values[low])


def share_of(jobs, what):
    rows = [r for j in jobs for r in j["ranks"]]
    total = sum(r[k + "_seconds"] for r in rows for k in ("busy", "idle", "wire"))
    return 100 * sum(r[what + "_seconds"] for r in rows) / total if total > 0 else 0.0


def skew_of(report):
    busy = [r["busy_seconds"] for r in report["ranks"]]
    return 100 * (max(busy) - min(busy)) / max(busy)


def row_of(mode, jobs):
    seconds = [j["seconds"] for j in jobs]
    median = statistics.median(seconds)
    row = {"mode": mode, "nodes": len({r["host"] for r in jobs[0]["ranks"]}), "ranks": jobs[0]["n_ranks"],
           "images": jobs[0]["images"], "jobs": len(jobs), "seconds_median": median,
           "seconds_p5": percentile(seconds, 0.05), "seconds_p95": percentile(seconds, 0.95),
           "images_per_second": jobs[0]["images"] / median,
           "step_ms": statistics.median(j["step_ms"] for j in jobs),
           "skew_percent": max(skew_of(j) for j in jobs)}
    for what in ("busy", "idle", "wire"):
        row[what + "_percent"] = share_of(jobs, what)
    return row


def rows_of(mode, reports):
    rows = []
    for n in sorted({r["n_ranks"] for r in reports}):
        rows.append(row_of(mode, [r for r in reports if r["n_ranks"] == n]))
    base = rows[0]
    for row in rows:
        row["speedup"] = row["images_per_second"] / base["images_per_second"]
        row["efficiency"] = row["speedup"] / (row["ranks"] / base["ranks"])
        row["step_speedup"] = (row["images"] / row["step_ms"]) / (base["images"] / base["step_ms"])
    return rows


def plural(n, what):
    return f"{n} {what}" + ("" if n == 1 else "s")


def notes(rows, reports, n_rounds):
    base, job = rows[0], reports[0]
    s = job["settings"]
    what = "random weights" if s.get("random-weights") else os.path.basename(job["model"].rstrip("/"))
    text = (f"{rows[0]['mode'].capitalize()} scaling of {what}: {job['width']}x{job['height']}, "
            f"{plural(s['steps'], 'step')} of {s['sampler']}, guidance {s['guidance']:g}, backend {job['backend']} "
            f"({job['precision']}), {plural(job['threads_per_rank'], 'thread')} a rank; {plural(base['jobs'], 'job')} a row"
            + (f", the fastest of {n_rounds} rounds" if n_rounds > 1 else "") + ".\n\n"
            f"Base: {plural(base['ranks'], 'rank')} on {plural(base['nodes'], 'node')}, {plural(base['images'], 'image')} "
            f"in {base['seconds_median']:.3f} s, {base['images_per_second']:.3g} images/s, "
            f"{base['step_ms']:.2f} ms a step.\n\n")
    short = [r for r in rows if r["images"] * len(job["unit_costs"]) < r["ranks"]]
    text += "One image with plain guidance has two units (model evaluations) a step and cannot use more than two ranks"
    if short:
        text += "; here " + ", ".join(f"{plural(r['ranks'], 'rank')} share {r['images'] * len(job['unit_costs'])}"
                                      for r in short)
    return text + ".\n\n"


def table(rows):
    lines = ["| nodes | ranks | images | seconds | p5-p95 | images/s | speed-up | efficiency | step ms | of a step | "
             "wire | skew |", "|" + " --- |" * 12]
    for r in rows:
        lines.append(f"| {r['nodes']} | {r['ranks']} | {r['images']} | {r['seconds_median']:.3f} | "
                     f"{r['seconds_p5']:.3f}-{r['seconds_p95']:.3f} | {r['images_per_second']:.3g} | "
                     f"{r['speedup']:.2f} | {100 * r['efficiency']:.0f} % | {r['step_ms']:.2f} | "
                     f"{r['step_speedup']:.2f} | {r['wire_percent']:.1f} % | {r['skew_percent']:.1f} % |")
    return "\n".join(lines) + "\n"


def predicted(options, rankpool, rows, reports):
    """Against `rankpool predict` from the job of the base with the median step."""
    base = sorted((r for r in reports if r["n_ranks"] == rows[0]["ranks"]), key=lambda r: r["step_ms"])
    base = base[(len(base) - 1) // 2]
    text = (f"\nPredicted with `rankpool predict --from {os.path.basename(base['file'])} {options}`, and measured: "
            "step ms.\n\n| ranks | images | predicted | measured | predicted / measured | limit |\n"
            "| --- | --- | --- | --- | --- | --- |\n")
    for row in rows:
        command = [rankpool, "predict", "--from", base["file"], "--images", str(row["images"]), "--ranks",
                   str(row["ranks"]), "--json", *shlex.split(options)]
        got = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        if got.returncode != 0:
            raise Refused("rankpool predict failed: " + shlex.join(command))
        one = json.loads(got.stdout)["predictions"][0]
        text += (f"| {row['ranks']} | {row['images']} | {one['step_ms']:.2f} | {row['step_ms']:.2f} | "
                 f"{100 * (one['step_ms'] / row['step_ms'] - 1):+.1f} % | {one['limit']} |\n")
    return text


PLOT = """\
set datafile separator ","
set output "{out}"
set terminal {terminal}
set multiplot layout 2,3
set samples 2; set grid; set key top left; set xlabel "ranks"; set logscale x 2
set xtics ({tics}); set xrange [{first}*0.9:{last}*1.1]; set yrange [0:*]
csv = "{csv}"
set title "seconds a job, p5-p95"
plot csv using 3:6:7:8 skip 1 with yerrorlines pt 7 lc 1 notitle
set logscale y 2; set yrange [*:*]
set title "images/s"
plot csv using 3:9 skip 1 with linespoints pt 7 lc 1 title "measured", {rate}*x/{first} dt 2 lc 8 title "ideal"
set title "speed-up"
plot csv using 3:10 skip 1 with linespoints pt 7 lc 1 title "job", csv using 3:13 skip 1 with linespoints pt 6 lc 2 \
 title "step", x/{first} dt 2 lc 8 title "ideal"
unset logscale y; set yrange [0:110]
set title "efficiency, %"; set key bottom left
plot csv using 3:(100*$11) skip 1 with linespoints pt 7 lc 1 title "job", 100 dt 2 lc 8 title "ideal"
set yrange [0:*]
set title "ms a step"
plot csv using 3:12 skip 1 with linespoints pt 7 lc 2 notitle
set title "where the time went, % of all ranks"; set key outside below horizontal
unset logscale x; set xtics autofreq; set xrange [-0.7:{n}-0.3]; set yrange [0:100]
set style data histogram; set style histogram rowstacked; set style fill solid 0.8; set boxwidth 0.6
plot csv using 14:xtic(3) skip 1 lc 2 title "busy", csv using 15 skip 1 lc 4 title "idle", \
 csv using 16 skip 1 lc 7 title "wire"
unset multiplot
"""


def plot(folder, rows):
    gnuplot = shutil.which("gnuplot")
    if gnuplot is None:
        print("no plots: gnuplot is not installed (Debian: gnuplot-nox)")
        return
    values = {"csv": os.path.join(folder, "scaling.csv"), "first": rows[0]["ranks"], "last": rows[-1]["ranks"],
              "n": len(rows), "rate": rows[0]["images_per_second"],
              "tics": ", ".join(f'"{r["ranks"]}" {r["ranks"]}' for r in rows)}
    for kind, terminals in (("svg", ["svg size 960,560 font 'sans,11'"]),
                            ("png", ["pngcairo size 1440,840 font 'sans,12'", "png size 1440,840"])):
        out = os.path.join(folder, "scaling." + kind)
        for terminal in terminals:
            got = subprocess.run([gnuplot], input=PLOT.format(out=out, terminal=terminal, **values), text=True,
                                 stderr=subprocess.PIPE, check=False)
            if got.returncode == 0:
                break
        else:
            raise Refused(f"gnuplot made no {out}: {got.stderr.strip()}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--mode")
    parser.add_argument("--predict")
    parser.add_argument("--rankpool")
    parser.add_argument("--best-round", action="store_true")
    args = parser.parse_args()
    reports = [read(path) for path in sorted(glob.glob(os.path.join(args.folder, "reports", "*.json")))]
    if not reports:
        raise Refused(f"{args.folder}/reports has no report")
    check_same(reports)
    mode, n_rounds = mode_of(reports, args.mode), 1
    if args.best_round:
        reports, n_rounds = best_rounds(reports)
    rows = rows_of(mode, reports)
    text = notes(rows, reports, n_rounds) + table(rows) + "\n" + DEFINITIONS
    if args.predict is not None:
        text += predicted(args.predict, args.rankpool, rows, reports)
    with open(os.path.join(args.folder, "scaling.csv"), "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()})
    with open(os.path.join(args.folder, "scaling.md"), "w") as file:
        file.write(text)
    plot(args.folder, rows)
    print(text, end="")


if __name__ == "__main__":
    try:
        main()
    except Refused as error:
        sys.exit(f"scaling: {error}")
