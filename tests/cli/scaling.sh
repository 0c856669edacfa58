#!/usr/bin/env bash
# scaling.sh - launch/scaling: reports of real runs become a table, a CSV file and plots; what is refused.
. "$(dirname "$0")/lib.sh"
scaling=$root/launch/scaling
study=("$scaling" --rankpool "$rankpool" --launcher "mpirun -n {n}" --ranks 1,2 --repeat 2)
job=("${tiny[@]}" --steps 5 --prompt sun)
limit=120

t "help, and what is wrong on the command line"
run "$scaling" --help
expect_exit 0
expect_in_stdout "--out DIR" "--predict OPTIONS" "--slurm"
for wrong in "--rank 1" "--out x --ranks 0" "--out x --ranks 1,x" "--out x --repeat 0" "--out x --mode both" "--out x --nodes 1" \
    "--out" "--ranks 1"; do
    # shellcheck disable=SC2086
    run "$scaling" --rankpool "$rankpool" $wrong
    expect_exit 2
    expect_lines stderr 1
done
expect_no_file x
run "$scaling" --from nowhere
expect_exit 1
expect_in_stderr "no folder nowhere/reports"

if ! have_mpi || ! command -v python3 >/dev/null; then
    skip "needs MPI and python3"
    finish
fi

t "a study: reports, CSV, table with definitions and base, predictions"
run "${study[@]}" --out strong --images 2 --predict "--cores 2" -- "${job[@]}"
expect_exit 0
expect_silent stderr
expect_file strong/scaling.csv strong/scaling.md strong/reports/{1,2}-1-{1,2}.json
[ "$(find strong/reports -type f | wc -l)" = 4 ] || fail "the warm-up is among the reports"
expect_no_file strong/running
[ -z "$(find . -name '*.png' ! -name scaling.png)" ] || fail "pictures are left"
expect_in_stdout "Strong scaling of emoji-lumina2: 32x32, 5 steps of euler, guidance 4" "2 jobs a row" \
    "Base: 1 rank on 1 node, 2 images in" "cannot use more than two ranks" "**speed-up**" "**skew**" \
    "| nodes | ranks | images | seconds | p5-p95 | images/s | speed-up | efficiency | step ms | of a step | wire | skew |" \
    "Predicted with \`rankpool predict --from 1-1-"
grep -qE '^\| 1 \| 1 \| 2 \| [0-9.]+ \| [0-9.]+-[0-9.]+ \| [0-9.]+ \| 1\.00 \| 100 % \| [0-9.]+ \| 1\.00 \| 0\.0 % \| 0\.0 % \|$' stdout ||
    fail "no row of the base"
grep -qE '^\| 1 \| 2 \| 2 \| ' stdout || fail "no row of two ranks"
[ "$(grep -cE '^\| [12] \| 2 \| [0-9.]+ \| [0-9.]+ \| [+-][0-9.]+ % \|' stdout)" = 2 ] || fail "no predictions"
run python3 -c 'import csv, json, statistics
rows = list(csv.DictReader(open("strong/scaling.csv")))
assert [r["ranks"] for r in rows] == ["1", "2"] and all(r["mode"] == "strong" and r["jobs"] == "2" for r in rows)
n = [{k: float(v) for k, v in r.items() if k != "mode"} for r in rows]
jobs = [json.load(open(f"strong/reports/2-1-{k}.json")) for k in (1, 2)]
seconds = [sum(j[s + "_seconds"] for s in ("encode", "noise", "load", "sample", "decode")) for j in jobs]
near = lambda a, b: abs(a - b) < 1e-4 * max(1, abs(b))
assert near(n[1]["seconds_median"], statistics.mean(seconds)) and near(n[1]["images_per_second"], 2 / statistics.mean(seconds))
assert min(seconds) - 1e-5 <= n[1]["seconds_p5"] < n[1]["seconds_median"] < n[1]["seconds_p95"] <= max(seconds) + 1e-5
assert near(n[1]["speedup"], n[0]["seconds_median"] / n[1]["seconds_median"]) and near(n[1]["efficiency"], n[1]["speedup"] / 2)
assert all(near(r["busy_percent"] + r["idle_percent"] + r["wire_percent"], 100) for r in n)
assert jobs[0]["settings"]["steps"] == 5 and n[0]["wire_percent"] < 1 and 0 <= n[1]["skew_percent"] <= 100'
expect_exit 0

t "plots, where there is gnuplot; a line where there is none"
if command -v gnuplot >/dev/null; then
    expect_file strong/scaling.svg strong/scaling.png
    for text in "efficiency, %" ideal "where the time went" busy idle wire; do
        grep -qF "$text" strong/scaling.svg || fail "scaling.svg lacks $text"
    done
    head -c 8 strong/scaling.png | grep -aq PNG || fail "scaling.png is no PNG"
else
    skip "no gnuplot"
fi
mkdir bin
for tool in bash dirname basename env; do ln -s "$(command -v $tool)" bin/; done
ln -s "$(python3 -c 'import sys; print(sys.executable)')" bin/python3 # python3 on PATH may be a script
rm -f strong/scaling.{svg,png,csv}
run env PATH="$work/bin" "$scaling" --from strong
expect_exit 0
expect_in_stdout "no plots: gnuplot is not installed"
expect_file strong/scaling.csv
expect_no_file strong/scaling.svg

t "a folder with reports is kept"
run "${study[@]}" --out strong -- "${job[@]}"
expect_exit 1
expect_in_stderr "strong has reports"

t "weak: --images for each rank; one image has two units"
run "${study[@]}" --out weak --mode weak --images 1 --ranks 1,3 --repeat 1 -- "${job[@]}" --guidance 1
expect_exit 0
expect_in_stdout "Weak scaling" "| 1 | 3 | 3 |"
mkdir -p few/reports
cp weak/reports/3-1-1.json few/reports
sed -i 's/"images":[^,]*,/"images": 1,/' few/reports/3-1-1.json
run "$scaling" --from few
expect_in_stdout "cannot use more than two ranks; here 3 ranks share 1"

t "--best-round: of two rounds the faster one counts, and the table says so"
mkdir -p rounds/reports
cp strong/reports/*.json rounds/reports
for k in 1 2; do sed 's/"sample_seconds":[^,]*,/"sample_seconds": 1e-3,/' strong/reports/2-1-$k.json >rounds/reports/2-2-$k.json; done
run "$scaling" --from rounds
expect_in_stdout "2 jobs a row."
grep -q '^strong,1,2,2,4,' rounds/scaling.csv || fail "four jobs of two ranks should count"
run "$scaling" --from rounds --best-round
expect_exit 0
expect_in_stdout "2 jobs a row, the fastest of 2 rounds"
cp rounds/scaling.csv best.csv
rm rounds/reports/2-1-*.json
run "$scaling" --from rounds
expect_same rounds/scaling.csv best.csv

t "other settings, another version, another size are refused and named"
mkdir -p mixed/reports
cp strong/reports/*.json mixed/reports
for change in 's/"steps":[^,]*,/"steps": 6,/ steps' 's/"prompt":[^,]*,/"prompt": "moon",/ prompt' \
    's/"rankpool":[^,]*,/"rankpool": "9",/ rankpool' 's/"threads_per_rank":[^,]*,/"threads_per_rank": 2,/ threads_per_rank' \
    's/"images":[^,]*,/"images": 5,/ images'; do
    sed "${change% *}" strong/reports/2-1-1.json >mixed/reports/2-1-1.json
    run "$scaling" --from mixed
    expect_exit 1
    expect_in_stderr "settings differ" "${change##* }"
    expect_lines stderr 1
    expect_no_file mixed/scaling.csv
done
run "$scaling" --from strong --mode weak
expect_exit 1
expect_in_stderr "no weak scaling"
echo '{}' >mixed/reports/2-1-1.json
run "$scaling" --from mixed
expect_exit 1
expect_in_stderr "2-1-1.json is no report"

t "a run that fails is shown, and makes no table"
run "${study[@]}" --out failed -- "${job[@]}" --model /nowhere
expect_exit 1
expect_in_stderr "/nowhere" "the run with 1 ranks failed"
expect_no_file failed/scaling.csv

t "--slurm: one sbatch a run, with its numbers of ranks and nodes"
mkdir slurm
cat >slurm/sbatch <<'SBATCH' # stands in: writes down how it was called, runs the job here
#!/usr/bin/env bash
echo "$*" >>"$SBATCH_CALLS"
while [ "$1" != --wrap ]; do shift; done
eval "$2"
SBATCH
chmod +x slurm/sbatch
run env PATH="$work/slurm:$PATH" SBATCH_CALLS="$work/calls" "${study[@]}" --out batch --repeat 1 --slurm "-p test -t 10" \
    --nodes 1,2 -- "${job[@]}"
expect_exit 0
expect_lines calls 2
grep -q -- '--wait --ntasks=1 --nodes=1 .* -p test -t 10 --wrap mpirun -n 1' calls || fail "sbatch of one rank: $(head -1 calls)"
grep -q -- '--wait --ntasks=2 --nodes=2 .*--wrap mpirun -n 2' calls || fail "sbatch of two ranks: $(tail -1 calls)"
expect_file batch/scaling.csv
finish
