# Completion of socks6(1) for bash. Goes to /usr/share/bash-completion/completions/socks6.

_socks6()
{
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    local common='-x --proxy --proxy-user --password-file -h --help'
    local types='A AAAA CAA CNAME DNSKEY DS HTTPS MX NS PTR SOA SRV SSHFP SVCB TLSA TXT ANY'
    local words='+short +json +dnssec +norecurse +cd +noad +noedns +bufsize= +nsid +subnet= +ednsopt= +nosplit +noall
        +nocomments +noquestion +answer +noanswer +noauthority +noadditional +nostats'
    local subcommand='' positional=0 i word

    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
        -x | --proxy | --proxy-user | --password-file | -q | -w | -c | -f | -t | --class | --file | --type | --reverse | --listen | --ednsopt | \
            -m | --method | -C | --cost | --target | --timeout | --dns-name)
            ((i++))
            ;;
        -*) ;;
        *)
            if [[ -z $subcommand ]]; then
                subcommand=$word
            else
                ((positional++))
                if [[ $subcommand == run ]] && declare -F _command_offset >/dev/null; then
                    _command_offset "$i" # from here on it is the program's own business
                    return
                fi
            fi
            ;;
        esac
    done

    case $prev in
    -x | --proxy)
        # A colon ends a word for bash unless it is taken out of COMP_WORDBREAKS: only the first part is completed.
        mapfile -t COMPREPLY < <(compgen -W 'socks6:// socks6s:// socks5h://' -- "$cur")
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
    -f | --file)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
        ;;
    -t | --type)
        mapfile -t COMPREPLY < <(compgen -W "$types" -- "${cur^^}")
        return
        ;;
    -c | --class)
        mapfile -t COMPREPLY < <(compgen -W 'IN CH HS ANY' -- "${cur^^}")
        return
        ;;
    --listen)
        mapfile -t COMPREPLY < <(compgen -W '127.0.0.1:53' -- "$cur")
        return
        ;;
    --ednsopt | --reverse)
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
            mapfile -t COMPREPLY < <(compgen -W 'connect dns passwd probe run' -- "$cur")
        fi
        return
    fi
    case $subcommand in
    passwd)
        if [[ $prev == -m || $prev == --method ]]; then
            mapfile -t COMPREPLY < <(compgen -W 'yescrypt bcrypt sha512crypt' -- "$cur")
        elif [[ $cur == -* ]]; then
            mapfile -t COMPREPLY < <(compgen -W '-c --create -C --cost -D --delete -i --stdin -m --method -n --print
                -v --verify -h --help' -- "$cur")
        elif ((positional == 0)); then
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        fi
        ;;
    connect)
        if [[ $cur == -* ]]; then
            mapfile -t COMPREPLY < <(compgen -W "$common -4 -6 -N -q -v -w --early --happy-eyeballs --happy-eyeballs=off --no-early-data --no-session --no-shutdown --no-tfo --remote-tfo" -- "$cur")
        elif ((positional == 0)); then
            mapfile -t COMPREPLY < <(compgen -A hostname -- "$cur")
        elif ((positional == 1)); then
            mapfile -t COMPREPLY < <(compgen -A service -- "$cur")
        fi
        ;;
    dns)
        if [[ $cur == -* ]]; then
            mapfile -t COMPREPLY < <(compgen -W "$common -4 -6 -c -f -q -t -v -w --reverse --listen --open --no-early-data --no-session
                --no-tfo --short --json
                --dnssec --cd --no-recurse --no-edns --nsid --ednsopt --type --class --file" -- "$cur")
        elif [[ $cur == +* ]]; then
            mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        elif ((positional == 0)); then
            mapfile -t COMPREPLY < <(compgen -A hostname -- "$cur")
        else
            mapfile -t COMPREPLY < <(compgen -W "$types" -- "${cur^^}")
        fi
        ;;
    run)
        if [[ $cur == -* ]] && ((positional == 0)); then
            mapfile -t COMPREPLY < <(compgen -W "$common -4 -6 -v -w --allow-direct --early --fake-names --no-early-data --no-session --no-tfo" -- "$cur")
        elif ((positional == 0)); then
            mapfile -t COMPREPLY < <(compgen -A command -- "$cur")
        fi
        ;;
    probe)
        if [[ $cur == -* ]]; then
            mapfile -t COMPREPLY < <(compgen -W "$common -4 -6 -v --dns-name --json --target --timeout" -- "$cur")
        elif ((positional == 0)); then
            mapfile -t COMPREPLY < <(compgen -A hostname -W 'socks6:// socks6s:// socks5h://' -- "$cur")
        fi
        ;;
    esac
} &&
    complete -F _socks6 socks6
