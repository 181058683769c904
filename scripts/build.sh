# Sourced by ./dev and the scripts: build directories under build/, configured once and again only when asked otherwise.
# shellcheck shell=sh
# Variables are global in sh: those of a function here begin with its name.
# shellcheck disable=SC2154 # root comes from whoever sources this file

release=$root/build/release

# configure DIR COMPILER ARGS...: meson setup, unless DIR stands already with the same arguments.
# COMPILER '' leaves the choice to meson and CC.
configure()
{
    conf_dir=$1
    conf_compiler=$2
    shift 2
    conf_wanted="$root $conf_compiler $*"
    if [ -f "$conf_dir/build.ninja" ] && [ "$(cat "$conf_dir/dev-setup" 2>/dev/null)" = "$conf_wanted" ]; then
        return 0
    fi
    rm -rf "$conf_dir"
    mkdir -p "$conf_dir"
    if [ -n "$conf_compiler" ]; then
        CC=$conf_compiler meson setup "$conf_dir" "$root" "$@" || return 1
    else
        meson setup "$conf_dir" "$root" "$@" || return 1
    fi
    printf '%s\n' "$conf_wanted" >"$conf_dir/dev-setup"
}

# The build by clang that is warning-free and whose compile_commands.json clang-tidy reads: of everything, options included.
configure_clang()
{
    configure "$root/build/clang" clang --buildtype=debugoptimized -Dwerror=true -Db_lundef=false -Dbench=true -Dpam=enabled
}

# without_noise LOG: a log of meson and ninja without the lines that say that all is well.
without_noise()
{
    grep -v -e '^Compiler for C supports' -e '^\[[0-9]*/[0-9]*\] ' "$1"
}

# quietly LOG COMMAND...: its output only if it fails.
quietly()
{
    quiet_log=$1
    shift
    mkdir -p "$(dirname "$quiet_log")"
    "$@" >"$quiet_log" 2>&1 || {
        without_noise "$quiet_log" >&2
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
