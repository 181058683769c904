#!/bin/sh
# Installs the named Debian packages as root, for ./dev. Nothing is removed, and nothing installed is upgraded unless a
# package asked for depends on the newer version (libc6-dev on libc6 of its own version); that is said first.
#
# No server starts: not now (a policy-rc.d that says no stands in while apt-get works) and not at the next boot (the
# services of packages that were not there before are disabled).
set -eu

[ $# -gt 0 ] || { echo "usage: apt-install.sh PACKAGE..." >&2; exit 2; }

export DEBIAN_FRONTEND=noninteractive
policy=${POLICY_RC_D:-/usr/sbin/policy-rc.d} # another path for tests/structure/check_dev.py, as the lists below
lists=${APT_LISTS:-/var/lib/apt/lists}
mark='# socks6 development: no service starts while test packages are installed; safe to remove'
options='--yes --no-install-recommends --no-upgrade --no-remove'

# A file with our mark was left by a run that was killed: it is ours to remove.
shield_up()
{
    if [ ! -e "$policy" ] && [ ! -L "$policy" ]; then
        printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy"
        chmod 755 "$policy"
    fi
}

shield_down()
{
    if [ -f "$policy" ] && grep -qxF "$mark" "$policy"; then
        rm -f "$policy"
    fi
}

# The services of the packages whose daemons the tests start by themselves, but for daemons that are there already by way
# of another package (nginx-full instead of nginx-light): what those serve is their owner's.
services()
{
    for package in "$@"; do
        case $package in
        openssh-server) command -v sshd >/dev/null || echo ssh ;;
        nginx-light) command -v nginx >/dev/null || echo nginx ;;
        dante-server) command -v danted >/dev/null || echo danted ;;
        haproxy) command -v haproxy >/dev/null || echo haproxy ;;
        unbound) command -v unbound >/dev/null || echo unbound ;;
        nsd) command -v nsd >/dev/null || echo nsd ;;
        redis-server) command -v redis-server >/dev/null || echo redis-server ;;
        esac
    done
}

disable_services()
{
    for service in "$@"; do
        if command -v systemctl >/dev/null; then
            systemctl disable "$service" >/dev/null 2>&1 || :
        fi
        if [ -e "/etc/init.d/$service" ] && command -v update-rc.d >/dev/null; then
            update-rc.d "$service" disable >/dev/null 2>&1 || :
        fi
    done
}

# Says what would be upgraded on the way, if anything.
say_upgrades()
{
    # shellcheck disable=SC2086
    upgrades=$(apt-get $options --simulate install "$@" 2>/dev/null | sed -n 's/^Inst \([^ ]*\) \[.*/\1/p' | tr '\n' ' ')
    [ -z "$upgrades" ] || echo "These depend on newer versions of: $upgrades" >&2
}

install()
{
    say_upgrades "$@"
    # shellcheck disable=SC2086
    apt-get $options install "$@"
}

trap 'shield_down' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

new=$(for package in "$@"; do
    case $(dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null || :) in
    ii* | hi*) ;;
    *) echo "$package" ;;
    esac
done)
# shellcheck disable=SC2086
new_services=$(services $new)

shield_up
if ! ls "$lists"/*_Packages* >/dev/null 2>&1; then
    apt-get update
fi
if ! install "$@"; then
    echo "apt-get failed; once more with fresh lists" >&2
    apt-get update
    install "$@"
fi
# shellcheck disable=SC2086
disable_services $new_services
