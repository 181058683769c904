#!/bin/sh
# ./dev fuzz [TARGET] [SECONDS]: clang's libFuzzer with ASan and UBSan on one target of fuzz/, or on all.
#
# Seeds come from fuzz/corpus/TARGET. What the fuzzer finds worth keeping goes to build/fuzz/corpus/TARGET, and an input
# that crashes to build/fuzz/crashes/TARGET: the tree itself is not touched. To run a crash again:
#     build/fuzz/fuzz/fuzz_TARGET build/fuzz/crashes/TARGET/crash-...
# With LIST in the environment (scripts/test.sh sets it) each target is noted there as a test case.
set -u

root=${root:-$(dirname "$(dirname "$(readlink -f -- "$0")")")}
# shellcheck source=scripts/build.sh
. "$root/scripts/build.sh"
cd "$root" || exit 1

target=all
seconds=60
case ${1:-} in
'') ;;
*[!0-9]*)
    target=${1#fuzz_}
    seconds=${2:-60}
    ;;
*) seconds=$1 ;;
esac
case $seconds in
'' | *[!0-9]*) echo "usage: ./dev fuzz [TARGET] [SECONDS]" >&2; exit 2 ;;
esac

build=$root/build/fuzz
list=${LIST:-/dev/null}

# One line for the summary: pass or fail, the target, a note.
note()
{
    printf '%s\tfuzz\t%s\t%s\n' "$1" "$2" "$3" >>"$list"
    printf '%-6s  %s: %s\n' "$1" "$2" "$3"
}

build_targets()
{
    configure "$build" clang --buildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false \
        -Dc_args=-fno-sanitize-recover=all -Dfuzz=true -Dtests=false -Dwerror=true || return 1
    all=$(ninja -C "$build" -t targets all | sed -n 's/^\(fuzz\/fuzz_[a-z0-9_]*\): .*/\1/p' | sort)
    [ -n "$all" ] || { echo "fuzz/meson.build defines no target"; return 1; }
    # shellcheck disable=SC2086
    ninja -C "$build" $all || return 1
}

# fuzz_one NAME: one case. A run that executed nothing is a failure, too.
fuzz_one()
{
    seeds=$root/fuzz/corpus/$1
    grown=$build/corpus/$1
    crashes=$build/crashes/$1
    log=$build/$1.log
    mkdir -p "$grown" "$crashes"
    [ -d "$seeds" ] || { note fail "$1" "no seeds in fuzz/corpus/$1"; return 1; }
    # What a shell starts in the background ignores SIGINT, but for env.
    env --default-signal=INT,QUIT timeout -k 10 $((seconds + 120)) "$build/fuzz/fuzz_$1" -max_total_time="$seconds" -timeout=20 \
        -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$crashes/" "$grown" "$seeds" >"$log" 2>&1
    status=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    if [ $status -eq 0 ] && [ "${runs:-0}" -gt 0 ]; then
        note pass "$1" "$runs runs in $seconds s"
    else
        tail -n 40 "$log"
        note fail "$1" "exit status $status, $log; inputs in build/fuzz/crashes/$1"
        return 1
    fi
}

mkdir -p "$build"
if ! build_targets >"$root/build/fuzz-build.log" 2>&1; then
    without_noise "$root/build/fuzz-build.log" | tail -n 40
    note fail build "build/fuzz-build.log"
    exit 1
fi

names=$(for path in $all; do echo "${path#fuzz/fuzz_}"; done)
if [ "$target" != all ]; then
    case " $(echo "$names" | tr '\n' ' ')" in
    *" $target "*) names=$target ;;
    *)
        echo "no fuzz target '$target'; there are:" >&2
        echo "$names" | sed 's/^/  /' >&2
        exit 2
        ;;
    esac
fi

# One on each core. The one that was started first ends first, more or less.
failed=0
running=
for name in $names; do
    fuzz_one "$name" &
    running="$running $!"
    # shellcheck disable=SC2086
    set -- $running
    if [ $# -ge "$(nproc)" ]; then
        wait "$1" || failed=1
        shift
        running=$*
    fi
done
for pid in $running; do
    wait "$pid" || failed=1
done
exit $failed
