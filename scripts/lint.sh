#!/bin/sh
# ./dev lint [--full|--tidy]: what can be said about the tree without running it. Each check is one test case.
#
# With LIST in the environment (scripts/test.sh sets it) the cases go to that file as well, for the summary.
# --full adds clang-tidy, which needs build/clang and takes minutes; --tidy runs that alone.
set -u

root=${root:-$(dirname "$(dirname "$(readlink -f -- "$0")")")}
# shellcheck source=scripts/build.sh
. "$root/scripts/build.sh"
cd "$root" || exit 1

quick=yes
tidy=no
case ${1:-} in
'') ;;
--full) tidy=yes ;;
--tidy) quick=no tidy=yes ;;
*) echo "usage: ./dev lint [--full]" >&2; exit 2 ;;
esac

work=$root/build/lint
list=${LIST:-$work/list}
mkdir -p "$work"
[ -n "${LIST:-}" ] || : >"$list"
failed=0
python=/usr/bin/python3
[ -x "$python" ] || python=python3
export PYTHONPYCACHEPREFIX="$work/pycache"

# check NAME COMMAND...: one case; its output is shown if it fails.
check()
{
    name=$1
    shift
    if "$@" >"$work/output" 2>&1; then
        printf 'pass\tlint\t%s\t\n' "$name" >>"$list"
        echo "ok      $name"
    else
        printf 'fail\tlint\t%s\t\n' "$name" >>"$list"
        echo "FAILED  $name"
        grep -v '^ok ' "$work/output" | head -n 60 | sed 's/^/        /'
        failed=$((failed + 1))
    fi
}

# Files of ours below "$@" whose names match the pattern $1, one per line. None of the names holds white space.
files()
{
    pattern=$1
    shift
    find "$@" -name "$pattern" -type f -not -path '*/__pycache__/*' | sort
}

c_files=$( (files '*.c' lib src tests fuzz bench; files '*.h' include lib src tests fuzz bench) 2>/dev/null)
python_files=$(files '*.py' scripts tests fuzz bench)
shell_files="dev .ci/run $(files '*.sh' scripts tests fuzz bench contrib 2>/dev/null)"

format()
{
    # shellcheck disable=SC2086
    said=$(clang-format --dry-run --Werror $c_files 2>&1) && return 0
    wrong=$(echo "$said" | sed -n 's/^\([^:]*\):[0-9]*:[0-9]*: error: code should be .*/\1/p' | sort -u)
    if [ -n "$wrong" ]; then
        printf 'run clang-format -i on:\n%s\n' "$wrong"
    else
        echo "$said"
    fi
    return 1
}

scripts()
{
    # shellcheck disable=SC2086
    shellcheck --external-sources --source-path="$root" $shell_files
}

pythons()
{
    # shellcheck disable=SC2086
    "$python" -m py_compile $python_files
}

# The checks of .clang-tidy; WarningsAsErrors there decides what is an error.
clang_tidy()
{
    configure_clang && ninja --quiet -C build/clang || return 1
    files '*.c' lib src | xargs -P "$(nproc)" -n 1 timeout 300 clang-tidy --quiet -p build/clang
}

if [ $quick = yes ]; then
    check "C files are formatted as .clang-format says" format
    check "shell scripts pass shellcheck" scripts
    check "python files compile" pythons
    check "texts: white space, paths, unfinished work" "$python" -B scripts/check_text.py .
    check "includes go in the direction of the layers" "$python" -B tests/structure/check_includes.py .
    check "headers compile alone" "$python" -B tests/structure/check_headers.py .
fi
[ $tidy = no ] || check "clang-tidy" clang_tidy
[ $failed -eq 0 ]
