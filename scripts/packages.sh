# Sourced by ./dev: which Debian packages each command needs, and how they get there.
# shellcheck shell=sh
# shellcheck disable=SC2154 # root comes from whoever sources this file
#
# Nothing is asked of apt when nothing is missing: one dpkg-query is all that a usual call costs.

packages_build='gcc libc6-dev meson ninja-build pkg-config libyaml-dev libcrypt-dev libssl-dev'
packages_lint='clang-format clang-tidy clang shellcheck python3 libpam0g-dev'
packages_fuzz='clang libclang-rt-14-dev'
packages_bench='python3 iproute2 openssl'
packages_test='clang clang-format clang-tidy libclang-rt-14-dev libcmocka-dev scdoc mandoc shellcheck gcovr
    python3-pytest python3-pytest-timeout python3-pytest-xdist curl openssh-client openssh-server nginx-light iproute2 nftables
    netbase libpam0g-dev libpam-wrapper microsocks dante-server openssl unbound nsd bind9-dnsutils bind9-host knot-dnsutils python3-dnspython
    wget git ncat netcat-openbsd redis-server redis-tools postgresql-client-15'
# Beyond that for ./dev test --full.
packages_test_full='openjdk-17-jdk-headless'

# What benchmarks compare with and look with. They do without what is missing, and say so.
extras_bench='dante-server microsocks haproxy nginx-light libnginx-mod-stream unbound linux-perf strace proxychains4 torsocks'

# Those of the above whose installation would start a server.
server_packages='openssh-server nginx-light libnginx-mod-stream dante-server haproxy unbound nsd redis-server'

# Prints those of its arguments that are not installed.
missing_packages()
{
    # Exit status and stderr only say that some package is unknown to dpkg: it is missing then.
    installed=$(dpkg-query -W -f='${db:Status-Abbrev}${Package} ' "$@" 2>/dev/null || :)
    for package in "$@"; do
        case " $installed" in
        *" ii $package "* | *" hi $package "*) ;;
        *) printf '%s ' "$package" ;;
        esac
    done
}

# The command that installs "$@", for root to type. The script is only needed where a server is among them.
install_command()
{
    for package in $server_packages; do
        case " $* " in
        *" $package "*)
            echo "sh $root/scripts/apt-install.sh $*"
            return
            ;;
        esac
    done
    echo "apt-get install --no-install-recommends $*"
}

# need_packages build|lint|fuzz|bench|test|test_full: installs what is missing or ends the script.
need_packages()
{
    command -v dpkg-query >/dev/null || return 0 # not Debian: the tools' own errors must do
    case $1 in
    build) wanted=$packages_build ;;
    lint) wanted="$packages_build $packages_lint" ;;
    fuzz) wanted="$packages_build $packages_fuzz" ;;
    bench) wanted="$packages_build $packages_bench" ;;
    test) wanted="$packages_build $packages_test" ;;
    test_full) wanted="$packages_build $packages_test $packages_test_full" ;;
    esac
    # shellcheck disable=SC2086 # lists of words
    missing=$(missing_packages $wanted)
    [ -n "$missing" ] || return 0

    # shellcheck disable=SC2086
    set -- $missing
    echo "Debian packages needed and not installed: $*" >&2
    install_packages "$@" && return 0
    printf 'Please run this as root, then try again:\n\n    %s\n\n' "$(install_command "$@")" >&2
    exit 1
}

# install_packages PACKAGE...: as root or with sudo; fails where neither is possible.
install_packages()
{
    if [ "$(id -u)" -eq 0 ]; then
        sh "$root/scripts/apt-install.sh" "$@"
    elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || { [ -t 0 ] && [ -t 2 ]; }; }; then
        echo "Running: sudo sh $root/scripts/apt-install.sh $*" >&2
        sudo sh "$root/scripts/apt-install.sh" "$@"
    else
        return 1
    fi
}

# Installs what ./dev bench can do without, if it can, and goes on in any case.
want_bench_extras()
{
    command -v dpkg-query >/dev/null || return 0
    # shellcheck disable=SC2086
    missing=$(missing_packages $extras_bench)
    [ -n "$missing" ] || return 0
    # shellcheck disable=SC2086
    set -- $missing
    echo "Debian packages that benchmarks use, not installed: $*" >&2
    install_packages "$@" && return 0
    printf 'The benchmarks go on without them. To have them, as root:\n\n    %s\n\n' "$(install_command "$@")" >&2
}
