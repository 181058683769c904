# Completion of socks6(1) for bash. Goes to /usr/share/bash-completion/completions/socks6.

_socks6()
{
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    local common='-x --proxy --proxy-user --password-file -h --help'
    local subcommand='' positional=0 i word

    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
        -x | --proxy | --proxy-user | --password-file | -q | -w | --target | --timeout | --dns-name) ((i++)) ;;
        -*) ;;
        *)
            if [[ -z $subcommand ]]; then
                subcommand=$word
            else
                ((positional++))
            fi
            ;;
        esac
    done

    case $prev in
    -x | --proxy)
        # A colon ends a word for bash unless it is taken out of COMP_WORDBREAKS: only the first part is completed.
        mapfile -t COMPREPLY < <(compgen -W 'socks6:// socks5h://' -- "$cur")
        compopt -o nospace 2>/dev/null
        return
        ;;
    --password-file)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
        ;;
    --proxy-user)
        return
        ;;
    -q | -w | --target | --timeout | --dns-name)
        if [[ -n $subcommand ]]; then
            return
        fi
        ;;
    esac

    if [[ -z $subcommand ]]; then
        if [[ $cur == -* ]]; then
            mapfile -t COMPREPLY < <(compgen -W "$common -V --version" -- "$cur")
        else
            mapfile -t COMPREPLY < <(compgen -W 'connect probe' -- "$cur")
        fi
        return
    fi
    case $subcommand in
    connect)
        if [[ $cur == -* ]]; then
            mapfile -t COMPREPLY < <(compgen -W "$common -4 -6 -N -q -v -w --early --happy-eyeballs --happy-eyeballs=off --no-shutdown" -- "$cur")
        elif ((positional == 0)); then
            mapfile -t COMPREPLY < <(compgen -A hostname -- "$cur")
        elif ((positional == 1)); then
            mapfile -t COMPREPLY < <(compgen -A service -- "$cur")
        fi
        ;;
    probe)
        if [[ $cur == -* ]]; then
            mapfile -t COMPREPLY < <(compgen -W "$common -4 -6 -v --dns-name --json --target --timeout" -- "$cur")
        elif ((positional == 0)); then
            mapfile -t COMPREPLY < <(compgen -A hostname -W 'socks6:// socks5h://' -- "$cur")
        fi
        ;;
    esac
} &&
    complete -F _socks6 socks6
