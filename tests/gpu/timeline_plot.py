#!/usr/bin/env python3
"""timeline_plot.py TIMELINE.json OUT.svg - when the units of a job ran on rank 0's device, and the idle time between them.

TIMELINE.json is what `rankpool bench --timeline FILE` writes. Above: the first steps after step 0, one bar a unit; below: every gap,
in microseconds. Prints median, 99 of 100, the largest gap and how many are over 100 us. The plot needs gnuplot.
"""
import json
import subprocess
import sys

SHOWN_STEPS, LIMIT_US = 4, 100.0

PLOT = """\
set terminal svg size 860,420 font 'sans,12'
set output "{out}"
set multiplot layout 2,1
set title "units on one GPU, steps 1 to {steps} (the darker ones with the prompt, the lighter ones without it)"
set xlabel "ms"; unset ytics; set yrange [0:1]; set xrange [0:{end}]
{bars}
plot -1 notitle
unset object
set title "GPU idle between a unit and the one before it: median {median:.0f} us, most {most:.0f} us"
set xlabel "unit"; set ylabel "us"; set ytics; set logscale y; set yrange [1:1000]; set xrange [0:{n}]; set grid y
plot {limit} with lines dashtype 2 linecolor "#999999" title "{limit:.0f} us", '-' with points pointtype 7 pointsize 0.4 \
linecolor "#1f77b4" notitle
{gaps}
e
"""


def read(path):
    with open(path) as file:
        units = [e for e in json.load(file)["traceEvents"] if e["ph"] == "X"]
    return sorted(units, key=lambda e: e["ts"])


def gaps_of(units):
    """us between units, without step 0, in which plans and graphs are made; as bench counts them."""
    return [b["ts"] - a["ts"] - a["dur"] for a, b in zip(units, units[1:]) if a["args"]["step"] > 0]


def bars_of(units):
    shown = [u for u in units if 1 <= u["args"]["step"] <= SHOWN_STEPS]
    begin = shown[0]["ts"]
    bars = []
    for u in shown:
        from_ms, to_ms = (u["ts"] - begin) / 1e3, (u["ts"] + u["dur"] - begin) / 1e3
        colour = "#1f77b4" if "condition 0" in u["name"] else "#aec7e8"
        bars.append(f"set object rectangle from {from_ms:.4f},0.1 to {to_ms:.4f},0.9 "
                    f'fillcolor rgb "{colour}" fillstyle solid noborder')
    return "\n".join(bars), (shown[-1]["ts"] + shown[-1]["dur"] - begin) / 1e3


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    units = read(sys.argv[1])
    gaps = gaps_of(units)
    if not gaps:
        sys.exit(f"{sys.argv[1]}: no two units after step 0; more steps give a timeline")
    order = sorted(gaps)
    median, most = order[len(order) // 2], order[-1]
    print(f"{len(gaps)} gaps: median {median:.1f} us, 99 of 100 under {order[int(0.99 * (len(order) - 1))]:.1f}, most {most:.1f}, "
          f"{sum(g > LIMIT_US for g in gaps)} over {LIMIT_US:.0f}")
    bars, end = bars_of(units)
    subprocess.run(["gnuplot"], text=True, check=True, input=PLOT.format(
        out=sys.argv[2], bars=bars, end=end, steps=SHOWN_STEPS, median=median, most=most, limit=LIMIT_US, n=len(gaps) + 1,
        gaps="\n".join(f"{i + 1} {max(g, 1):.2f}" for i, g in enumerate(gaps))))


main()
