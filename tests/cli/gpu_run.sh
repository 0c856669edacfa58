#!/usr/bin/env bash
# gpu_run.sh - tests/gpu/run.sh with a GPU and programs that are not real: what it does with those that fail or stay.
. "$(dirname "$0")/lib.sh"
rows=$root/tests/gpu/run.sh

expect_sound "$rows"

t "rows have names, and what is wrong on the command line"
run "$rows" --list --only '^ops (ops|latent)$'
expect_exit 0
[ "$(paste -sd, stdout)" = "build,ops ops,ops latent" ] || fail "not these rows"
run "$rows" --lists
expect_exit 2
expect_lines stderr 1

mkdir -p bin made/bin none
printf '#!/bin/sh\nexit 9\n' >none/nvidia-smi
printf '#!/bin/sh\necho "GPU 0: none (UUID: GPU-0)"\n' >bin/nvidia-smi
chmod +x bin/nvidia-smi none/nvidia-smi
program() { # TEXT : is what the row "own attention" runs
    printf '#!/usr/bin/env bash\n%s\n' "$1" >made/bin/test_cuda_flash
    chmod +x made/bin/test_cuda_flash
    run env PATH="$work/bin:$PATH" "$rows" --build made --no-build --only '^own attention$' --limit 1
}

t "without a GPU rows are skipped and counted"
run env PATH="$work/none:$PATH" "$rows" --build made --no-build --only '^own attention'
expect_exit 77
expect_in_stdout "no GPU" "0 ok, 0 failed, 3 skipped"

t "a row that runs well, one that skips, one that fails"
program 'echo well'
expect_exit 0
expect_in_stdout "1 ok, 0 failed, 0 skipped"
program 'exit 77'
expect_exit 77
program 'echo because; exit 3'
expect_exit 1
expect_in_stdout "own attention                      FAIL  exit 3" "    because"

t "what does not end in time is ended, with the processes that would not hear it"
program "trap '' TERM; (trap '' TERM; exec -a rpt_stays_a sleep 300) & setsid bash -c 'trap \"\" TERM; exec -a rpt_stays_b sleep 300' & exit_on_term() { exit 0; }; trap exit_on_term TERM; wait"
expect_exit 1
expect_in_stdout "own attention                      FAIL  exit 124"
! pgrep -f '^rpt_stays' || fail "processes are left"

t "a row that leaves a process behind has failed"
program "setsid bash -c 'exec -a rpt_stays_c sleep 300' >/dev/null 2>&1 & sleep 0.2; echo well"
expect_exit 1
expect_in_stdout "left a process behind"
! pgrep -f '^rpt_stays' || fail "processes are left"

t "told to end, it ends what runs, behind a pipe too"
printf '#!/usr/bin/env bash\nexec -a rpt_stays_d sleep 300\n' >made/bin/test_cuda_ops
chmod +x made/bin/test_cuda_ops
env PATH="$work/bin:$PATH" "$rows" --build made --no-build --only '^ops ops$' >told 2>&1 &
for _ in $(seq 50); do
    ! pgrep -f '^rpt_stays_d' >/dev/null || break
    sleep 0.1
done
kill $!
wait $! || [ $? = 143 ] || fail "not 143"
! pgrep -f '^rpt_stays' || fail "processes are left"

t "racecheck's hazards inside cuBLASLt do not count, others do, and so does a test that fails beside them"
race() { # LINE... : of the row "gated pair", or $row; what compute-sanitizer says
    printf '#!/bin/sh\ncat <<END\n%s\n========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)\nEND\nexit 9\n' \
        "$(printf '========= %s\n' "$@")" >bin/compute-sanitizer
    chmod +x bin/compute-sanitizer
    run env PATH="$work/bin:$PATH" "$rows" --build made --no-build --only "^racecheck of ${row:-gated pair}\$"
}
theirs=("Error: Race reported between Read access at nvjet_sm90_tss+0xab0" "    and Write access at nvjet_sm90_tss+0x2d40 [384 hazards]")
race "${theirs[@]}"
expect_exit 0
expect_in_stdout "racecheck of gated pair            ok    0 errors but 1 in cuBLASLt"
row="own attention" race "${theirs[@]}"
expect_exit 1
race "${theirs[@]}" "Error: Race reported between Write access at down(down_job)+0x35a0" "    and Read access at down(down_job)+0xde0 [6 hazards]"
expect_exit 1
race "Error: Race reported between Read access at nvjet_sm90_tss+0xab0" "    and Write access at gated(gated_job)+0x10 [1 hazards]"
expect_exit 1
race "${theirs[@]}" "Target application returned an error"
expect_exit 1
expect_in_stdout "FAIL  1 hazard displayed"

finish
