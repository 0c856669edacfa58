#!/usr/bin/env bash
# batch.sh - many jobs: lines checked first, outputs kept, failures counted.
. "$(dirname "$0")/lib.sh"

cat >good.jsonl <<'END'
# three jobs, and what is skipped

{"prompt": "sun"}
  {"prompt": "red heart", "seed": 7, "steps": 1, "out": "heart.png"}
{"prompt": "pizza", "images": 2, "out": "pizza.png", "report": "pizza.json"}
END

t "jobs are made with the line's number or its own name"
run "$rankpool" batch good.jsonl --out-dir new "${tiny[@]}"
expect_exit 0
expect_silent stderr
expect_file new/0003.png new/heart.png new/pizza-0000.png new/pizza-0001.png new/pizza.json
expect_setting new/0003.png '"steps":2'
expect_setting new/heart.png '"steps":1'
tail -1 stdout | grep -qE '^made 3, kept 0, failed 0 in [0-9.]+ s, [0-9.]+ images/s, 1 rank$' || fail "last line differs"

t "a job of a batch is the picture that sample makes"
run "$rankpool" sample --prompt sun "${tiny[@]}" --out sun.png
expect_same sun.png new/0003.png

t "what exists is kept and is no error; --overwrite makes it again"
rm new/heart.png
stat -c %Y.%i new/0003.png >before
run "$rankpool" batch good.jsonl --out-dir new "${tiny[@]}"
expect_exit 0
expect_in_stdout "made 1, kept 2, failed 0"
stat -c %Y.%i new/0003.png >after
expect_same before after
run "$rankpool" batch good.jsonl --out-dir new "${tiny[@]}" --overwrite
expect_in_stdout "made 3, kept 0, failed 0"

t "a line may say overwrite; a folder of a picture's name is no picture"
echo '{"prompt": "sun", "overwrite": true, "seed": 9, "out": "0003.png"}' >again.jsonl
run "$rankpool" batch again.jsonl --out-dir new "${tiny[@]}"
expect_in_stdout "made 1, kept 0, failed 0"
expect_different new/0003.png sun.png
mkdir -p new/folder.png
echo '{"prompt": "sun", "out": "folder.png"}' >again.jsonl
run "$rankpool" batch again.jsonl --out-dir new "${tiny[@]}"
expect_exit 1
expect_in_stderr "new/folder.png" "it is a folder"

t "a job whose files exist in part is no kept one"
rm new/pizza-0001.png
run "$rankpool" batch good.jsonl --out-dir new "${tiny[@]}"
expect_exit 1
expect_in_stdout "made 0, kept 2, failed 1 (line 5)"
expect_in_stderr "good.jsonl:5: new/pizza-0000.png exists"

cat >bad.jsonl <<'END'
{"prompt": "sun"}
not json
{"promt": "sun"}
{"steps": 0}
{"prompt": "sun", "out": "0001.png"}
{"width": 100, "height": 100}
{"model": "elsewhere"}
[1, 2]
{"out": "../up.png"}
{"out": "/tmp/abs.png"}
{"guidance": "nan"}
{"prompt": "last", "out": "last.png"}
{"images": 3, "out": "many.png"}
{"out": "many-0002.png"}
{"prompt": ["a", "list"]}
{"steps": 2, "steps": 3}
END
printf '{"prompt": "a\xff"}\n' >>bad.jsonl

t "each bad line is named with its reason; the others are made"
run "$rankpool" batch bad.jsonl --out-dir some "${tiny[@]}"
expect_exit 1
expect_in_stderr "bad.jsonl:2: " "JSON" "bad.jsonl:3: " "prompt" "bad.jsonl:4: " "1 to 1000" \
    "bad.jsonl:5: same output as line 1" "bad.jsonl:6: " "multiples" "bad.jsonl:7: " "bad.jsonl:8: " \
    "bad.jsonl:9: " "bad.jsonl:10: " "bad.jsonl:11: " "bad.jsonl:14: same output as line 13" \
    "bad.jsonl:15: " "bad.jsonl:16: " "bad.jsonl:17: " "UTF-8"
expect_lines stderr 14
expect_file some/0001.png some/last.png some/many-0002.png
expect_in_stdout "made 3, kept 0, failed 14 (lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 15, 16, 17)"
expect_no_file up.png /tmp/abs.png

t "--stop-on-error runs nothing when a line is bad, and ends at the first job that fails"
run "$rankpool" batch bad.jsonl --out-dir none "${tiny[@]}" --stop-on-error
expect_exit 1
expect_in_stdout "made 0," "not run 4"
expect_no_file none/0001.png
printf '{"out":"a.png"}\n{"width":100}\n{"out":"b.png"}\n' >stop.jsonl
run "$rankpool" batch stop.jsonl --out-dir none "${tiny[@]}" --stop-on-error
expect_exit 1
expect_in_stdout "made 1, kept 0, failed 1 (line 2), not run 1"
expect_no_file none/b.png

t "standard input, CRLF ends, no newline at the end, a NUL byte"
printf '{"prompt":"sun"}\r\n\r\n{"prompt":"a\0b"}\n{"prompt":"sun"}' |
    timeout 60 "$rankpool" batch - --out-dir stdin "${tiny[@]}" >stdout 2>stderr
code=$?
expect_exit 1
expect_in_stderr "(standard input):3: " "NUL"
expect_in_stdout "made 2, kept 0, failed 1 (line 3)"
expect_same stdin/0001.png stdin/0004.png

t "an unusable batch is one error"
run "$rankpool" batch missing.jsonl --out-dir x "${tiny[@]}"
expect_exit 1
expect_in_stderr "missing.jsonl" "No such file"
expect_lines stderr 1
run "$rankpool" batch /dev/null --out-dir x "${tiny[@]}"
expect_exit 1
expect_in_stderr "no job in /dev/null"
expect_lines stderr 1
run "$rankpool" batch . --out-dir x "${tiny[@]}"
expect_exit 1
expect_lines stderr 1

t "an unusable output folder is one error"
for folder in good.jsonl good.jsonl/below no/such/folder; do
    run "$rankpool" batch good.jsonl --out-dir $folder "${tiny[@]}"
    expect_exit 1
    expect_in_stderr "$folder"
    expect_lines stderr 1
done

t "wrong command lines"
run "$rankpool" batch --out-dir x
expect_exit 2
expect_in_stderr "JOBS.jsonl"
run "$rankpool" batch good.jsonl
expect_exit 2
expect_in_stderr "--out-dir"
run "$rankpool" batch good.jsonl --out-dir x --out a.png
expect_exit 2
expect_in_stderr "--out-dir"
run "$rankpool" batch good.jsonl --out-dir x --columns 0
expect_exit 2
expect_in_stderr "columns"
run "$rankpool" batch good.jsonl more.jsonl --out-dir x
expect_exit 2

t "a sheet of all pictures; sizes that differ and a sheet that exists are refused at once"
run "$rankpool" batch good.jsonl --out-dir sheet "${tiny[@]}" --sheet sheet.png --columns 2
expect_exit 0
expect_file sheet.png
run "$rankpool" batch good.jsonl --out-dir sheet "${tiny[@]}" --sheet of-none.png
expect_exit 0
expect_in_stderr "no sheet of-none.png" "--overwrite"
run "$rankpool" batch good.jsonl --out-dir sheet2 "${tiny[@]}" --sheet sheet.png
expect_exit 1
expect_in_stderr "sheet.png" "exists"
expect_no_file sheet2/0003.png
printf '{"width":32}\n{"width":48}\n' >sizes.jsonl
run "$rankpool" batch sizes.jsonl --out-dir sheet2 --sheet new-sheet.png --steps 1
expect_exit 1
expect_in_stderr "one size" "line 1" "line 2"

t "SIGTERM between or in jobs: the finished stay, the summary comes"
for i in $(seq 1000); do echo "{\"seed\": $i, \"steps\": 4}"; done >long.jsonl
run timeout --preserve-status -s TERM 3 "$rankpool" batch long.jsonl --out-dir long --width 32 --height 32 --threads 1
expect_exit 143
expect_file long/0001.png
tail -1 stdout | grep -qE '^made [1-9][0-9]*, kept 0, failed 0, not run [0-9]+ in' || fail "last line differs"
expect_no_parts

t "under mpirun: two ranks, and an unusable batch ends all of them"
if have_mpi; then
    ranks 2 batch good.jsonl --out-dir two "${tiny[@]}"
    expect_exit 0
    expect_in_stdout "made 3, kept 0, failed 0" "2 ranks"
    expect_same two/heart.png new/heart.png
    ranks 2 batch missing.jsonl --out-dir two "${tiny[@]}"
    expect_exit nonzero
    [ "$(grep -c missing.jsonl stderr)" = 1 ] || fail "the error is printed more than once"
else
    skip "no MPI"
fi
finish
