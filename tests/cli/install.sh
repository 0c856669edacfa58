#!/usr/bin/env bash
# install.sh - what `cmake --install` leaves: a command, and a library that C, C++ and CMake programs use.
. "$(dirname "$0")/lib.sh"
prefix=$work/prefix
needs=""
if is_sanitized; then
    needs="-fsanitize=address,undefined"
    # a program of someone else has no keep_loaded.c: whole stacks tell what is Open MPI's
    export ASAN_OPTIONS=${ASAN_OPTIONS:-}:fast_unwind_on_malloc=0
fi

t "install"
run cmake --install "$build" --prefix "$prefix"
expect_exit 0
expect_file "$prefix/bin/rankpool" "$prefix/bin/rankpool-run" "$prefix/include/rankpool/rankpool.h" "$prefix/share/man/man1/rankpool.1" \
    "$prefix/share/rankpool/models/emoji-lumina2/model_index.json"

t "the installed command draws with the installed model, wherever it was put"
mv "$prefix" "$work/moved"
prefix=$work/moved
run env -u LD_LIBRARY_PATH "$prefix/bin/rankpool" info --threads 1
expect_exit 0
expect_in_stdout "$prefix/share/rankpool/models/emoji-lumina2"
run env -u LD_LIBRARY_PATH "$prefix/bin/rankpool" sample "${tiny[@]}" --prompt "red heart" --out command.png
expect_exit 0
expect_file command.png

t "its launcher starts it, found beside itself"
run "$prefix/bin/rankpool" --version
expect_exit 0
run "$prefix/bin/rankpool-run" --help
expect_exit 0
expect_in_stdout "usage: rankpool-run"
n=1
! have_mpi || n=2
run env -u LD_LIBRARY_PATH "$prefix/bin/rankpool-run" --print -n $n -- sample "${tiny[@]}" --prompt "red heart" --out launched.png
expect_exit 0
expect_in_stderr "$prefix/bin/rankpool"
expect_same launched.png command.png

libdir=$(dirname "$(find "$prefix" -name rankpool.pc)")
export PKG_CONFIG_PATH=$libdir
library=$(dirname "$libdir")
# steps and size of the example come from the environment, so that it is quick
example=(env LD_LIBRARY_PATH="$library" RANKPOOL_STEPS=2 RANKPOOL_WIDTH=32 RANKPOOL_HEIGHT=32 RANKPOOL_THREADS=1)

# The program in rankpool.h's opening comment.
sed -n '/^ \*     #include/,/^ \*     }$/p' "$prefix/include/rankpool/rankpool.h" | sed 's/^ \*     \{0,1\}//; s/^ \*$//' >example.c
grep -q 'int main' example.c || fail "the header holds no program"

for language in c c++; do
    t "the header's program as $language, with pkg-config"
    compiler=${CC:-gcc}
    [ $language = c++ ] && compiler=${CXX:-g++}
    # shellcheck disable=SC2046
    run "$compiler" -x $language -Wall -Wextra -Werror -pedantic $needs example.c -o example-$language \
        $(pkg-config --define-prefix --cflags --libs rankpool)
    expect_exit 0
    rm -f heart.png
    run "${example[@]}" ./example-$language
    expect_exit 0
    expect_file heart.png
    expect_same heart.png command.png
done

t "the same program under mpirun"
if have_mpi; then
    rm -f heart.png
    run mpirun -n 2 "${example[@]}" ./example-c
    expect_exit 0
    expect_same heart.png command.png
else
    skip "no MPI"
fi

t "a CMake program finds the package"
mkdir consumer
cp example.c consumer/
cat >consumer/CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.22)
project(consumer LANGUAGES C)
find_package(rankpool 0.1 CONFIG REQUIRED)
add_executable(consumer example.c)
target_link_libraries(consumer PRIVATE rankpool::rankpool)
END
run cmake -S consumer -B consumer/build -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_FLAGS="$needs"
expect_exit 0
run cmake --build consumer/build
expect_exit 0
rm -f heart.png
run "${example[@]}" consumer/build/consumer
expect_exit 0
expect_same heart.png command.png

t "the pkg-config file and the header agree on the version"
run pkg-config --modversion rankpool
expect_in_stdout "$("$prefix/bin/rankpool" --version | cut -d' ' -f2)"
finish
