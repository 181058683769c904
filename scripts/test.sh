#!/bin/sh
# ./dev test [--full]: all stages one after the other, each with a limit in time, then a summary of failed cases.
#
# A stage is a function stage_NAME below, run in a process of its own (`test.sh --stage NAME`) whose output goes to
# build/test/NAME.log and whose cases go to build/test/NAME.list, one line each (see scripts/results.py). A failing stage
# stops no other. The last line of the run is "N passed, N failed, N skipped", in test cases.
set -u

root=${root:-$(dirname "$(dirname "$(readlink -f -- "$0")")")}
export root
# shellcheck source=scripts/build.sh
. "$root/scripts/build.sh"
cd "$root" || exit 1

work=$root/build/test
python=/usr/bin/python3
export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
export PYTHONDONTWRITEBYTECODE=1
export CMOCKA_MESSAGE_OUTPUT=TAP
sanitize='-Db_sanitize=address,undefined -Db_lundef=false -Dc_args=-fno-sanitize-recover=all'

# --- what stages are made of ---

# record pass|fail|skip NAME [NOTE]: one test case of this stage.
record()
{
    printf '%s\t%s\t%s\t%s\n' "$1" "$stage" "$2" "${3:-}" >>"$LIST"
}

# built DIR STATUS: notes whether DIR was configured and compiled; the whole of it is one case.
built()
{
    if [ "$2" -eq 0 ]; then
        record pass "builds in $1"
    else
        record fail "builds in $1" "see build/test/$stage.log"
    fi
    return "$2"
}

# build DIR COMPILER ARGS...
build()
{
    configure "$@" && ninja -C "$1"
    built "$1" $?
}

# meson_tests DIR ARGS...: the cases of `meson test` with ARGS. Finding no test at all is a failure.
meson_tests()
{
    dir=$1
    shift
    rm -f "$dir/meson-logs/testlog.json" "$dir/meson-logs/testlog.junit.xml"
    meson test -C "$dir" --no-rebuild --print-errorlogs "$@"
    "$python" -B scripts/results.py meson "$stage" "$dir" >>"$LIST" ||
        record fail "results of meson test" "no report in $dir/meson-logs"
}

# e2e NAME DIR SECONDS ARGS...: the cases of the end-to-end tests with the binaries of DIR, which must be those of today's
# sources. At the limit pytest is interrupted, so that what it has found by then is reported.
e2e()
{
    report=$work/$stage-$1.xml
    SOCKS6_BUILD=$2
    limit=$3
    ninja -C "$2" >/dev/null || { record fail "up-to-date binaries in ${2#"$root/"}"; return 1; }
    export SOCKS6_BUILD
    shift 3
    rm -f "$report"
    timeout --foreground --signal=INT --kill-after=30 "$limit" \
        "$python" -B -m pytest tests/e2e -p no:cacheprovider -q -rs --junitxml="$report" "$@"
    status=$?
    "$python" -B scripts/results.py pytest "$stage" "$report" >>"$LIST" ||
        record fail "results of pytest" "exit status $status, no report"
    case $status in
    0 | 1) ;;
    124) record fail "time limit" "interrupted after $limit s" ;;
    *) record fail "pytest" "exit status $status" ;;
    esac
}

# Prints "program test-name" of the tests of lib's layers that do no I/O and of the fuzz corpora, from the build directory
# $1; without that of the configuration, which links libyaml.
pure_tests()
{
    meson introspect --tests "$1" | "$python" -c '
import json, os, sys
for test in json.load(sys.stdin):
    path = os.path.relpath(test["cmd"][0], sys.argv[1])
    if path.startswith(("tests/unit/base/", "tests/unit/wire/", "tests/unit/core/", "fuzz/")) and path != "fuzz/replay_config":
        print(path, test["name"])
' "$1"
}

# --- the stages ---

stage_lint()
{
    sh scripts/lint.sh
}

stage_tidy()
{
    sh scripts/lint.sh --tidy
}

stage_gcc()
{
    # shellcheck disable=SC2086
    build build/gcc gcc --buildtype=debugoptimized $sanitize -Dwerror=true -Dbench=true && meson_tests build/gcc
}

stage_clang()
{
    configure_clang && ninja -C build/clang
    built build/clang $? && meson_tests build/clang --no-suite structure
}

stage_e2e()
{
    # Most of them wait most of the time: two at once.
    e2e beside "$root/build/gcc" 400 -n 2 -m 'not full and not alone'
    e2e alone "$root/build/gcc" 200 -m 'not full and alone'
}

stage_e2e_full()
{
    e2e full "$root/build/gcc" 1200 -m full
}

# A daemon that asks PAM, which the other builds cannot.
stage_pam()
{
    # shellcheck disable=SC2086
    build build/pam gcc --buildtype=debugoptimized $sanitize -Dwerror=true -Dpam=enabled || return 1
    # shellcheck disable=SC2086
    meson_tests build/pam $PAM_UNIT_TESTS
    e2e pam "$root/build/pam" 300 -n 2 -m pam
}

stage_fuzz()
{
    sh scripts/fuzz.sh "$FUZZ_SECONDS"
}

# Uninitialised memory in the library. The programs link libyaml, which is not instrumented: they are not built.
stage_msan()
{
    configure build/msan clang --buildtype=debugoptimized -Db_sanitize=memory -Db_lundef=false \
        -Dc_args='-fsanitize-memory-track-origins -fno-omit-frame-pointer'
    tests=$(pure_tests "$root/build/msan")
    [ -n "$tests" ] && echo "$tests" | cut -d ' ' -f 1 | sort -u | xargs ninja -C build/msan
    built build/msan $? || return 1
    # shellcheck disable=SC2046
    meson_tests build/msan $(echo "$tests" | cut -d ' ' -f 2)
}

# Races between workers: the daemon's tables by threads alone, then the whole of it.
stage_tsan()
{
    build build/tsan clang --buildtype=debugoptimized -Db_sanitize=thread -Db_lundef=false || return 1
    export STORE_RACE_SPENDS=1000000
    # shellcheck disable=SC2086
    meson_tests build/tsan $TSAN_UNIT_TESTS
    e2e beside "$root/build/tsan" 640 -n 2 -m 'not full and not alone' -k "$TSAN_TESTS"
    e2e alone "$root/build/tsan" 320 -m 'not full and alone' -k "$TSAN_TESTS"
}

# Asserts gone, optimised: nothing may depend on an assert's side effect.
stage_ndebug()
{
    build build/ndebug gcc --buildtype=release -Doptimization=2 -Db_ndebug=true -Dwerror=true &&
        meson_tests build/ndebug --no-suite structure
}

# At least 95 % of the lines of lib/ are reached by its own tests. Some tests of src/ have threads: counted without atomic
# instructions, lines they share come out with numbers below zero, which gcovr refuses to read.
stage_coverage()
{
    build build/coverage gcc --buildtype=debug -Db_coverage=true -Dc_args=-fprofile-update=atomic || return 1
    find build/coverage -name '*.gcda' -delete
    meson_tests build/coverage --no-suite structure
    gcovr --root . --filter 'lib/' --object-directory build/coverage --print-summary \
        --json-summary build/coverage/summary.json --html-details build/coverage/index.html build/coverage
    percent=$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["line_percent"])' \
        build/coverage/summary.json) || percent=0
    if "$python" -c 'import sys; sys.exit(float(sys.argv[1]) < 95)' "$percent"; then
        record pass "lines of lib/ covered: $percent %"
    else
        record fail "lines of lib/ covered" "$percent %, wanted 95; build/coverage/index.html"
    fi
}

# --- running them ---

# clang 14's sanitizers do not find their place under more random bits of addresses than 28 (newer kernels have 32).
fix_addresses()
{
    bits=$(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo 0)
    if [ "$bits" -gt 28 ] && [ -z "${ADDRESSES_FIXED:-}" ] && setarch -R true 2>/dev/null; then
        ADDRESSES_FIXED=1 exec setarch -R sh "$0" --stage "$1"
    fi
}

# run_stage NAME SECONDS TITLE: one stage in its own process group; its counts on one line.
run_stage()
{
    name=$1
    limit=$2
    printf '%-10s %s ... ' "$name" "$3"
    started=$(date +%s)
    : >"$work/$name.list"
    # In the background, so that a trap can run; so SIGINT would be ignored by everything below but for env.
    LIST="$work/$name.list" env --default-signal=INT,QUIT timeout -k 20 "$limit" sh "$0" --stage "$name" \
        >"$work/$name.log" 2>&1 </dev/null 9>&- &
    child=$!
    wait $child
    status=$?
    child=
    stage=$name
    LIST=$work/$name.list
    case $status in
    0) ;;
    124 | 137) record fail "time limit" "stopped after $limit s" ;;
    *) grep -q '^fail' "$LIST" || record fail "stage" "exit status $status" ;;
    esac
    [ -s "$LIST" ] || record fail "stage" "ran no test"
    printf '%s, %s s\n' "$("$python" -B scripts/results.py counts "$LIST")" "$(($(date +%s) - started))"
    if grep -q '^fail' "$LIST"; then
        without_noise "$work/$name.log" | tail -n 60 | sed 's/^/    | /'
    fi
    lists="$lists $LIST"
}

interrupted()
{
    [ -z "$child" ] || kill "$child" 2>/dev/null
    echo "interrupted" >&2
    exit 130
}

full=no
case ${1:-} in
'') ;;
--full) full=yes ;;
--stage)
    # From run_stage; LIST is in the environment.
    stage=$2
    fix_addresses "$stage"
    "stage_$stage"
    exit
    ;;
*) echo "usage: ./dev test [--full]" >&2; exit 2 ;;
esac

mkdir -p "$work"
exec 9>"$work/lock"
flock -n 9 || { echo "another ./dev test is running in this tree" >&2; exit 1; }
rm -f "$work"/*.list "$work"/*.log
lists=
child=
trap interrupted INT TERM HUP

export FUZZ_SECONDS=4
# What tests a program without threads, or the rules once more, says nothing about races.
TSAN_TESTS='not test_faults and not thousands and not test_rebinding and not test_bench and not test_config_errors'
export TSAN_TESTS="$TSAN_TESTS and not test_cli_probe and not test_cli_dns.py and not test_cli_dns_listen"
# What is other code with PAM.
export PAM_UNIT_TESTS='proxyd-pamauth proxyd-passwords proxyd-config-auth proxyd-accounts proxyd-config-docs'
# Those of the unit tests that have threads of their own.
export TSAN_UNIT_TESTS='proxyd-store-race proxyd-passwords proxyd-limits proxyd-log io-loop io-pool run-share'
[ $full = no ] || FUZZ_SECONDS=60

run_stage lint 180 "formatting, scripts, texts, layers"
run_stage gcc 300 "gcc with ASan and UBSan: unit, structure and corpus tests"
run_stage e2e 640 "end to end, on the binaries with sanitizers"
if [ $full = no ]; then
    run_stage fuzz 300 "a short run of every fuzz target"
else
    run_stage clang 300 "clang: unit and corpus tests"
    run_stage e2e_full 1260 "the long end-to-end tests"
    run_stage pam 480 "a build with PAM: its unit and end-to-end tests"
    run_stage msan 300 "MSan: unit tests of the library"
    run_stage tsan 1100 "TSan: end to end"
    run_stage ndebug 300 "release build without asserts: unit and corpus tests"
    run_stage coverage 300 "coverage of lib/"
    run_stage tidy 900 "clang-tidy"
    run_stage fuzz 1800 "every fuzz target for $FUZZ_SECONDS s"
fi

echo
# shellcheck disable=SC2086
"$python" -B scripts/results.py summary $lists
