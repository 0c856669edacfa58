#!/usr/bin/env python3
"""scale_table.py RESULTS.jsonl [--svg FILE] - what scale.sh has measured, in Markdown; images per second as a plot.

A line of RESULTS.jsonl is one number or one run; "section" says which table it belongs to. Sections that
are not there have no table. The plot needs gnuplot, and is left out where there is none.
"""
import argparse
import json
import shutil
import subprocess

TWO_RANKS, POOL_PERCENT, DEATH_SECONDS = 1.97, 0.5, 5.0

PLOT = """\
set terminal svg size 640,400 font 'sans,12'
set output "{out}"
set xlabel "GPUs, one rank and one image for each"; set ylabel "images/s"
set xtics ({tics}); set xrange [{first}*0.8:{last}*1.1]; set yrange [0:*]
set grid; set key top left
plot {plots}
"""


def read(path):
    sections = {}
    with open(path) as file:
        for line in file:
            if line.startswith("{"):
                row = json.loads(line)
                sections.setdefault(row["section"], []).append(row)
    return sections


def text(value, digits=2):
    return "-" if value is None else f"{value:.{digits}f}"


def ratio(a, b):
    return a / b if a and b else None


def table(title, head, rows):
    if rows:
        print(f"\n## {title}\n\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
        for row in rows:
            print("| " + " | ".join(str(cell) for cell in row) + " |")


# ---- one report of `rankpool bench`

def rate(row):
    return row["runs"][0]["steps_per_second"]["median"]


def share(row, rank, what):
    """Percent of a step that a rank spends so."""
    jobs = row["runs"][0]["jobs"]
    steps = jobs * row["steps"]
    return 100 * row["ranks"][rank][what + "_seconds"] / steps * rate(row)


def by_gpu(row, what):
    return " / ".join(str(value) for value in row.get(what) or ["-"])


def find(rows, **wanted):
    """The last one: of two rounds that on warm cards."""
    for row in reversed(rows):
        if all(row.get(k) == v for k, v in wanted.items()):
            return row
    return None


# ---- what was to be reached

def verdict(wanted, value, unit="", at_least=True, digits=2):
    if value is None:
        return "not measured"
    away = wanted - value if at_least else value - wanted
    return "reached" if away <= 0 else f"missed by {away:.{digits}f}{unit}"


def verdicts(sections, link):
    image, rows = sections.get("image", []), []
    for precision in dict.fromkeys(r["precision"] for r in image):
        one, two = (find(image, precision=precision, n_ranks=n) for n in (1, 2))
        if one and two:
            gain = rate(two) / rate(one)
            rows.append((f"two ranks over one, one image, {precision}", f">= {TWO_RANKS} x", text(gain, 3) + " x",
                         verdict(TWO_RANKS, gain, digits=3)))
            percent = share(two, 0, "wire")
            rows.append((f"the pool's share of a step on NVLink, {precision}", f"< {POOL_PERCENT} %",
                         text(percent, 3) + " %",
                         verdict(POOL_PERCENT, percent, " points", False, 3) if link.startswith("NV") else
                         f"does not count: {link}"))
    same = sections.get("same", [])
    if same:
        bad = [r for r in same if not r["same"]]
        rows.append(("the same bytes from any number of ranks", "all", f"{len(same) - len(bad)} of {len(same)}",
                     "missed by " + str(len(bad)) if bad else "reached"))
    for row in sections.get("death", []):
        seconds = row["seconds"] if row["left"] == 0 and row["code"] != 0 else None
        rows.append(("all ranks gone after one was killed", f"< {DEATH_SECONDS:g} s", text(row["seconds"]) + " s",
                     verdict(DEATH_SECONDS, seconds, " s", False) if seconds is not None else
                     f"missed: {row['left']} left, exit {row['code']}"))
    table("What was to be reached", ("what", "wanted", "measured", ""), rows)


# ---- tables

def wire(rows):
    ways = list(dict.fromkeys(r["way"] for r in rows))
    lines = []
    for ranks, mib in dict.fromkeys((r["ranks"], r["mib"]) for r in rows):
        cells = []
        for way in ways:
            row = find(rows, ranks=ranks, mib=mib, way=way)
            cells.append("-" if row is None else f"{row['p50_us']:.0f} / {row['p99_us']:.0f}"
                         + ("" if row["same"] else " WRONG BYTES"))
        lines.append((ranks, f"{mib:g}", *cells))
    table("Wire: scatter and gather, microseconds, median / 99 of 100", ("ranks", "MiB a rank", *ways), lines)
    if rows:
        print("\nFrom the begin of the scatter until what was gathered may be read, by the clock of rank 0. nccl, mpi: "
              "rankpool's transports;\nmessages: with the announcement and the reply of the pool; copies: other ranks "
              "copy to their GPU and back; plain:\nNCCL's calls, each group waited for. nccl launches a group as a CUDA "
              "graph from the third time on; calls: without graphs,\nas is plain; plain, graph: the same with them.")


def image(rows):
    lines = []
    for row in rows:
        one = find(rows, precision=row["precision"], n_ranks=1, round=row.get("round"))
        ranks = range(row["n_ranks"])
        lines.append((row["precision"], row.get("round", "-"), row["n_ranks"], text(rate(row)), text(1e3 / rate(row)),
                      text(row["runs"][0]["unit_ms"]), text(ratio(rate(row), one and rate(one)), 3),
                      *(" / ".join(text(share(row, r, w), 2) for r in ranks) for w in ("busy", "idle", "wire")),
                      by_gpu(row, "mhz"), by_gpu(row, "watts"), text(row["open_seconds"])))
    table("One image", ("precision", "round", "ranks", "it/s", "ms a step", "ms a unit, rank 0", "speed-up",
                        "busy, % of a step, by rank", "idle", "wire", "MHz, by GPU", "W", "s to open"), lines)


def image_rows(rows):
    for row in rows:
        one = find(rows, precision=row["precision"], n_ranks=1)
        per_second = row["runs"][0]["images_per_second"]
        gain = ratio(per_second, one and one["runs"][0]["images_per_second"])
        yield row, per_second, gain, gain and gain / row["n_ranks"]


def images(rows):
    lines = [(row["precision"], row["n_ranks"], row["images"], text(per_second, 3), text(gain, 3),
              text(efficiency and 100 * efficiency, 1) + " %", text(rate(row)),
              text(row["runs"][0]["unit_ms"]), by_gpu(row, "mhz"), by_gpu(row, "watts"),
              text(row["runs"][0]["job_seconds"]["median"], 3))
             for row, per_second, gain, efficiency in image_rows(rows)]
    table("As many images as ranks", ("precision", "GPUs", "images", "images/s", "speed-up", "efficiency", "it/s",
                                      "ms a unit, rank 0", "MHz, by GPU", "W", "s a job, prompt to pictures"), lines)


def same(rows):
    table("The same bytes as from one rank", ("precision", "ranks", "images", "steps", "files", "MB", ""),
          [(r["precision"], r["n_ranks"], r["images"], r["steps"], r["files"], text(r["bytes"] / 1e6, 1),
            "same" if r["same"] else "DIFFERENT") for r in rows])


def residency(rows):
    for row in rows:
        base = next((r for r in row["runs"] if r["residency"] == "step"), None)
        table(f"Residency, {row['n_ranks']} ranks, {row['precision']}",
              ("the pool is kept for a", "it/s (median)", "s a job", "min..max", "it/s over step"),
              [(r["residency"], text(r["steps_per_second"]["median"]), text(r["job_seconds"]["median"], 3),
                f"{r['job_seconds']['min']:.3f}..{r['job_seconds']['max']:.3f}",
                text(ratio(r["steps_per_second"]["median"], base and base["steps_per_second"]["median"])) + " x")
               for r in row["runs"]])


def peer(rows):
    heads, lines = [r for r in rows if "way" not in r], [r for r in rows if "way" in r]
    table("The peers' way: one process for both GPUs",
          ("", "way", "it/s", "min..max", "over one GPU", "host, ms a step", "difference", "first run, s"),
          [(r["peer"], r["way"], text(r["its"]), f"{r['min_its']:.2f}..{r['max_its']:.2f}",
            text(ratio(r["its"], (find(lines, peer=r["peer"], way="one GPU") or {}).get("its"))) + " x",
            text(r.get("host_ms"), 1), f"{r['difference']:.1e}", text(r["first_s"], 1)) for r in lines])
    for head in heads if lines else []:
        print(f"\ntorch {head['torch']}, diffusers {head['diffusers']}, bf16, {head['size']}x{head['size']}, "
              f"{head['tokens']} tokens")


def start(rows):
    lines = []
    for ranks in dict.fromkeys(r["n_ranks"] for r in rows):
        row = min((r for r in rows if r["n_ranks"] == ranks), key=lambda r: r["whole_seconds"])
        first = row["open_seconds"] + row["encode_seconds"] + row["sample_seconds"]
        lines.append((ranks, text(first), text(row["whole_seconds"]), text(row.get("read_gb")),
                      text(row.get("read_gb_per_second"), 1), text(row["connect_seconds"]),
                      text(row.get("share_gb_per_second"), 1), text(row["encode_seconds"]), text(row["sample_seconds"])))
    table("Start with a checkpoint on disk, the faster of two runs",
          ("ranks", "s to the first step done", "s of the whole command", "GB read", "GB/s read", "s to connect",
           "GB/s to the other GPUs", "s text", "s first step"), lines)


def death(rows):
    table("A rank is killed in the middle of a step", ("ranks", "killed", "s until all have gone", "left", "exit code",
                                                       "message"),
          [(r["n_ranks"], r["victim"], text(r["seconds"]), r["left"], r["code"], f"`{r['message']}`") for r in rows])


def runs(rows):
    table("Sections", ("section", "result", "seconds"), [(r["name"], r["result"], r["seconds"]) for r in rows])


# ---- plot

def plot(rows, out):
    precisions = list(dict.fromkeys(r["precision"] for r in rows))
    numbers = sorted({r["n_ranks"] for r in rows})
    if len(numbers) < 2:
        return None
    gnuplot = shutil.which("gnuplot")
    if gnuplot is None:
        return "No plot: gnuplot is not installed (Debian: gnuplot-nox)."
    plots, data = [], ""
    for i, precision in enumerate(precisions, 1):
        points = [(r["n_ranks"], per_second) for r, per_second, _, _ in image_rows(rows) if r["precision"] == precision]
        first = points[0][1] / points[0][0]
        plots += [f"'-' with linespoints pt 7 lc {i} title '{precision}, measured'",
                  f"{first}*x dt 2 lc {i} title '{precision}, ideal'"]
        data += "".join(f"{x} {y}\n" for x, y in points) + "e\n"
    script = PLOT.format(out=out, first=numbers[0], last=numbers[-1], plots=", ".join(plots),
                         tics=", ".join(f'"{n}" {n}' for n in numbers)) + data
    got = subprocess.run([gnuplot], input=script, text=True, stderr=subprocess.PIPE, check=False)
    return None if got.returncode == 0 else f"No plot: {got.stderr.strip()}"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("results")
    p.add_argument("--svg")
    a = p.parse_args()
    sections = read(a.results)
    machine = (sections.get("machine") or [{}])[0]
    link = machine.get("link", "unknown")
    if machine:
        print(f"{machine['gpus']} x {machine['name']}, {machine['power']}, driver {machine['driver']}, link {link}; "
              f"{machine['version']}, {machine['date']}\n\n    {machine['command']}")
        if machine["try"]:
            print("\n**A trial of the script: small sizes, shared GPUs. No time here means anything.**")
    verdicts(sections, link)
    for name, show in (("wire", wire), ("image", image), ("images", images), ("same", same), ("residency", residency),
                       ("peer", peer), ("start", start), ("death", death), ("run", runs)):
        show(sections.get(name, []))
    note = plot(sections.get("images", []), a.svg) if a.svg else None
    if note:
        print("\n" + note)


if __name__ == "__main__":
    main()
