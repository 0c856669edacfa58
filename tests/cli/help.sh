#!/usr/bin/env bash
# help.sh - help, version, lists, the manual page.
. "$(dirname "$0")/lib.sh"
man_page=$root/src/cli/rankpool.1

t "no command: short usage on stderr"
run "$rankpool"
expect_exit 2
expect_silent stdout
expect_in_stderr "Usage: rankpool" "rankpool help"

t "the overview names every command"
run "$rankpool" help
expect_exit 0
for command in sample batch bench predict info list; do
    expect_in_stdout "  $command "
done
cp stdout overview
run "$rankpool" --help
expect_same stdout overview

t "the version is that of the header"
run "$rankpool" --version
expect_exit 0
expect_in_stdout "rankpool $(sed -nE 's/^#define RP_VERSION  *"(.*)"/\1/p' "$root/include/rankpool/rankpool.h")"

for command in sample batch bench predict info list; do
    t "help of $command: fits, has examples, exit codes, and every option is in the manual page"
    run "$rankpool" $command --help
    expect_exit 0
    expect_silent stderr
    expect_in_stdout "Usage: rankpool $command" "Examples:" "Exit codes:"
    [ "$(sed -n '/^Examples:/,/^$/p' stdout | grep -c '^      ')" -ge 4 ] || fail "fewer than 4 examples"
    awk 'length > 100' stdout | grep -q . && fail "a line has more than 100 columns"
    grep -q ' $' stdout && fail "a line ends in a blank"
    for option in $(grep -oE '^  --[a-z-]+' stdout); do
        sed 's/\\-/-/g' "$man_page" | grep -qF -- "$option" || fail "manual page lacks $option"
    done
    cp stdout own
    run "$rankpool" help $command
    expect_same stdout own
done

# What the manual page says about an option: the paragraphs headed by it, without escapes and fonts.
man_says() { # OPTION
    sed -E 's/\\-/-/g; s/\\f[A-Z]//g' "$man_page" | awk -v option="--$1" '
        /^\.(TP|SS|SH|PP)/ { text = ""; heading = NR + 1; found = 0 }
        NR == heading { found = (" " $0 " ") ~ "[ ,]" option "[ ,]" }
        found { gsub(/"/, ""); print }'
}
# NAME CHOICE... and NAME DEFAULT of the options on stdout, out of (a|b|c; default a; ...); switches
# have neither, and a long list is told otherwise.
values_in_help() {
    awk '/^  --/ { print ""; printf "%s", $0; next } /^          / { sub(/^ */, " "); printf "%s", $0; next } { print "" }' stdout |
        sed -nE 's/^  --([a-z-]+) .*\(([^()]*)\)$/\1;\2/p' | grep -v 'on|off' |
        awk -F '; *' '{ for (i = 2; i <= NF; i++) {
            if ($i ~ /^default / && $i !~ / as the model|,/) print $1, substr($i, 9)
            else if ($i ~ /\|/) { gsub(/\|/, " ", $i); print $1, $i } } }'
}

t "the manual page has every value that an option chooses from, and the defaults"
for command in sample batch bench predict info; do
    run "$rankpool" $command --help
    values_in_help >"$command.values"
    while read -r option values; do
        man_says "$option" | tr -c 'A-Za-z0-9_.,-' '\n' | sed 's/[.,]$//' >said
        for value in $values; do
            grep -qxF -- "$value" said || fail "of $command --$option the manual page lacks $value"
        done
    done <"$command.values"
done
grep -q '^precision auto f32 bf16 fp8' sample.values && grep -qx 'steps 30' sample.values ||
    fail "the test does not understand the help"

t "help shows range, default and environment of an option"
run "$rankpool" sample --help
expect_in_stdout "--steps N" "(1 to 1000; default 30; RANKPOOL_STEPS)"

t "--help wins over what is wrong elsewhere on the line"
run "$rankpool" sample --help --stesp
expect_exit 0

t "unknown command: the nearest is named"
run "$rankpool" sampel
expect_exit 2
expect_in_stderr "unknown command sampel: did you mean sample?"
run "$rankpool" help bnech
expect_exit 2
expect_in_stderr "did you mean bench?"

t "list: all kinds, one kind, an unknown kind"
run "$rankpool" list
expect_exit 0
for kind in samplers schedules guiders models transports backends; do
    expect_in_stdout "$kind:"
done
run "$rankpool" list samplers
expect_exit 0
grep -q '^euler  *[a-z]' stdout || fail "euler is not listed with its help"
run "$rankpool" list sampler
expect_exit 2
expect_in_stderr "did you mean samplers?" "backends"

t "info with and without a pool"
run "$rankpool" info --no-pool
expect_exit 0
expect_in_stdout "rankpool" "backends"
run "$rankpool" info --threads 1
expect_exit 0
expect_in_stdout "emoji-lumina2"
run "$rankpool" info --model /nowhere
expect_exit 1
expect_in_stderr "/nowhere"
expect_in_stdout "backends"

t "what cannot be printed is an error"
"$rankpool" help >/dev/full 2>stderr
code=$?
expect_exit 1
expect_in_stderr "No space left on device"

t "the manual page has no warnings"
if command -v groff >/dev/null; then
    run groff -man -ww -Tutf8 "$man_page"
    expect_exit 0
    expect_silent stderr
    expect_in_stdout "RANKPOOL(1)"
else
    skip "no groff"
fi

t "under mpirun help, errors and info come once"
if have_mpi; then
    ranks 2 sample --help
    expect_exit 0
    [ "$(grep -c '^Usage:' stdout)" = 1 ] || fail "usage is printed more than once"
    ranks 2 sample --stesp 3
    expect_exit nonzero
    [ "$(grep -c 'unknown option' stderr)" = 1 ] || fail "the error is printed more than once"
    ranks 2 info --threads 1
    expect_exit 0
    [ "$(grep -c emoji-lumina2 stdout)" = 1 ] || fail "info is printed more than once"
else
    skip "no MPI"
fi
finish
