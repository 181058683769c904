#!/bin/sh
# ./dev bench [NAME...] [OPTIONS]: bench/run.py with a release build (build/bench); doc/performance.md explains it.
set -u

root=${root:-$(dirname "$(dirname "$(readlink -f -- "$0")")")}
# shellcheck source=scripts/build.sh
. "$root/scripts/build.sh"
cd "$root" || exit 1

SOCKS6_BUILD=$root/build/bench
export SOCKS6_BUILD
quietly build/bench-setup.log configure "$SOCKS6_BUILD" '' --buildtype=release -Doptimization=2 -Dtests=false \
    -Dbench=true || exit 1
quietly build/bench-build.log ninja -C "$SOCKS6_BUILD" || exit 1
exec /usr/bin/python3 -B bench/run.py "$@"
