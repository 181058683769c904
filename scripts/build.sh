# Sourced by ./dev and the scripts: build directories under build/, configured once and again only when asked otherwise.
# shellcheck shell=sh
# shellcheck disable=SC2154 # root comes from whoever sources this file

release=$root/build/release

# configure DIR COMPILER ARGS...: meson setup, unless DIR stands already with the same arguments.
# COMPILER '' leaves the choice to meson and CC.
configure()
{
    dir=$1
    compiler=$2
    shift 2
    wanted="$root $compiler $*"
    if [ -f "$dir/build.ninja" ] && [ "$(cat "$dir/dev-setup" 2>/dev/null)" = "$wanted" ]; then
        return 0
    fi
    rm -rf "$dir"
    mkdir -p "$dir"
    if [ -n "$compiler" ]; then
        CC=$compiler meson setup "$dir" "$root" "$@" || return 1
    else
        meson setup "$dir" "$root" "$@" || return 1
    fi
    printf '%s\n' "$wanted" >"$dir/dev-setup"
}

# without_noise LOG: a log of meson and ninja without the lines that say that all is well.
without_noise()
{
    grep -v -e '^Compiler for C supports' -e '^\[[0-9]*/[0-9]*\] ' "$1"
}

# quietly LOG COMMAND...: its output only if it fails.
quietly()
{
    log=$1
    shift
    mkdir -p "$(dirname "$log")"
    "$@" >"$log" 2>&1 || {
        without_noise "$log" >&2
        return 1
    }
}

# The build that users run: optimised, no tests. Says what it does only when there is something to do.
build_release()
{
    [ -f "$release/build.ninja" ] || echo "Building into $release" >&2
    quietly "$root/build/release-setup.log" configure "$release" '' --buildtype=release -Doptimization=2 -Dtests=false &&
        quietly "$root/build/release-build.log" ninja -C "$release" || exit 1
}
