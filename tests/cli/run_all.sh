#!/usr/bin/env bash
# run_all.sh BUILD_DIR [THEME ...] - the command's tests, one theme after the other.
set -u
here=$(cd "$(dirname "$0")" && pwd)
build=${1:?usage: run_all.sh BUILD_DIR [THEME ...]}
shift
themes=("$@")
[ ${#themes[@]} -gt 0 ] || themes=(help sample badinput batch bench bind trace predict scaling gpu_scale determinism lost memory install launch quickstart)

bad=()
for theme in "${themes[@]}"; do
    "$here/$theme.sh" "$build" || bad+=("$theme")
done
if [ ${#bad[@]} -gt 0 ]; then
    echo "failed: ${bad[*]}"
    exit 1
fi
