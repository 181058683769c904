# Completion of socks6(1) for fish. Goes to /usr/share/fish/vendor_completions.d/socks6.fish.

set -l subcommands connect probe

complete -c socks6 -f
complete -c socks6 -n "not __fish_seen_subcommand_from $subcommands" -a connect -d 'Standard input and output to a host and port'
complete -c socks6 -n "not __fish_seen_subcommand_from $subcommands" -a probe -d 'What a proxy is and can do'
complete -c socks6 -n "not __fish_seen_subcommand_from $subcommands" -s V -l version -d 'Show the version'
complete -c socks6 -s h -l help -d 'Show the help'
complete -c socks6 -s x -l proxy -x -a 'socks6:// socks5h://' -d 'The proxy'
complete -c socks6 -l proxy-user -x -d 'User name at the proxy'
complete -c socks6 -l password-file -r -F -d 'File with the password'

complete -c socks6 -n '__fish_seen_subcommand_from connect' -s 4 -d 'Reach the proxy over IPv4 only'
complete -c socks6 -n '__fish_seen_subcommand_from connect' -s 6 -d 'Reach the proxy over IPv6 only'
complete -c socks6 -n '__fish_seen_subcommand_from connect' -l no-shutdown -d 'Never close our side of the connection'
complete -c socks6 -n '__fish_seen_subcommand_from connect' -l early -d 'Send the first bytes of standard input with the request'
complete -c socks6 -n '__fish_seen_subcommand_from connect' -l happy-eyeballs -a 'on off' -d 'Ask the proxy to race the addresses of HOST, or not to'
complete -c socks6 -n '__fish_seen_subcommand_from connect' -s N -d 'Close our side at the end of standard input (the default)'
complete -c socks6 -n '__fish_seen_subcommand_from connect' -s q -x -d 'Seconds to go on after the end of standard input'
complete -c socks6 -n '__fish_seen_subcommand_from connect' -s v -d 'Say each step'
complete -c socks6 -n '__fish_seen_subcommand_from connect' -s w -x -d 'Time limit in seconds'
complete -c socks6 -n '__fish_seen_subcommand_from connect' -a '(__fish_print_hostnames)'

complete -c socks6 -n '__fish_seen_subcommand_from probe' -s 4 -d 'Reach the proxy over IPv4 only'
complete -c socks6 -n '__fish_seen_subcommand_from probe' -s 6 -d 'Reach the proxy over IPv6 only'
complete -c socks6 -n '__fish_seen_subcommand_from probe' -l dns-name -x -d 'What to ask the DNS service for'
complete -c socks6 -n '__fish_seen_subcommand_from probe' -l json -d 'Print JSON'
complete -c socks6 -n '__fish_seen_subcommand_from probe' -l target -x -d 'HOST:PORT to let the proxy connect to'
complete -c socks6 -n '__fish_seen_subcommand_from probe' -l timeout -x -d 'Seconds for all questions'
complete -c socks6 -n '__fish_seen_subcommand_from probe' -s v -d 'Say what is asked'
complete -c socks6 -n '__fish_seen_subcommand_from probe' -a '(__fish_print_hostnames)'
