#compdef socks6
# Completion of socks6(1) for zsh. Goes to a directory of $fpath as _socks6.

_socks6() {
    local curcontext=$curcontext state line
    local -A opt_args
    local -a common

    common=(
        '(-x --proxy)'{-x,--proxy}'[the proxy]:URL:(socks6\:// socks6s\:// socks5h\://)'
        '--proxy-user[user name at the proxy]:name:'
        '--password-file[file with the password]:file:_files'
        '(- *)'{-h,--help}'[show the help]'
    )
    _arguments -C $common \
        '(- *)'{-V,--version}'[show the version]' \
        '1:subcommand:((connect\:"standard input and output to a host and port" dns\:"questions to the DNS service of the proxy" passwd\:"set a password in the users file of socks6d" probe\:"what a proxy is and can do" run\:"a program whose connections and names go through the proxy"))' \
        '*::argument:->arguments' && return

    case $state:$words[1] in
    arguments:connect)
        _arguments -s $common \
            '(-6)-4[reach the proxy over IPv4 only]' \
            '(-4)-6[reach the proxy over IPv6 only]' \
            '--no-early-data[send nothing before the TLS handshake is over]' \
            '--no-session[use and keep nothing of the cache file]' \
            '--no-shutdown[never close our side of the connection]' \
            '--no-tfo[connect to the proxy without TCP Fast Open]' \
            '--early[send the first bytes of standard input with the request]' \
            '--remote-tfo=-[let the proxy send our first data in its SYN to HOST]::(bytes)' \
            '--happy-eyeballs=-[ask the proxy to race the addresses of HOST, or not to]::(on off)' \
            '-N[close our side at the end of standard input (the default)]' \
            '-q[end that long after the end of standard input]:seconds:' \
            '-v[say each step]' \
            '-w[time limit of the connection, and of silence]:seconds:' \
            '1:host:_hosts' \
            '2:port:_ports'
        ;;
    arguments:dns)
        _arguments -s $common \
            '(-6)-4[reach the proxy over IPv4 only]' \
            '(-4)-6[reach the proxy over IPv6 only]' \
            '*'{-c,--class}'[class of the question]:class:(IN CH HS ANY)' \
            '(-f --file)'{-f,--file}'[file with names and types]:file:_files' \
            '*-q[a name, even if it looks like a type]:name:' \
            '*'{-t,--type}'[type of the question]:type:(A AAAA CAA CNAME DNSKEY DS HTTPS MX NS PTR SOA SRV SSHFP SVCB TLSA TXT ANY)' \
            '-v[say each step]' \
            '-w[time limit of the connection and of each answer]:seconds:' \
            '*--reverse[the name that belongs to an IP address]:address:' \
            '*--listen[be a DNS server at this address]:address and port:' \
            '--open[with --listen\: also for other machines]' \
            '--no-early-data[send nothing before the TLS handshake is over]' \
            '--no-session[use and keep nothing of the cache file]' \
            '--no-tfo[connect to the proxy without TCP Fast Open]' \
            '--short[show only the data]' \
            '--json[show answers as JSON]' \
            '--dnssec[ask for the records of DNSSEC]' \
            '--cd[set the CD flag]' \
            '--no-recurse[clear the RD flag]' \
            '--no-edns[do not use EDNS]' \
            '--nsid[ask for the identifier of the server]' \
            '*--ednsopt[send an EDNS option]:CODE[\:HEX]:' \
            '1:name:_hosts' \
            '*:type:(A AAAA CAA CNAME DNSKEY DS HTTPS MX NS PTR SOA SRV SSHFP SVCB TLSA TXT ANY)'
        ;;
    arguments:passwd)
        _arguments -s \
            '(-c --create)'{-c,--create}'[make the file]' \
            '(-C --cost)'{-C,--cost}'[how much work a hash is]:number:' \
            '(-D --delete)'{-D,--delete}'[remove the user]' \
            '(-i --stdin)'{-i,--stdin}'[read the password from standard input]' \
            '(-m --method)'{-m,--method}'[kind of hash]:method:(yescrypt bcrypt sha512crypt)' \
            '(-n --print)'{-n,--print}'[write the line to standard output]' \
            '(-v --verify)'{-v,--verify}'[only look whether the password is right]' \
            '(- *)'{-h,--help}'[show the help]' \
            '1:file:_files' \
            '2:name:'
        ;;
    arguments:run)
        _arguments -s $common \
            '(-6)-4[reach the proxy over IPv4 only]' \
            '(-4)-6[reach the proxy over IPv6 only]' \
            '--allow-direct[let what cannot go through the proxy go its own way]' \
            '--early[connect() returns at once, the first bytes travel with the request]' \
            '--fake-names[for proxies without a DNS service]' \
            '--no-early-data[send nothing before the TLS handshake is over]' \
            '--no-session[use and keep nothing of the cache file]' \
            '--no-tfo[connect to the proxy without TCP Fast Open]' \
            '*-v[say what each call did]' \
            '-w[time limit of each connection]:seconds:' \
            '(-)1:program:_command_names -e' \
            '*::argument:_normal'
        ;;
    arguments:probe)
        _arguments -s $common \
            '(-6)-4[reach the proxy over IPv4 only]' \
            '(-4)-6[reach the proxy over IPv6 only]' \
            '--dns-name[what to ask the DNS service for]:name:' \
            '--json[print JSON]' \
            '--target[let the proxy connect there]:HOST\:PORT:' \
            '--timeout[time for all questions]:seconds:' \
            '-v[say what is asked]' \
            '1:proxy:_hosts'
        ;;
    esac
}

_socks6 "$@"
