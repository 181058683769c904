#!/bin/sh
# ./dev bench [NAME [ARGS]]: runs bench/NAME.py or bench/NAME.sh, or all of them, on a release build (build/bench).
# A benchmark finds that build in SOCKS6_BUILD and prints its figures together with what they were measured on.
set -u

root=${root:-$(dirname "$(dirname "$(readlink -f -- "$0")")")}
# shellcheck source=scripts/build.sh
. "$root/scripts/build.sh"
cd "$root" || exit 1

# Names of all benchmarks; files that begin with _ are their helpers.
names()
{
    for path in bench/*.py bench/*.sh; do
        [ -f "$path" ] || continue
        name=$(basename "$path")
        case $name in
        _*) ;;
        *) echo "${name%.*}" ;;
        esac
    done
}

# run NAME ARGS...
run()
{
    name=$1
    shift
    echo "== bench $name"
    if [ -f "bench/$name.py" ]; then
        /usr/bin/python3 -B "bench/$name.py" "$@"
    else
        sh "bench/$name.sh" "$@"
    fi
}

wanted=$(names)
if [ $# -gt 0 ]; then
    case "$(names | tr '\n' ' ')" in
    "$1 "* | *" $1 "*) wanted=$1 ;;
    *)
        echo "no benchmark '$1'; there are:" >&2
        names | sed 's/^/  /' >&2
        exit 2
        ;;
    esac
    shift
fi
[ -n "$wanted" ] || { echo "bench/ holds no benchmark" >&2; exit 1; }

SOCKS6_BUILD=$root/build/bench
export SOCKS6_BUILD
quietly build/bench-setup.log configure "$SOCKS6_BUILD" '' --buildtype=release -Doptimization=2 -Dtests=false \
    -Dbench=true || exit 1
quietly build/bench-build.log ninja -C "$SOCKS6_BUILD" || exit 1

failed=0
for name in $wanted; do
    run "$name" "$@" || failed=1
done
exit $failed
