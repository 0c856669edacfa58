"""bench_table.py UNITS.json ENCODE.json PEERS.jsonl LOOP.jsonl - rankpool's numbers beside its peers', in Markdown.

A ratio is the peer's time over rankpool's: above 1, rankpool is faster. For a step the better of the
peer's two ways (two calls, or a batch of two) counts.
"""
import json
import os
import statistics
import sys


def find(node, key):
    """First value of `key` at any depth; the median of a spread."""
    if isinstance(node, dict):
        if isinstance(node.get(key), dict):
            return node[key].get("median")
        if node.get(key) is not None:
            return node[key]
        node = list(node.values())
    for child in node if isinstance(node, list) else []:
        value = find(child, key)
        if value is not None:
            return value
    return None


def text(value, digits=2):
    return "-" if value is None else f"{value:.{digits}f}"


def overhead(path):
    """Of the pool against a plain loop: neighbours of the same turn are compared."""
    turns = [json.loads(line) for line in open(path)] if os.path.exists(path) else []
    loops, pools = ([t[k] for t in turns if k in t] for k in ("loop_step_ms", "pool_step_ms"))
    if not loops or len(loops) != len(pools):
        return
    shares = [100 * (pool / loop - 1) for loop, pool in zip(loops, pools)]
    print(f"\nplain loop over the denoiser: {statistics.median(loops):.2f} ms a step, the pool "
          f"{statistics.median(pools):.2f}; the pool's share of a step: {statistics.median(shares):.2f} % "
          f"({', '.join(f'{s:.2f}' for s in shares)})")


def main():
    units, encode = (json.load(open(path)) for path in sys.argv[1:3])
    peers, heads, failed = {"eager": {}, "compile": {}}, {}, []
    for line in open(sys.argv[3]):
        if not line.startswith("{"):
            continue  # a library's warning
        row = json.loads(line)
        if "median_ms" in row:
            peers[row["peer"]][row["what"]] = row["median_ms"]
        elif "failed" in row:
            failed.append(row)
        else:
            heads[row["peer"]] = row
    for head in heads.values():
        print(f"{head['device']}, torch {head['torch']}, diffusers {head['diffusers']}, "
              f"transformers {head['transformers']} ({head['peer']})")
    for values in peers.values():
        steps = [values[k] for k in ("step_ms", "step_batch2_ms") if k in values]
        values["best_step_ms"] = min(steps) if steps else None
    print("\n| | rankpool | eager | compile | eager / rankpool | compile / rankpool |\n|---|---|---|---|---|---|")
    rows = [("one unit, ms", units, "unit_ms", "unit_ms"),
            ("guided step, ms", units, "step_ms", "best_step_ms"),
            ("guided step as two calls, ms", units, "step_ms", "step_ms"),
            ("guided step as batch 2, ms", units, "step_ms", "step_batch2_ms"),
            ("text, one prompt, ms", encode, "encode_ms", "encode_ms"),
            ("picture from latents, ms", units, "decode_ms", "decode_ms")]
    for name, report, key, peer_key in rows:
        ours = find(report, key)
        theirs = [peers[p].get(peer_key) for p in ("eager", "compile")]
        ratios = [t / ours if t and ours else None for t in theirs]
        print(f"| {name} | {text(ours)} | {text(theirs[0])} | {text(theirs[1])} | {text(ratios[0])} | {text(ratios[1])} |")
    per_second = find(units, "steps_per_second")
    theirs = [1e3 / v["best_step_ms"] if v["best_step_ms"] else None for v in (peers["eager"], peers["compile"])]
    ratios = [per_second / t if t and per_second else None for t in theirs]
    print(f"| guided steps per second | {text(per_second)} | {text(theirs[0])} | {text(theirs[1])} | "
          f"{text(ratios[0])} | {text(ratios[1])} |")
    print(f"| seconds to open | {text(find(units, 'open_seconds'))} | - | - | - | - |")
    overhead(sys.argv[4])
    for row in failed:
        print(f"\n{row['peer']} {row['what']}: {row['failed']}")


main()
