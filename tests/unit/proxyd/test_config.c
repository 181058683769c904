#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proxyd/config_internal.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const struct config *load_or_fail(const char *text, const char *const *listen, size_t listen_count)
{
    const struct config *config = NULL;
    struct config_error error = {""};

    if (config_load_memory("f.yaml", text, strlen(text), listen, listen_count, &config, &error) != 0) {
        fail_msg("%s\nin:\n%s", error.text, text);
    }
    return config;
}

static const struct config *load(const char *text)
{
    return load_or_fail(text, NULL, 0);
}

static char *print(const struct config *config)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    assert_non_null(out);
    config_print(config, out);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void assert_error(const char *text, size_t len, const char *expected)
{
    const struct config *untouched = (const void *)&untouched, *config = untouched;
    struct config_error error = {""};

    if (config_load_memory("f.yaml", text, len, NULL, 0, &config, &error) == 0) {
        fail_msg("no error in:\n%s\nexpected: %s", text, expected);
    }
    assert_string_equal(error.text, expected);
    assert_ptr_equal(config, untouched);
}

#define QUOTE_IPV6 "YAML reads this IPv6 address as something else; put it in quotes: \"[::]:1080\", \"fe80::/10\""
#define EMPTY_LIST "an empty list would match nothing; remove the key to match everything, or say what it is for"
#define TOP_KEYS                                                                                                       \
    "(keys here: listeners, open, auth, workers, relay, outgoing, rules, limits, happy_eyeballs, dns, log, status, "   \
    "tfo, tfo_without_token)"
#define LIMIT_KEYS                                                                                                     \
    "(keys here: handshake, connect, idle, half_closed, connections, connections_per_client, options, sessions, "      \
    "sessions_anonymous, sessions_per_user, sessions_per_client, session_idle, token_window)"
#define NO_TIME "is not a time; write a number and a unit: 500ms, 10s, 5m, 24h, 7d"
#define NO_HOST                                                                                                        \
    "is not a host name, an address or a network; write example.org, \"*.example.org\", 192.0.2.1 or 10.0.0.0/8"
#define WOULD_BE_OPEN                                                                                                  \
    " would be open to everybody: it is not a loopback address, nobody has to log in, and no rule limits who comes "   \
    "('from') or where to ('to'); listen on 127.0.0.1 or \"[::1]\" instead, ask for passwords ('auth'), add rules "    \
    "that do, or write 'open: true'"

struct error_case {
    const char *text;
    const char *error;
};

static void check_errors(const struct error_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        assert_error(cases[i].text, strlen(cases[i].text), cases[i].error);
    }
}

/* What YAML itself, or our use of it, does not take. */
static void test_syntax_errors_are_exact(void **state)
{
    static const struct error_case cases[] = {
        {"a: &x [1, *x]\n", "f.yaml:1:4: anchors ('&x') are not taken; write the value out where it is needed"},
        {"workers: &w 4\n", "f.yaml:1:10: anchors ('&w') are not taken; write the value out where it is needed"},
        {"log: &l {}\n", "f.yaml:1:6: anchors ('&l') are not taken; write the value out where it is needed"},
        {"rules:\n  - allow: {to: *foo}\n",
         "f.yaml:2:17: aliases ('*foo') are not taken; write the value out, or put a name pattern in quotes"},
        {"rules:\n  - allow: {to: [*.example.org]}\n",
         "f.yaml:2:18: '*' begins an alias in YAML; put a name pattern in quotes: \"*.example.org\""},
        {"rules:\n  - deny:\n      to:\n        - *.example.org\n",
         "f.yaml:4:11: '*' begins an alias in YAML; put a name pattern in quotes: \"*.example.org\""},
        {"workers: !!int 4\n", "f.yaml:1:10: tags ('tag:yaml.org,2002:int') are not taken; write the value alone"},
        {"log: !x {}\n", "f.yaml:1:6: tags ('!x') are not taken; write the value alone"},
        {"listeners: !x []\n", "f.yaml:1:12: tags ('!x') are not taken; write the value alone"},
        {"listeners:\n  - address: [::]:1080\n", "f.yaml:2:14: " QUOTE_IPV6},
        {"listeners:\n  - {address: [::1]:1080}\n", "f.yaml:2:15: " QUOTE_IPV6},
        {"rules:\n  - allow: {from: [fe80::/10, ::1]}\n", "f.yaml:2:31: " QUOTE_IPV6},
        {"rules:\n  - allow: {from: [2001:db8::]}\n", "f.yaml:2:19: " QUOTE_IPV6},
        {"rules:\n  - allow:\n      from: fe80::\n", "f.yaml:3:13: " QUOTE_IPV6},
        {"rules:\n  - allow:\n      from:\n        - fe80::\n", "f.yaml:4:11: " QUOTE_IPV6},
        {"rules:\n  - allow:\n      to:\n        fe80::\n", "f.yaml:4:9: " QUOTE_IPV6},
        {"workers: 1\n---\nworkers: 2\n",
         "f.yaml:2:1: a second document; one file is one configuration, remove the '---'"},
        {"[[[[[[[[[[[[[[[[[[[", "f.yaml:1:17: nested more than 16 deep; no setting is"},
        {"? [a]\n: 2\n", "f.yaml:1:3: a list or a mapping cannot be a key; write a word and ':'"},
        {"workers: 1\n\topen: true\n", "f.yaml:2:1: a tab; indent with spaces"},
        {"\tworkers: 1\n", "f.yaml:1:1: a tab; indent with spaces"},
        {"workers: @4\n", "f.yaml:1:10: this character cannot begin a value in YAML; put the value in quotes"},
        {"workers: 1\nopen\nlog: {}\n", "f.yaml:2:1: a ':' is missing; write 'key: value'"},
        {"workers:4\nlog: {}\n", "f.yaml:2:4: a key cannot stand here; check the indentation, and that a space follows "
                                 "the ':' of the key before"},
        {"workers: \"4\n", "f.yaml:1:10: the quote that begins here does not end; close it"},
        {"listeners: [1, 2\n", "f.yaml:1:12: the bracket that begins here does not end; close it"},
        {"rules: [\n  allow: {to: [\n\n", "f.yaml:2:15: the bracket that begins here does not end; close it"},
        {"log: {level: info}}\n",
         "f.yaml:1:19: not valid YAML: did not find expected key while parsing a block mapping that "
         "begins at line 1, column 1; correct it there or here"},
        {"workers: 1\n...\nfoo\n",
         "f.yaml:3:1: not valid YAML: did not find expected <document start>; correct what stands here"},
        {"open: true\n# caf\xc3\xa9 \xff\n",
         "f.yaml:2:8: not a text file in UTF-8: invalid leading UTF-8 octet; remove what stands here"},
        {"workers: \x01\n",
         "f.yaml:1:10: not a text file in UTF-8: control characters are not allowed; remove what stands here"},
        {"workers: \"4\\0\"\n", "f.yaml:1:10: a text with a NUL character; remove the \"\\0\""},
    };

    (void)state;
    check_errors(cases, COUNT(cases));
}

static void test_key_errors_are_exact(void **state)
{
    static const struct error_case cases[] = {
        {"listener: []\n", "f.yaml:1:1: unknown key 'listener'; write 'listeners' " TOP_KEYS},
        {"limits:\n  half-closed: 1s\n", "f.yaml:2:3: unknown key 'half-closed'; write 'half_closed' " LIMIT_KEYS},
        {"limits: {conections: 5}\n", "f.yaml:1:10: unknown key 'conections'; write 'connections' " LIMIT_KEYS},
        {"tls: {}\n", "f.yaml:1:1: unknown key 'tls'; write 'dns' " TOP_KEYS},
        {"log: {colour: true}\n",
         "f.yaml:1:7: unknown key 'colour'; remove it (keys here: level, format, output, access)"},
        {"<<: {}\n", "f.yaml:1:1: unknown key '<<'; remove it " TOP_KEYS},
        {"\"\": {}\n", "f.yaml:1:1: unknown key ''; remove it " TOP_KEYS},
        {"\"a\\e[31m\\n\": 1\n", "f.yaml:1:1: unknown key 'a\\x1b[31m\\x0a'; remove it " TOP_KEYS},
        {"\"\\x85\\u202e\": 1\n", "f.yaml:1:1: unknown key '\\xc2\\x85\\xe2\\x80\\xae'; remove it " TOP_KEYS},
        {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: 1\n",
         "f.yaml:1:1: unknown key "
         "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...'; "
         "remove it " TOP_KEYS},
        {"workers: 1\nopen: true\nworkers: 2\n",
         "f.yaml:3:1: 'workers' is already at line 1, column 1; remove one of the two"},
        {"limits:\n  idle: 1h\n  idle: 1h\n",
         "f.yaml:3:3: 'idle' is already at line 2, column 3; remove one of the two"},
        {"- workers: 1\n", "f.yaml:1:1: expected a mapping ('listeners: ...'), found a list"},
        {"workers\n", "f.yaml:1:1: expected a mapping ('listeners: ...'), found 'workers'"},
        {"limits: 5\n", "f.yaml:1:9: expected a mapping ('handshake: ...'), found '5'"},
        {"log: []\n", "f.yaml:1:6: expected a mapping ('level: ...'), found a list"},
    };

    (void)state;
    check_errors(cases, COUNT(cases));
}

static void test_listener_errors_are_exact(void **state)
{
    static const struct error_case cases[] = {
        {"listeners: []\n", "f.yaml:1:12: no listener at all; add '- address: 127.0.0.1:1080', or remove 'listeners' "
                            "for the default"},
        {"listeners:\n", "f.yaml:1:11: expected a list (- address: 127.0.0.1:1080), found nothing"},
        {"listeners: {address: \"127.0.0.1:1\"}\n",
         "f.yaml:1:12: expected a list (- address: 127.0.0.1:1080), found a mapping"},
        {"listeners: 127.0.0.1:1\n", "f.yaml:1:12: expected a list (- address: 127.0.0.1:1080), found '127.0.0.1:1'"},
        {"listeners:\n  - 127.0.0.1:1080\n",
         "f.yaml:2:5: expected a mapping, found '127.0.0.1:1080'; write 'address: 127.0.0.1:1080'"},
        {"listeners:\n  - [a]\n", "f.yaml:2:5: expected a mapping ('address: ...'), found a list"},
        {"listeners:\n  - protocols: socks5\n",
         "f.yaml:2:5: a listener without an address; add 'address: 127.0.0.1:1080'"},
        {"listeners:\n  -\n", "f.yaml:2:4: a listener without an address; add 'address: 127.0.0.1:1080'"},
        {"listeners:\n  - adress: 127.0.0.1:1080\n", "f.yaml:2:5: unknown key 'adress'; write 'address' (keys here: "
                                                     "address, protocols, open, tfo, tfo_without_token, tls)"},
        {"listeners:\n  - address:\n", "f.yaml:2:13: expected an address such as 127.0.0.1:1080, found nothing"},
        {"listeners:\n  - address: {}\n", "f.yaml:2:14: expected an address such as 127.0.0.1:1080, found a mapping"},
        {"listeners:\n  - address: [127.0.0.1]\n",
         "f.yaml:2:14: expected an address, found a list; put an IPv6 address in quotes: \"[::]:1080\""},
        {"listeners:\n  - address: 127.0.0.1:70000\n",
         "f.yaml:2:14: '70000' is not a port; write a number from 1 to 65535, or 0 for any free one"},
        {"listeners:\n  - address: \"127.0.0.1:\"\n",
         "f.yaml:2:14: '' is not a port; write a number from 1 to 65535, or 0 for any free one"},
        {"listeners:\n  - address: 127.0.0.1:+1\n",
         "f.yaml:2:14: '+1' is not a port; write a number from 1 to 65535, or 0 for any free one"},
        {"listeners:\n  - address: 1080\n",
         "f.yaml:2:14: '1080' is a port alone; write an address before it: 127.0.0.1:1080"},
        {"listeners:\n  - address: 127.0.0.1\n",
         "f.yaml:2:14: '127.0.0.1' has no port; write ADDRESS:PORT, such as 127.0.0.1:1080 or \"[::1]:1080\""},
        {"listeners:\n  - address: \"[::1]\"\n",
         "f.yaml:2:14: '[::1]' has no port; write ADDRESS:PORT, such as 127.0.0.1:1080 or \"[::1]:1080\""},
        {"listeners:\n  - address: ::1:1080\n", "f.yaml:2:14: '::1:1080' leaves open where the port begins; write "
                                                "\"[ADDRESS]:PORT\", such as \"[::1]:1080\""},
        {"listeners:\n  - address: \":1080\"\n",
         "f.yaml:2:14: ':1080' has no address; write 0.0.0.0:1080 and \"[::]:1080\" for every interface"},
        {"listeners:\n  - address: \"*:1080\"\n",
         "f.yaml:2:14: '*:1080' has no address; write 0.0.0.0:1080 and \"[::]:1080\" for every interface"},
        {"listeners:\n  - address: localhost:1080\n",
         "f.yaml:2:14: 'localhost:1080' is not an IP address and a port; write 127.0.0.1:1080 or \"[::1]:1080\""},
        {"listeners:\n  - address: \"[127.0.0.1]:1080\"\n",
         "f.yaml:2:14: '[127.0.0.1]:1080' is not an IP address and a port; write 127.0.0.1:1080 or \"[::1]:1080\""},
        {"listeners:\n  - address: \"[fe80::1%eth0]:1080\"\n",
         "f.yaml:2:14: '[fe80::1%eth0]:1080' is not an IP address and a port; write 127.0.0.1:1080 or \"[::1]:1080\""},
        {"listeners:\n  - address: 127.0.0.1:1080\n  - address: 127.0.0.1:01080\n",
         "f.yaml:3:14: this address is already at line 2, column 14; remove one of the two"},
        {"listeners:\n  - address: 127.0.0.1:1080\n  - address: \"[::ffff:127.0.0.1]:1080\"\n",
         "f.yaml:3:14: this address is already at line 2, column 14; remove one of the two"},
        {"listeners:\n  - {address: 127.0.0.1:1080, protocols: []}\n",
         "f.yaml:2:42: an empty list would take no client; list socks6, socks5 or socks4, or remove the key for all of "
         "them"},
        {"listeners:\n  - {address: 127.0.0.1:1080, protocols: [socks7]}\n",
         "f.yaml:2:43: 'socks7' is not a protocol; write one of: socks4, socks5, socks6"},
        {"listeners:\n  - {address: 127.0.0.1:1080, protocols: [socks5, socks5]}\n",
         "f.yaml:2:51: 'socks5' is in this list already; remove one of the two"},
        {"listeners:\n  - {address: 127.0.0.1:1080, open: maybe}\n",
         "f.yaml:2:37: 'maybe' is neither 'true' nor 'false'; write one of them"},
        {"listeners:\n  - address: 0.0.0.0:1080\n", "f.yaml:2:14: 0.0.0.0:1080" WOULD_BE_OPEN " if this is meant"},
        {"open: false\nlisteners:\n  - address: 127.0.0.1:1080\n  - address: \"[2001:db8::1]:1080\"\n",
         "f.yaml:4:14: [2001:db8::1]:1080" WOULD_BE_OPEN " if this is meant"},
        {"open: true\nlisteners:\n  - {address: \"[::]:1080\", open: false}\n",
         "f.yaml:3:15: [::]:1080" WOULD_BE_OPEN " if this is meant"},
        {"listeners:\n  - address: 192.0.2.1:1080\nrules:\n  - allow: {ports: 443}\n",
         "f.yaml:2:14: 192.0.2.1:1080" WOULD_BE_OPEN " if this is meant"},
    };

    (void)state;
    check_errors(cases, COUNT(cases));
}

static void test_value_errors_are_exact(void **state)
{
    static const struct error_case cases[] = {
        {"workers: 0\n", "f.yaml:1:10: '0' is not a number from 1 to 256; write one, or 'auto'"},
        {"workers: 257\n", "f.yaml:1:10: '257' is not a number from 1 to 256; write one, or 'auto'"},
        {"workers: 99999999999999999999999999\n",
         "f.yaml:1:10: '99999999999999999999999999' is not a number from 1 to 256; write one, or 'auto'"},
        {"workers: -1\n", "f.yaml:1:10: '-1' is not a number from 1 to 256; write one, or 'auto'"},
        {"workers:\n", "f.yaml:1:9: expected a number, found nothing"},
        {"workers: \"\"\n", "f.yaml:1:10: expected a number, found nothing"},
        {"relay: zero-copy\n", "f.yaml:1:8: 'zero-copy' is not a way to relay; write one of: auto, copy, splice"},
        {"relay:\n", "f.yaml:1:7: expected a way to relay, found nothing"},
        {"relay: [copy]\n", "f.yaml:1:8: expected a way to relay, found a list"},
        {"workers: [1]\n", "f.yaml:1:10: expected a number, found a list"},
        {"open: yes\n", "f.yaml:1:7: 'yes' is neither 'true' nor 'false'; write one of them"},
        {"open: {}\n", "f.yaml:1:7: expected true or false, found a mapping"},
        {"tfo: yes\n", "f.yaml:1:6: 'yes' is not a number from 0 to 65535; write one, or 'true'"},
        {"tfo: 65536\n", "f.yaml:1:6: '65536' is not a number from 0 to 65535; write one, or 'true'"},
        {"tfo: {}\n", "f.yaml:1:6: expected a number, found a mapping"},
        {"tfo_without_token: true\n",
         "f.yaml:1:20: 'true' is not what a request without a token is to do; write one of: wait, act"},
        {"listeners: [{address: \"127.0.0.1:1\", tfo_without_token: [act]}]\n",
         "f.yaml:1:57: expected what a request without a token is to do, found a list"},
        {"limits: {idle: 10}\n", "f.yaml:1:16: '10' has no unit; write 10 followed by ms, s, m, h or d"},
        {"limits: {idle: 10 s}\n", "f.yaml:1:16: '10 s' " NO_TIME},
        {"limits: {idle: 1h30m}\n", "f.yaml:1:16: '1h30m' " NO_TIME},
        {"limits: {idle: 1.5h}\n", "f.yaml:1:16: '1.5h' " NO_TIME},
        {"limits: {idle: -1s}\n", "f.yaml:1:16: '-1s' " NO_TIME},
        {"limits: {idle: s}\n", "f.yaml:1:16: 's' " NO_TIME},
        {"limits: {idle: never}\n", "f.yaml:1:16: 'never' " NO_TIME},
        {"limits: {idle: 366d}\n", "f.yaml:1:16: '366d' is too long; write at most 365d, or 'none' for no limit"},
        {"limits: {idle: 18446744073709551617ms}\n",
         "f.yaml:1:16: '18446744073709551617ms' is too long; write at most 365d, or 'none' for no limit"},
        {"limits: {connect: 366d}\n", "f.yaml:1:19: '366d' is too long; write at most 365d"},
        {"limits: {handshake: 0}\n", "f.yaml:1:21: this cannot be without a limit; write a time such as 10s"},
        {"limits: {handshake: none}\n", "f.yaml:1:21: this cannot be without a limit; write a time such as 10s"},
        {"limits: {connect: 0ms}\n", "f.yaml:1:19: this cannot be without a limit; write a time such as 10s"},
        {"limits: {half_closed: []}\n", "f.yaml:1:23: expected a time such as 10s, found a list"},
        {"limits: {connections: 0}\n", "f.yaml:1:23: '0' is not a number from 1 to 10000000; write one, or 'auto'"},
        {"limits: {connections_per_client: all}\n",
         "f.yaml:1:34: 'all' is not a number from 1 to 10000000; write one, or 'none'"},
        {"limits: {options: 20481}\n", "f.yaml:1:19: '20481' is not a number from 4 to 20480; write one"},
        {"limits: {options: 3}\n", "f.yaml:1:19: '3' is not a number from 4 to 20480; write one"},
        {"happy_eyeballs: {attempt_delay: 9ms}\n",
         "f.yaml:1:33: '9ms' is out of range; write a time from 10ms to 2000ms"},
        {"happy_eyeballs: {attempt_delay: 2001ms}\n",
         "f.yaml:1:33: '2001ms' is out of range; write a time from 10ms to 2000ms"},
        {"happy_eyeballs: {attempt_delay: none}\n",
         "f.yaml:1:33: this cannot be without a limit; write a time such as 10s"},
        {"happy_eyeballs: {resolution_delay: 3s}\n",
         "f.yaml:1:36: '3s' is out of range; write a time from 0ms to 2000ms"},
        {"happy_eyeballs: {first_family_count: 0}\n", "f.yaml:1:38: '0' is not a number from 1 to 16; write one"},
        {"happy_eyeballs: {first_family_count: 17}\n", "f.yaml:1:38: '17' is not a number from 1 to 16; write one"},
        {"happy_eyeballs: {prefer: ipv5}\n",
         "f.yaml:1:26: 'ipv5' is not a preference; write one of: ipv6, ipv4, rfc6724"},
        {"happy_eyeballs: {legacy: 5}\n", "f.yaml:1:26: '5' is neither 'true' nor 'false'; write one of them"},
        {"happy_eyeballs: {attempt: 1s}\n",
         "f.yaml:1:18: unknown key 'attempt'; remove it (keys here: resolution_delay, attempt_delay, "
         "first_family_count, prefer, remember, legacy)"},
        {"happy_eyeballs: off\n", "f.yaml:1:17: expected a mapping ('resolution_delay: ...'), found 'off'"},
        {"log: {level: warn}\n", "f.yaml:1:14: 'warn' is not a log level; write one of: error, warning, info, debug"},
        {"log: {format: xml}\n", "f.yaml:1:15: 'xml' is not a log format; write one of: text, json, journald, auto"},
        {"log: {access: []}\n",
         "f.yaml:1:15: expected true, false, or a mapping of output, format and fields; write one "
         "of them"},
        {"log: {access: }\n", "f.yaml:1:15: expected true, false, or a mapping of output, format and fields; write one "
                              "of them"},
        {"log: {access: {path: /x}}\n",
         "f.yaml:1:16: unknown key 'path'; remove it (keys here: output, format, fields)"},
        {"log: {access: {field: id}}\n",
         "f.yaml:1:16: unknown key 'field'; write 'fields' (keys here: output, format, fields)"},
        {"log: {access: {fields: [id, cleint]}}\n",
         "f.yaml:1:29: unknown field 'cleint'; write 'client' (fields: id, client, listener, protocol, tls, user, "
         "command, "
         "asked, dialled, reply, bytes_up, bytes_down, duration_ms, reason, rule)"},
        {"log: {access: {fields: [\"\\n\"]}}\n",
         "f.yaml:1:25: unknown field '\\x0a'; remove it (fields: id, client, listener, protocol, tls, user, command, "
         "asked, dialled, reply, bytes_up, bytes_down, duration_ms, reason, rule)"},
        {"log: {access: {fields: [id, user, id]}}\n",
         "f.yaml:1:35: 'id' is in this list already; remove one of the two"},
        {"log: {access: {fields: []}}\n",
         "f.yaml:1:24: an empty list would log nothing of a connection; remove the key for all fields, or write "
         "'access: false'"},
        {"log: {access: {fields: [[id]]}}\n", "f.yaml:1:25: expected the name of a field, found a list"},
        {"log: {access: {format: jsn}}\n",
         "f.yaml:1:24: 'jsn' is not a log format; write one of: text, json, journald, auto"},
        {"log: {output: syslog}\n",
         "f.yaml:1:15: 'syslog' is neither one of the words stderr and stdout nor a path; write one of them, or "
         "'./syslog' for a file of this name"},
        {"log: {output: /var/log/}\n", "f.yaml:1:15: '/var/log/' is a directory; add the name of a file"},
        {"log: {output: [a]}\n", "f.yaml:1:15: expected stderr, stdout or a path, found a list"},
        {"log: {access: {output: stdrr}}\n",
         "f.yaml:1:24: 'stdrr' is neither one of the words stderr and stdout nor a path; write one of them, or "
         "'./stdrr' for a file of this name"},
        {"status: /run/x\n", "f.yaml:1:9: expected a mapping ('socket: ...'), found '/run/x'"},
        {"status: {socket: off}\n",
         "f.yaml:1:18: 'off' is neither one of the words auto and none nor a path; write one of them, or './off' for a "
         "file of this name"},
        {"status: {socket: /0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890"
         "12345678901234567}\n",
         "f.yaml:1:18: '/0123456789012345678901234567890123456789012345678901234567890123456789012345678...' is too "
         "long for a socket, whose path has at most "
         "107 bytes; write a shorter one"},
        {"log: {access: 1}\n", "f.yaml:1:15: '1' is neither 'true' nor 'false'; write one of them"},
    };

    (void)state;
    check_errors(cases, COUNT(cases));
}

#define RULE(body) "rules:\n  - allow: " body "\n"
#define AT "f.yaml:2:"

static void test_rule_errors_are_exact(void **state)
{
    static const struct error_case cases[] = {
        {"rules: {allow: {}}\n", "f.yaml:1:8: expected a list (- allow: {...}), found a mapping"},
        {"rules: allow\n", "f.yaml:1:8: expected a list (- allow: {...}), found 'allow'"},
        {"rules: [allow]\n", "f.yaml:1:9: expected 'allow: {...}' or 'deny: {...}', found 'allow'"},
        {"rules: [[]]\n", "f.yaml:1:9: expected 'allow: {...}' or 'deny: {...}', found something else"},
        {"rules: [{}]\n", "f.yaml:1:9: expected 'allow: {...}' or 'deny: {...}', found something else"},
        {"rules: [alow: {}]\n", "f.yaml:1:9: unknown kind of rule 'alow'; write 'allow' or 'deny'"},
        {"rules:\n  - allow: {to: own}\n    deny: {}\n",
         "f.yaml:3:5: a second key in one rule; begin each rule with '- ', and indent what belongs to 'allow'"},
        {"rules:\n  - allow:\n    to: own\n",
         "f.yaml:3:5: a second key in one rule; begin each rule with '- ', and indent what belongs to 'allow'"},
        {RULE("own"), AT "12: expected a mapping ('users: ...'), found 'own'"},
        {"outgoing: eth0\n", "f.yaml:1:11: 'eth0' is not an IP address; write one of this host, such as 192.0.2.1 or "
                             "\"2001:db8::1\""},
        {"outgoing: [192.0.2.1, 192.0.2.1:80]\n", "f.yaml:1:23: '192.0.2.1:80' has a port; write the address alone"},
        {"outgoing: [192.0.2.0/24]\n", "f.yaml:1:12: '192.0.2.0/24' is a network; write each address"},
        {"outgoing: [192.0.2.1, \"::ffff:192.0.2.1\"]\n",
         "f.yaml:1:23: '::ffff:192.0.2.1' is in this list already; remove one of the two"},
        {"outgoing: 0.0.0.0\n",
         "f.yaml:1:11: '0.0.0.0' is no address of a host; write one, or nothing to let the system choose"},
        {"outgoing: [\"::\"]\n",
         "f.yaml:1:12: '::' is no address of a host; write one, or nothing to let the system choose"},
        {"outgoing: 224.0.0.1\n",
         "f.yaml:1:11: '224.0.0.1' is not the address of one host; write one that this host has"},
        {"outgoing: 255.255.255.255\n",
         "f.yaml:1:11: '255.255.255.255' is not the address of one host; write one that this host has"},
        {"outgoing: [\"ff02::1\"]\n",
         "f.yaml:1:12: 'ff02::1' is not the address of one host; write one that this host has"},
        {"outgoing: [\"fe80::1\"]\n",
         "f.yaml:1:12: 'fe80::1' is link-local, which needs an interface to say more; write "
         "another address of this host"},
        {"outgoing: {ipv4: 192.0.2.1}\n", "f.yaml:1:11: expected a list, found a mapping"},
        {"outgoing: [[192.0.2.1]]\n", "f.yaml:1:12: expected an address of this host, found a list"},
        {"outgoing:\n", "f.yaml:1:10: an empty list has to be written as one: [], to let the system choose; or list "
                        "addresses"},
        {"rules:\n  - deny: {outgoing: 192.0.2.1}\n",
         "f.yaml:2:22: a deny rule connects to nothing; remove 'outgoing' here, or write 'allow'"},
        {"rules:\n  - allow: {outgoing: [x]}\n",
         "f.yaml:2:24: 'x' is not an IP address; write one of this host, such as "
         "192.0.2.1 or \"2001:db8::1\""},
        {RULE("{dest: own}"),
         AT "13: unknown key 'dest'; remove it (keys here: users, from, to, ports, commands, outgoing)"},
        {RULE("{port: 1}"),
         AT "13: unknown key 'port'; write 'ports' (keys here: users, from, to, ports, commands, outgoing)"},
        {RULE("{to: own, to: own}"), AT "22: 'to' is already at line 2, column 13; remove one of the two"},
        {RULE("{to: []}"), AT "17: " EMPTY_LIST},
        {RULE("{to: }"), AT "17: " EMPTY_LIST},
        {RULE("{to: ~}"), AT "17: " EMPTY_LIST},
        {RULE("{users: []}"), AT "20: " EMPTY_LIST},
        {RULE("{from: []}"), AT "19: " EMPTY_LIST},
        {RULE("{ports: []}"), AT "20: " EMPTY_LIST},
        {RULE("{commands: []}"), AT "23: " EMPTY_LIST},
        {RULE("{to: {}}"), AT "17: expected a list, found a mapping"},
        {RULE("{to: [[own]]}"),
         AT "18: expected an address, a network, a name or a word such as private, found a list"},
        {RULE("{users: [\"\"]}"), AT "21: expected a user name, found nothing"},
        {RULE("{from: 10.0.0.5/8}"), AT "19: '10.0.0.5/8' has bits set behind its prefix; write 10.0.0.0/8 for the "
                                        "network, or 10.0.0.5 for the one address"},
        {RULE("{from: \"2001:db8::1/32\"}"), AT "19: '2001:db8::1/32' has bits set behind its prefix; write "
                                                "2001:db8::/32 for the network, or 2001:db8::1 for the one address"},
        {RULE("{from: \"::ffff:10.0.0.1/104\"}"), AT "19: '::ffff:10.0.0.1/104' has bits set behind its prefix; write "
                                                     "10.0.0.0/8 for the network, or 10.0.0.1 for the one address"},
        {RULE("{from: \"::ffff:0.0.0.0/95\"}"),
         AT "19: '::ffff:0.0.0.0/95' holds all of IPv4 and more; write 0.0.0.0/0 and the IPv6 network"},
        {RULE("{from: 10.0.0.0/33}"), AT "19: '33' is not the length of an IPv4 prefix; write a number from 0 to 32"},
        {RULE("{from: 10.0.0.0/}"), AT "19: '' is not the length of an IPv4 prefix; write a number from 0 to 32"},
        {RULE("{from: 10.0.0.0/255.0.0.0}"),
         AT "19: '255.0.0.0' is not the length of an IPv4 prefix; write a number from 0 to 32"},
        {RULE("{from: \"fe80::/129\"}"),
         AT "19: '129' is not the length of an IPv6 prefix; write a number from 0 to 128"},
        {RULE("{from: 10.0.0.0.0/8}"), AT "19: '10.0.0.0.0/8' is not an address or a network; write 192.0.2.1, "
                                          "10.0.0.0/8 or \"fe80::/10\""},
        {RULE("{from: example.org}"), AT "19: 'example.org' is not an address or a network; write 192.0.2.1, "
                                         "10.0.0.0/8 or \"fe80::/10\""},
        {RULE("{from: 10.0.0.1:80}"),
         AT "19: '10.0.0.1:80' has a port; write the address alone, and the port under 'ports'"},
        {RULE("{from: \"[::1]\"}"), AT "19: '[::1]' is not an address; write an IPv6 address without brackets"},
        {RULE("{from: [10.0.0.0/8, private]}"),
         AT "32: 'private' is a word of 'to' only; write networks here, such as 10.0.0.0/8"},
        {RULE("{to: 10.0.0.256}"),
         AT "17: '10.0.0.256' is not an address or a network; write 192.0.2.1, 10.0.0.0/8 or \"fe80::/10\""},
        {RULE("{to: 10.0.0.5/8}"), AT "17: '10.0.0.5/8' has bits set behind its prefix; write 10.0.0.0/8 for the "
                                      "network, or 10.0.0.5 for the one address"},
        {RULE("{to: host.10}"), AT "17: 'host.10' is not an address; write four numbers from 0 to 255"},
        {RULE("{to: example.org:443}"), AT "17: 'example.org:443' is not an address or a network; write 192.0.2.1, "
                                           "10.0.0.0/8 or \"fe80::/10\""},
        {RULE("{to: \"*\"}"), AT "17: '*' is no pattern; write 'any'"},
        {RULE("{to: \"www.*.org\"}"),
         AT "17: 'www.*.org' is no pattern; '*.' at the beginning stands for every name below: \"*.example.org\""},
        {RULE("{to: \"*example.org\"}"),
         AT "17: '*example.org' is no pattern; '*.' at the beginning stands for every name below: \"*.example.org\""},
        {RULE("{to: \"*.\"}"), AT "17: '*.' " NO_HOST},
        {RULE("{to: a..b}"), AT "17: 'a..b' " NO_HOST},
        {RULE("{to: .example.org}"), AT "17: '.example.org' " NO_HOST},
        {RULE("{to: exa mple.org}"), AT "17: 'exa mple.org' " NO_HOST},
        {RULE("{to: b\xc3\xbc"
              "cher.example}"),
         AT "17: 'b\\xc3\\xbccher.example' is not ASCII; write the name as it goes over the network: xn--..."},
        {RULE("{to: loopbak}"),
         AT "17: 'loopbak' is near to the word 'loopback'; write that, or 'loopbak.' for a host of this name"},
        {RULE("{to: link_local}"),
         AT "17: 'link_local' is near to the word 'link-local'; write that, or 'link_local.' for a host of this name"},
        {RULE("{to: Any}"), AT "17: 'Any' is near to the word 'any'; write that, or 'Any.' for a host of this name"},
        {RULE("{ports: 70000}"),
         AT "20: '70000' is not a port; write a number from 1 to 65535, or a range such as 8000-8999"},
        {RULE("{ports: 0}"), AT "20: '0' is not a port; write a number from 1 to 65535, or a range such as 8000-8999"},
        {RULE("{ports: [443, 80-]}"),
         AT "26: '80-' is not a port; write a number from 1 to 65535, or a range such as 8000-8999"},
        {RULE("{ports: 80-70000}"),
         AT "20: '80-70000' is not a port; write a number from 1 to 65535, or a range such as 8000-8999"},
        {RULE("{ports: https}"),
         AT "20: 'https' is not a port; write a number from 1 to 65535, or a range such as 8000-8999"},
        {RULE("{ports: 9000-8000}"), AT "20: '9000-8000' runs backwards; write 8000-9000"},
        {RULE("{commands: CONNECT}"),
         AT "23: 'CONNECT' is not a command; write one of: noop, connect, bind, udp-associate"},
    };

    (void)state;
    check_errors(cases, COUNT(cases));
}

static void test_names_past_their_limits_are_refused(void **state)
{
    char text[512], name[300];

    (void)state;
    memset(name, 'a', sizeof name);
    name[256] = '\0';
    (void)snprintf(text, sizeof text, "rules:\n  - allow: {users: %s}\n", name);
    assert_error(text, strlen(text), "f.yaml:2:20: a user name of more than 255 bytes; no user has one");
    name[255] = '\0';
    (void)snprintf(text, sizeof text, "rules:\n  - allow: {users: %s}\n", name);
    config_release(load(text));
    name[63] = '.';
    name[127] = '.';
    name[191] = '.';
    name[253] = '\0';
    (void)snprintf(text, sizeof text, "rules:\n  - allow: {to: %s}\n", name);
    config_release(load(text));
    name[253] = 'a';
    (void)snprintf(text, sizeof text, "rules:\n  - allow: {to: %s}\n", name);
    assert_error(
        text, strlen(text),
        AT "17: 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaa...' is longer than "
           "any host name (253); correct it");
    name[253] = '\0';
    name[63] = 'a';
    (void)snprintf(text, sizeof text, "rules:\n  - allow: {to: %s}\n", name);
    assert_error(text, strlen(text),
                 AT
                 "17: 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...' " NO_HOST);
}

static void test_an_error_never_holds_control_characters(void **state)
{
    static const char path[] = "a\nb\x1b[31m.yaml";
    const struct config *config;
    struct config_error error;
    char text[400] = "workers: \"";

    (void)state;
    for (int i = 0; i < 60; i++) {
        strcat(text, "\\e\\a");
    }
    strcat(text, "\"\n");
    assert_int_equal(config_load_memory(path, text, strlen(text), NULL, 0, &config, &error), -1);
    for (const char *c = error.text; *c != '\0'; c++) {
        assert_in_range((unsigned char)*c, 0x20, 0x7e);
    }
    assert_non_null(strstr(error.text, "a\\x0ab\\x1b[31m.yaml:1:10: '\\x1b\\x07"));
    assert_non_null(strstr(error.text, "write one, or 'auto'"));
}

static void test_a_long_path_leaves_room_for_the_error(void **state)
{
    const struct config *config;
    struct config_error error;
    static char path[3000];

    (void)state;
    memset(path, 'p', sizeof path);
    path[sizeof path - 1] = '\0';
    assert_int_equal(config_load_memory(path, "tls: 1", 6, NULL, 0, &config, &error), -1);
    assert_non_null(strstr(error.text, ":1:1: unknown key 'tls'; write 'dns' " TOP_KEYS));
    assert_int_equal(config_load(path, NULL, 0, &config, &error), -1);
    assert_non_null(strstr(error.text, ": File name too long"));
}

/* -- files -- */

static void test_missing_file_and_directory_are_named(void **state)
{
    const struct config *config;
    struct config_error error;

    (void)state;
    assert_int_equal(config_load("/nonexistent/socks6d.yaml", NULL, 0, &config, &error), -1);
    assert_string_equal(error.text, "/nonexistent/socks6d.yaml: No such file or directory");
    assert_int_equal(config_load("/", NULL, 0, &config, &error), -1);
    assert_string_equal(error.text, "/: Is a directory");
}

static void write_file(char *path, const char *text, size_t len)
{
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    while (len > 0) {
        ssize_t written = write(fd, text, len);

        assert_true(written > 0);
        text += written;
        len -= (size_t)written;
    }
    assert_int_equal(close(fd), 0);
}

static void test_a_file_is_read_up_to_its_limit(void **state)
{
    char path[] = "/tmp/test_config.XXXXXX", longer[] = "/tmp/test_config.XXXXXX", expected[128];
    char *text = malloc(CONFIG_FILE_MAX + 1);
    const struct config *config;
    struct config_error error;

    (void)state;
    assert_non_null(text);
    memset(text, '#', CONFIG_FILE_MAX + 1);
    memcpy(text, "workers: 7\n", 11);
    write_file(path, text, CONFIG_FILE_MAX);
    assert_int_equal(config_load(path, NULL, 0, &config, &error), 0);
    assert_int_equal(config->workers, 7);
    config_release(config);
    write_file(longer, text, CONFIG_FILE_MAX + 1);
    assert_int_equal(config_load(longer, NULL, 0, &config, &error), -1);
    (void)snprintf(expected, sizeof expected, "%s: longer than 1048576 bytes; no configuration is", longer);
    assert_string_equal(error.text, expected);
    free(text);
    assert_int_equal(unlink(path) | unlink(longer), 0);
}

/* -- values -- */

static void assert_addr(const struct socks6_addr *addr, const char *expected)
{
    char text[SOCKS6_ADDR_TEXT_MAX];

    (void)socks6_addr_format(addr, text, sizeof text);
    assert_string_equal(text, expected);
}

static void assert_defaults(const struct config *config)
{
    assert_int_equal(config->listener_count, 2);
    assert_addr(&config->listeners[0].address, "127.0.0.1:1080");
    assert_addr(&config->listeners[1].address, "[::1]:1080");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(config->listeners[i].protocols, CONFIG_SOCKS4 | CONFIG_SOCKS5 | CONFIG_SOCKS6);
        assert_false(config->listeners[i].open);
        assert_int_equal(config->listeners[i].fast_open.queue_len, CONFIG_FAST_OPEN_DEFAULT);
        assert_false(config->listeners[i].fast_open.acts_without_token);
        assert_int_equal(config->listeners[i].line, 0);
    }
    assert_int_equal(config->workers, 0);
    assert_int_equal(config->relay, CONFIG_RELAY_AUTO);
    assert_int_equal(config->limits.handshake_ms, 10000);
    assert_int_equal(config->limits.connect_ms, 30000);
    assert_int_equal(config->limits.relay.idle_ms, 86400000);
    assert_int_equal(config->limits.relay.half_closed_ms, 300000);
    assert_int_equal(config->limits.connections, 0);
    assert_int_equal(config->limits.connections_per_client, CONFIG_PER_CLIENT_AUTO);
    assert_int_equal(config->limits.options, 20480);
    assert_true(config->happy_eyeballs.race.race);
    assert_int_equal(config->happy_eyeballs.race.resolution_delay_ms, 50);
    assert_int_equal(config->happy_eyeballs.race.attempt_delay_ms, 250);
    assert_int_equal(config->happy_eyeballs.race.first_family_count, 1);
    assert_int_equal(config->happy_eyeballs.race.prefer, DESTINATION_IPV6);
    assert_int_equal(config->happy_eyeballs.remember_ms, 600000);
    assert_true(config->happy_eyeballs.legacy);
    assert_int_equal(config->log.level, CONFIG_LOG_INFO);
    assert_int_equal(config->log.daemon.target, CONFIG_LOG_STDERR);
    assert_int_equal(config->log.daemon.format, CONFIG_LOG_AUTO);
    assert_true(config->log.access);
    assert_int_equal(config->log.access_output.target, CONFIG_LOG_STDERR);
    assert_int_equal(config->log.access_output.format, CONFIG_LOG_AUTO);
    assert_int_equal(config->log.fields.count, CONFIG_LOG_FIELD_COUNT);
    for (unsigned i = 0; i < CONFIG_LOG_FIELD_COUNT; i++) {
        assert_int_equal(config->log.fields.order[i], i);
    }
    assert_int_equal(config->status.kind, CONFIG_STATUS_AUTO);
    assert_non_null(config->policy);
    assert_int_equal(config->policy->count, 0);
}

static void test_defaults_without_a_file(void **state)
{
    const struct config *config;
    struct config_error error;

    (void)state;
    assert_int_equal(config_load(NULL, NULL, 0, &config, &error), 0);
    assert_defaults(config);
    config_release(config);
}

static void test_fast_open_of_the_top_is_for_listeners_that_do_not_say(void **state)
{
    static const char text[] = "listeners:\n"
                               "  - address: 127.0.0.1:1\n"
                               "  - {address: 127.0.0.1:2, tfo: true}\n"
                               "  - {address: 127.0.0.1:3, tfo: 7, tfo_without_token: wait}\n"
                               "tfo: false\n"
                               "tfo_without_token: act\n";
    static const char *const listen[] = {"127.0.0.1:9"};
    static const uint32_t lengths[] = {0, CONFIG_FAST_OPEN_DEFAULT, 7};
    static const bool acts[] = {true, true, false};
    const struct config *config = load(text);
    struct config_error error;

    (void)state;
    assert_int_equal(config->listener_count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(config->listeners[i].fast_open.queue_len, lengths[i]);
        assert_int_equal(config->listeners[i].fast_open.acts_without_token, acts[i]);
    }
    config_release(config);
    assert_int_equal(config_load_memory("f.yaml", text, strlen(text), listen, 1, &config, &error), 0);
    assert_int_equal(config->listeners[0].fast_open.queue_len, 0);
    assert_true(config->listeners[0].fast_open.acts_without_token);
    config_release(config);
}

static void test_empty_files_and_sections_are_the_defaults(void **state)
{
    static const char *const texts[] = {
        "",
        "# nothing\n",
        "---\n",
        "{}\n",
        "~\n",
        "limits:\nlog:\nrules:\nhappy_eyeballs:\n",
        "limits: {}\nlog: {}\nrules: []\n",
        "\xef\xbb\xbf# BOM\n",
    };

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        const struct config *config = load(texts[i]);

        assert_defaults(config);
        config_release(config);
    }
}

static void test_every_key_is_taken(void **state)
{
    const struct config *config =
        load("listeners:\n"
             "  - address: 127.0.0.1:0\n"
             "    protocols: socks5\n"
             "  - {address: \"[::]:1081\", protocols: [socks6, socks4], open: true}\n"
             "  - {address: \"127.0.0.1:0\"}\n"
             "open: false\n"
             "workers: 3\n"
             "relay: splice\n"
             "limits: {handshake: 1500ms, connect: 5s, idle: none, half_closed: 0,\n"
             "         connections: 123, connections_per_client: off, options: 4}\n"
             "happy_eyeballs: {resolution_delay: none, attempt_delay: 10ms, prefer: rfc6724,\n"
             "  first_family_count: 2, remember: off, legacy: false}\n"
             "log: {level: debug, format: json, output: stdout, access: false}\n"
             "status: {socket: /x/y}\n");

    (void)state;
    assert_int_equal(config->listener_count, 3);
    assert_addr(&config->listeners[0].address, "127.0.0.1:0");
    assert_int_equal(config->listeners[0].protocols, CONFIG_SOCKS5);
    assert_int_equal(config->listeners[0].line, 2);
    assert_false(config->listeners[0].open);
    assert_addr(&config->listeners[1].address, "[::]:1081");
    assert_int_equal(config->listeners[1].protocols, CONFIG_SOCKS4 | CONFIG_SOCKS6);
    assert_int_equal(config->listeners[1].line, 4);
    assert_true(config->listeners[1].open);
    assert_int_equal(config->workers, 3);
    assert_int_equal(config->relay, CONFIG_RELAY_SPLICE);
    assert_int_equal(config->limits.handshake_ms, 1500);
    assert_int_equal(config->limits.connect_ms, 5000);
    assert_int_equal(config->limits.relay.idle_ms, 0);
    assert_int_equal(config->limits.relay.half_closed_ms, 0);
    assert_int_equal(config->limits.connections, 123);
    assert_int_equal(config->limits.connections_per_client, 0);
    assert_int_equal(config->limits.options, 4);
    assert_true(config->happy_eyeballs.race.race);
    assert_int_equal(config->happy_eyeballs.race.resolution_delay_ms, 0);
    assert_int_equal(config->happy_eyeballs.race.attempt_delay_ms, 10);
    assert_int_equal(config->happy_eyeballs.race.first_family_count, 2);
    assert_int_equal(config->happy_eyeballs.race.prefer, DESTINATION_RFC6724);
    assert_int_equal(config->happy_eyeballs.remember_ms, 0);
    assert_false(config->happy_eyeballs.legacy);
    assert_int_equal(config->log.level, CONFIG_LOG_DEBUG);
    assert_int_equal(config->log.daemon.format, CONFIG_LOG_JSON);
    assert_int_equal(config->log.daemon.target, CONFIG_LOG_STDOUT);
    assert_false(config->log.access);
    assert_int_equal(config->status.kind, CONFIG_STATUS_PATH);
    assert_string_equal(config->status.path, "/x/y");
    config_release(config);
}

static void assert_log(const char *text, enum config_log_target target, const char *path, enum config_log_format format,
                       const char *fields)
{
    const struct config *config = load(text);
    const struct config_log *log = &config->log;
    char order[256] = "";

    assert_true(log->access);
    assert_int_equal(log->access_output.target, target);
    assert_int_equal(log->access_output.format, format);
    if (path == NULL) {
        assert_null(log->access_output.path);
    } else {
        assert_string_equal(log->access_output.path, path);
    }
    for (unsigned i = 0; i < log->fields.count; i++) {
        strcat(order, i == 0 ? "" : " ");
        strcat(order, config_field_names[log->fields.order[i]]);
    }
    assert_string_equal(order, fields);
    config_release(config);
}

#define ALL_FIELDS                                                                                                     \
    "id client listener protocol tls user command asked dialled reply bytes_up bytes_down duration_ms reason rule"

static void test_the_access_log_follows_the_daemons_unless_it_is_told(void **state)
{
    (void)state;
    assert_log("log: {output: stdout, format: json}\n", CONFIG_LOG_STDOUT, NULL, CONFIG_LOG_JSON, ALL_FIELDS);
    assert_log("log: {access: true, output: /x/y, format: text}\n", CONFIG_LOG_FILE, "/x/y", CONFIG_LOG_TEXT,
               ALL_FIELDS);
    assert_log("log: {access: {fields: [rule, id]}, output: /x/y}\n", CONFIG_LOG_FILE, "/x/y", CONFIG_LOG_AUTO,
               "rule id");
    assert_log("log: {access: {output: /z, fields: user}, output: /x/y, format: json}\n", CONFIG_LOG_FILE, "/z",
               CONFIG_LOG_JSON, "user");
    assert_log("log: {access: {format: text, output: stderr}, output: /x/y}\n", CONFIG_LOG_STDERR, NULL,
               CONFIG_LOG_TEXT, ALL_FIELDS);
    assert_log("log: {access: {}}\n", CONFIG_LOG_STDERR, NULL, CONFIG_LOG_AUTO, ALL_FIELDS);
}

static void test_paths_are_relative_to_the_configuration(void **state)
{
    static const char *const cases[][3] = {
        /* The file, what it says, and what it means; '@' is the current directory. */
        {"/etc/socks6d.yaml", "./a/b", "/etc/./a/b"},
        {"/socks6d.yaml", "./a", "/./a"},
        {"/etc/x.yaml", "/a", "/a"},
        {"x.yaml", "./a", "@/./a"},
        {"conf/x.yaml", "../a", "@/conf/../a"},
    };
    char here[1024], text[256], expected[1280];
    struct config_error error;

    (void)state;
    assert_non_null(getcwd(here, sizeof here));
    for (size_t i = 0; i < COUNT(cases); i++) {
        const struct config *config;
        bool is_relative = cases[i][2][0] == '@';

        (void)snprintf(text, sizeof text, "log: {output: %s}\n", cases[i][1]);
        (void)snprintf(expected, sizeof expected, "%s%s", is_relative ? here : "", cases[i][2] + is_relative);
        assert_int_equal(config_load_memory(cases[i][0], text, strlen(text), NULL, 0, &config, &error), 0);
        assert_string_equal(config->log.daemon.path, expected);
        config_release(config);
    }
}

static void test_outgoing_addresses_are_taken_in_order(void **state)
{
    const struct config *config = load("outgoing: [192.0.2.9, \"2001:db8::1\", \"::ffff:192.0.2.1\", 127.0.0.1]\n"
                                       "rules:\n"
                                       "  - allow: {outgoing: [\"::1\"]}\n"
                                       "  - allow: {outgoing: []}\n"
                                       "  - allow: {to: any}\n");
    const struct policy *policy = config->policy;

    (void)state;
    assert_int_equal(policy->outgoing.ipv4_count, 3);
    assert_addr(&policy->outgoing.ipv4[0], "192.0.2.9:0");
    assert_addr(&policy->outgoing.ipv4[1], "192.0.2.1:0");
    assert_addr(&policy->outgoing.ipv4[2], "127.0.0.1:0");
    assert_int_equal(policy->outgoing.ipv6_count, 1);
    assert_addr(&policy->outgoing.ipv6[0], "[2001:db8::1]:0");
    assert_true(policy->rules[0].has_outgoing);
    assert_int_equal(policy->rules[0].outgoing.ipv4_count, 0);
    assert_addr(&policy->rules[0].outgoing.ipv6[0], "[::1]:0");
    assert_true(policy->rules[1].has_outgoing);
    assert_int_equal(policy->rules[1].outgoing.ipv4_count + policy->rules[1].outgoing.ipv6_count, 0);
    assert_false(policy->rules[2].has_outgoing);
    config_release(config);
}

static void test_a_list_of_outgoing_addresses_has_an_end(void **state)
{
    static char text[64 * 1024] = "outgoing: [";
    const struct config *config;
    struct config_error error;
    size_t len = strlen(text);

    (void)state;
    for (unsigned i = 0; i <= POLICY_OUTGOING_MAX; i++) {
        if (i == POLICY_OUTGOING_MAX) {
            (void)snprintf(text + len, sizeof text - len, "\"::1\"]\n"); /* of the other family there may be more */
            config = load(text);
            assert_int_equal(config->policy->outgoing.ipv4_count, POLICY_OUTGOING_MAX);
            config_release(config);
        }
        len += (size_t)snprintf(text + len, sizeof text - len, "10.0.%u.%u, ", i / 250, i % 250);
    }
    (void)snprintf(text + len, sizeof text - len, "]\n");
    assert_int_equal(config_load_memory("f.yaml", text, strlen(text), NULL, 0, &config, &error), -1);
    assert_non_null(strstr(error.text, ": more than 1024 addresses; remove this and what follows"));
}

static char missing[256];

static void collect_missing(void *user, const char *address, unsigned line, int error)
{
    size_t len = strlen(missing);

    assert_ptr_equal(user, missing);
    (void)snprintf(missing + len, sizeof missing - len, "%s@%u=%d ", address, line, error);
}

static void test_addresses_that_the_host_does_not_have_are_told(void **state)
{
    const struct config *config = load("outgoing: [127.0.0.1, 192.0.2.77]\n"
                                       "rules:\n"
                                       "  - allow: {outgoing: [127.0.0.2, 192.0.2.78]}\n");
    char expected[128];

    (void)state;
    missing[0] = '\0';
    config_missing_outgoing(config, collect_missing, missing);
    (void)snprintf(expected, sizeof expected, "192.0.2.77@0=%d 192.0.2.78@3=%d ", EADDRNOTAVAIL, EADDRNOTAVAIL);
    assert_string_equal(missing, expected);
    config_release(config);
}

static void test_quiet_and_verbose_change_the_log(void **state)
{
    static const struct {
        const char *text;
        enum config_verbosity verbosity;
        enum config_log_level level;
        bool access;
    } cases[] = {
        {"", CONFIG_AS_CONFIGURED, CONFIG_LOG_INFO, true},
        {"", CONFIG_QUIET, CONFIG_LOG_WARNING, false},
        {"", CONFIG_VERBOSE, CONFIG_LOG_DEBUG, true},
        {"log: {level: error}\n", CONFIG_QUIET, CONFIG_LOG_ERROR, false},
        {"log: {level: error, access: false}\n", CONFIG_VERBOSE, CONFIG_LOG_DEBUG, false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const struct config *config = load(cases[i].text);

        config_set_verbosity(config, cases[i].verbosity);
        assert_int_equal(config->log.level, cases[i].level);
        assert_int_equal(config->log.access, cases[i].access);
        config_release(config);
    }
}

static void test_where_the_status_socket_is(void **state)
{
    static const struct config_status none = {.kind = CONFIG_STATUS_NONE}, automatic = {.kind = CONFIG_STATUS_AUTO};
    const struct config_status given = {.kind = CONFIG_STATUS_PATH, .path = (char[]){"/x/y"}};
    char path[128];

    (void)state;
    assert_false(config_status_path(&none, path, sizeof path));
    assert_true(config_status_path(&given, path, sizeof path));
    assert_string_equal(path, "/x/y");
    assert_int_equal(setenv("XDG_RUNTIME_DIR", "/run/user/77", 1), 0);
    assert_true(config_status_path(&automatic, path, sizeof path));
    assert_string_equal(path, geteuid() == 0 ? "/run/socks6d.sock" : "/run/user/77/socks6d.sock");
    assert_int_equal(setenv("XDG_RUNTIME_DIR", "relative", 1), 0);
    assert_int_equal(config_status_path(&automatic, path, sizeof path), geteuid() == 0);
    assert_int_equal(unsetenv("XDG_RUNTIME_DIR"), 0);
    assert_int_equal(config_status_path(&automatic, path, sizeof path), geteuid() == 0);
}

static void test_times_in_every_unit(void **state)
{
    static const struct {
        const char *text;
        uint64_t ms;
    } cases[] = {
        {"1ms", 1}, {"2s", 2000}, {"3m", 180000}, {"4h", 14400000}, {"5d", 432000000}, {"365d", CONFIG_TIME_MAX_MS},
        {"0s", 0},  {"\"0\"", 0}, {"off", 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char text[64];
        const struct config *config;

        (void)snprintf(text, sizeof text, "limits: {idle: %s}\n", cases[i].text);
        config = load(text);
        assert_int_equal(config->limits.relay.idle_ms, cases[i].ms);
        config_release(config);
    }
}

static void test_rules_are_taken(void **state)
{
    const struct config *config =
        load("rules:\n"
             "  - allow:\n"
             "      users: alice\n"
             "      from: [10.0.0.0/8, \"::ffff:192.0.2.0/120\"]\n"
             "      to: [private, \"*.Example.org\", Www.example.com., 2001:db8::1, \"::/0\"]\n"
             "      ports: [443, 8000-8999]\n"
             "      commands: [connect, noop, bind, udp-associate]\n"
             "  - deny:\n"
             "  - deny: {}\n");
    const struct policy_rule *rule = &config->policy->rules[0];

    (void)state;
    assert_int_equal(config->policy->count, 3);
    assert_true(rule->allow);
    assert_int_equal(rule->line, 2);
    assert_true(nameset_has(&rule->users, "alice"));
    assert_int_equal(rule->from.ranges[NET_IPV4].count, 2);
    assert_int_equal(rule->from.ranges[NET_IPV6].count, 0);
    assert_int_equal(rule->to.keywords, POLICY_PRIVATE);
    assert_true(nameset_has(&rule->to.suffixes, "example.org"));
    assert_true(nameset_has(&rule->to.names, "www.example.com"));
    assert_true(rule->to.nets.all[NET_IPV6]);
    assert_int_equal(rule->to.nets.ranges[NET_IPV6].count, 1);
    assert_int_equal(rule->port_count, 2);
    assert_int_equal(rule->commands, 15);
    for (size_t i = 1; i < 3; i++) {
        assert_false(config->policy->rules[i].allow);
        for (int j = 0; j < POLICY_CRITERION_COUNT; j++) {
            assert_false(rule_has(&config->policy->rules[i], (enum policy_criterion)j));
        }
    }
    assert_int_equal(config->policy->rules[1].line, 8);
    config_release(config);
}

static void test_hosts_with_short_names_are_no_slips(void **state)
{
    const struct config *config =
        load("rules:\n  - deny: {to: [nas, owl, an, x, own., loopback.example, localhost]}\n");

    (void)state;
    assert_int_equal(config->policy->rules[0].to.names.count, 7);
    assert_int_equal(config->policy->rules[0].to.keywords, 0);
    assert_true(nameset_has(&config->policy->rules[0].to.names, "own"));
    config_release(config);
}

static void test_the_keys_of_a_rule_stand_in_the_order_of_the_criteria(void **state)
{
    static const char *const names[POLICY_CRITERION_COUNT] = {
        [POLICY_USERS] = "users", [POLICY_FROM] = "from",         [POLICY_TO] = "to",
        [POLICY_PORTS] = "ports", [POLICY_COMMANDS] = "commands",
    };

    (void)state;
    assert_true(config_rule_section.key_count > POLICY_CRITERION_COUNT);
    for (int i = 0; i < POLICY_CRITERION_COUNT; i++) {
        assert_string_equal(config_rule_section.keys[i].name, names[i]);
    }
    assert_string_equal(config_rule_section.keys[POLICY_CRITERION_COUNT].name, "outgoing");
}

/* -- listeners off loopback -- */

static void test_what_is_not_open_starts_off_loopback(void **state)
{
    static const char *const texts[] = {
        "listeners: [{address: \"0.0.0.0:1\", open: true}]\n",
        "open: true\nlisteners: [{address: \"0.0.0.0:1\"}]\n",
        "listeners: [{address: \"0.0.0.0:1\"}]\nopen: true\n",
        "listeners: [{address: \"0.0.0.0:1\"}]\nrules: [allow: {from: 10.0.0.0/8}]\n",
        "listeners: [{address: \"0.0.0.0:1\"}]\nrules: [allow: {to: \"*.example.org\"}]\n",
        "listeners: [{address: \"0.0.0.0:1\"}]\nrules: [allow: {users: alice}]\n",
        "listeners: [{address: \"0.0.0.0:1\"}]\nrules: [deny: {}, allow: {}]\n",
        "listeners: [{address: \"127.1.2.3:1\"}, {address: \"[::1]:1\"}, {address: \"[::ffff:127.0.0.1]:2\"}]\n",
    };

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        config_release(load(texts[i]));
    }
}

static void test_listen_arguments_replace_the_listeners(void **state)
{
    static const char *const listen[] = {"127.0.0.1:0", "[::1]:1081", "127.0.0.1:0"};
    /* Those of the file would be refused, which does not matter now; nonsense in them does. */
    const struct config *config = load_or_fail("listeners: [{address: \"0.0.0.0:1\"}]\nworkers: 2\n", listen, 3);

    (void)state;
    assert_int_equal(config->listener_count, 3);
    assert_addr(&config->listeners[0].address, "127.0.0.1:0");
    assert_addr(&config->listeners[1].address, "[::1]:1081");
    assert_int_equal(config->listeners[1].protocols, CONFIG_SOCKS4 | CONFIG_SOCKS5 | CONFIG_SOCKS6);
    assert_int_equal(config->workers, 2);
    config_release(config);
}

static void test_listen_arguments_are_checked_like_listeners(void **state)
{
    static const struct {
        const char *text;
        const char *listen[2];
        const char *error; /* NULL = none */
    } cases[] = {
        {"", {"0.0.0.0:1"}, "-l 0.0.0.0:1: 0.0.0.0:1" WOULD_BE_OPEN " in a configuration file if this is meant"},
        {"", {"127.0.0.1:1", "[::]:1"}, "-l [::]:1: [::]:1" WOULD_BE_OPEN " in a configuration file if this is meant"},
        {"open: true", {"0.0.0.0:1", "[::]:1"}, NULL},
        {"rules: [allow: {from: 10.0.0.0/8}]", {"0.0.0.0:1"}, NULL},
        {"", {"1080"}, "-l 1080: '1080' is a port alone; write an address before it: 127.0.0.1:1080"},
        {"",
         {"\x1b]x:1"},
         "-l \\x1b]x:1: '\\x1b]x:1' is not an IP address and a port; write 127.0.0.1:1080 or \"[::1]:1080\""},
        {"", {"127.0.0.1:5", "127.0.0.1:5"}, "-l 127.0.0.1:5: given twice; remove one of the two"},
        {"tls: 1", {"127.0.0.1:5"}, "f.yaml:1:1: unknown key 'tls'; write 'dns' " TOP_KEYS},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const struct config *config = NULL;
        struct config_error error = {""};
        size_t count = cases[i].listen[1] == NULL ? 1 : 2;
        int err =
            config_load_memory("f.yaml", cases[i].text, strlen(cases[i].text), cases[i].listen, count, &config, &error);

        assert_string_equal(error.text, cases[i].error == NULL ? "" : cases[i].error);
        assert_int_equal(err, cases[i].error == NULL ? 0 : -1);
        config_release(config);
    }
}

/* -- printing -- */

static void test_printed_configuration_loads_to_the_same(void **state)
{
    static const char *const texts[] = {
        "",
        "open: true\nlisteners: [{address: \"[::ffff:10.0.0.1]:1\", protocols: [socks4]}, {address: "
        "\"[2001:db8::]:65535\", open: "
        "false}]\nrules: [allow: {from: 10.0.0.0/8}]\nworkers: 256\nrelay: copy\n",
        "limits: {handshake: 1ms, connect: 90s, idle: off, half_closed: 365d, connections: 10000000, "
        "connections_per_client: none,"
        " options: 20480}\n",
        "log: {level: error, format: json, access: false}\n",
        "happy_eyeballs: {resolution_delay: 0, attempt_delay: 2s, prefer: ipv4, first_family_count: 16, remember: "
        "none, "
        "legacy: false}\n",
        "outgoing: [192.0.2.9, \"2001:db8::1\", 192.0.2.1]\nrules: [allow: {outgoing: [], to: own}, allow: {outgoing: "
        "\"::1\"}]\n",
        "log: {output: stdout, format: journald}\nstatus: {socket: none}\n",
        "log: {output: \"./a \\\"\\u00e9\", access: {output: ../b, format: text, fields: [rule, id]}}\n"
        "status: {socket: ./s}\n",
        "rules:\n"
        "  - deny: {users: [\"a\\tb\\\"c\\\\d\", \"\\u00e9\\u20ac\\U0001f600\", \"\\x85\", \"'\", \"~\", \"x: y\", \"# "
        "z\"]}\n"
        "  - allow: {from: [0.0.0.0/0, \"::/0\", 10.0.0.0/8, 10.1.0.0/16, 192.0.2.1], ports: [1, 65535, 5-6, 2-4]}\n"
        "  - deny: {to: [any, private, loopback, link-local, own, \"*.Example.org.\", x.y, \"::ffff:10.0.0.0/104\", "
        "\"fe80::/10\"]}\n"
        "  - allow: {commands: [udp-associate, noop]}\n"
        "  - allow: {}\n",
    };

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        const struct config *first = load(texts[i]);
        char *printed = print(first), *again;
        const struct config *second = load(printed);

        again = print(second);
        assert_string_equal(printed, again);
        for (const char *c = printed; *c != '\0'; c++) {
            assert_true(*c == '\n' || (*c >= 0x20 && *c < 0x7f));
        }
        /* What printing alone could hide. */
        assert_memory_equal(&first->limits, &second->limits, sizeof first->limits);
        assert_int_equal(first->listener_count, second->listener_count);
        for (size_t j = 0; j < first->listener_count; j++) {
            assert_int_equal(socks6_addr_equal(&first->listeners[j].address, &second->listeners[j].address), 1);
            assert_int_equal(first->listeners[j].protocols, second->listeners[j].protocols);
            assert_int_equal(first->listeners[j].open, second->listeners[j].open);
        }
        assert_int_equal(first->workers, second->workers);
        assert_int_equal(first->relay, second->relay);
        assert_int_equal(first->policy->count, second->policy->count);
        for (size_t j = 0; j < first->policy->count; j++) {
            assert_int_equal(first->policy->rules[j].allow, second->policy->rules[j].allow);
            assert_int_equal(first->policy->rules[j].users.count, second->policy->rules[j].users.count);
            for (size_t k = 0; k < first->policy->rules[j].users.count; k++) {
                assert_string_equal(first->policy->rules[j].users.items[k], second->policy->rules[j].users.items[k]);
            }
        }
        config_release(first);
        config_release(second);
        free(printed);
        free(again);
    }
}

static void test_printing_shows_defaults_and_what_no_rule_matches(void **state)
{
    static const struct {
        const char *text;
        const char *shown;
    } cases[] = {
        {"", "listeners:\n"
             "  - address: \"127.0.0.1:1080\"\n"
             "    protocols: [socks6, socks5, socks4]\n"
             "    open: false\n"
             "    tfo: 1024\n"
             "    tfo_without_token: wait\n"
             "  - address: \"[::1]:1080\"\n"
             "    protocols: [socks6, socks5, socks4]\n"
             "    open: false\n"
             "    tfo: 1024\n"
             "    tfo_without_token: wait\n"
             "open: false\n"
             "tfo: 1024\n"
             "tfo_without_token: wait\n"
             "workers: auto\n"
             "relay: auto\n"
             "outgoing: []\n"
             "rules: []\n"
             "auth:\n"
             "  methods: [anonymous]\n"
             "  users: none\n"
             "  pam: none\n"
             "  pam_remember: 1m\n"
             "limits:\n"
             "  handshake: 10s\n"
             "  connect: 30s\n"
             "  idle: 24h\n"
             "  half_closed: 5m\n"
             "  connections: auto\n"
             "  connections_per_client: auto\n"
             "  options: 20480\n"
             "  sessions: 65536\n"
             "  sessions_anonymous: 32768\n"
             "  sessions_per_user: 64\n"
             "  sessions_per_client: 1024\n"
             "  session_idle: 1h\n"
             "  token_window: 4096\n"
             "happy_eyeballs:\n"
             "  resolution_delay: 50ms\n"
             "  attempt_delay: 250ms\n"
             "  first_family_count: 1\n"
             "  prefer: ipv6\n"
             "  remember: 10m\n"
             "  legacy: true\n"
             "dns:\n"
             "  upstream: system\n"
             "  resolv_conf: \"/etc/resolv.conf\"\n"
             "  hosts: \"/etc/hosts\"\n"
             "  ca: system\n"
             "  timeout: auto\n"
             "  attempts: auto\n"
             "  cache: 32MiB\n"
             "  service: true\n"
             "  service_socks5: false\n"
             "  relay: none\n"
             "  idle: 1m\n"
             "  queries_in_flight: 256\n"
             "  queries_per_second: auto\n"
             "log:\n"
             "  level: info\n"
             "  format: auto\n"
             "  output: stderr\n"
             "  access:\n"
             "    format: auto\n"
             "    output: stderr\n"
             "    fields: [id, client, listener, protocol, tls, user, command, asked, dialled, reply, bytes_up, "
             "bytes_down, "
             "duration_ms, reason, rule]\n"
             "status:\n"
             "  socket: auto\n"
             "# What no rule matches is allowed.\n"
             "# In any case clients that are not on loopback reach the proxy's own, loopback and link-local addresses "
             "only\n"
             "# where an allow rule names them in 'to'.\n"},
        {"outgoing: [192.0.2.9, \"2001:db8::1\", 192.0.2.1]\n",
         "outgoing: [\"192.0.2.9\", \"192.0.2.1\", \"2001:db8::1\"]\n"},
        {"rules: [allow: {outgoing: \"::1\", ports: 1}]\n", "  - allow: {ports: [\"1\"], outgoing: [\"::1\"]}\n"},
        {"rules: [allow: {outgoing: []}]\n", "  - allow: {outgoing: []}\n"},
        {"rules: [allow: {to: 10.0.0.0/8}]\n", "# What no rule matches is denied, the opposite of the last rule.\n"},
        {"rules: [deny: {to: 10.0.0.0/8}]\n", "# What no rule matches is allowed, the opposite of the last rule.\n"},
        {"rules: [deny: {users: x}]\n",
         "# Rules with 'users' match nobody: nobody can log in, every client is anonymous.\n"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const struct config *config = load(cases[i].text);
        char *printed = print(config);

        assert_non_null(strstr(printed, cases[i].shown));
        config_release(config);
        free(printed);
    }
}

static void test_rules_that_match_nobody_get_a_note(void **state)
{
    const struct config *config = load("rules:\n  - allow: {to: own}\n  - deny: {users: bob}\n");
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    (void)state;
    assert_non_null(out);
    config_notes(config, out);
    assert_int_equal(fclose(out), 0);
    assert_string_equal(text,
                        "note: the rule at line 3 matches nobody: nobody can log in, no client has a user name\n");
    free(text);
    config_release(config);
}

static void test_references_keep_a_snapshot(void **state)
{
    const struct config *config = load("workers: 5\n");

    (void)state;
    assert_ptr_equal(config_retain(config), config);
    config_release(config);
    assert_int_equal(config->workers, 5);
    config_release(config);
    config_release(NULL);
}

static void test_distance_counts_slips(void **state)
{
    (void)state;
    assert_int_equal(text_distance("", ""), 0);
    assert_int_equal(text_distance("", "abc"), 3);
    assert_int_equal(text_distance("abc", ""), 3);
    assert_int_equal(text_distance("abc", "abc"), 0);
    assert_int_equal(text_distance("abc", "axc"), 1);
    assert_int_equal(text_distance("abc", "acb"), 1);
    assert_int_equal(text_distance("abc", "abxc"), 1);
    assert_int_equal(text_distance("kitten", "sitting"), 3);
    assert_int_equal(text_distance("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "a"), 32);
    assert_int_equal(text_distance("a", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), 32);
    assert_int_equal(text_distance("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_syntax_errors_are_exact),
        cmocka_unit_test(test_key_errors_are_exact),
        cmocka_unit_test(test_listener_errors_are_exact),
        cmocka_unit_test(test_value_errors_are_exact),
        cmocka_unit_test(test_rule_errors_are_exact),
        cmocka_unit_test(test_names_past_their_limits_are_refused),
        cmocka_unit_test(test_an_error_never_holds_control_characters),
        cmocka_unit_test(test_a_long_path_leaves_room_for_the_error),
        cmocka_unit_test(test_missing_file_and_directory_are_named),
        cmocka_unit_test(test_a_file_is_read_up_to_its_limit),
        cmocka_unit_test(test_defaults_without_a_file),
        cmocka_unit_test(test_fast_open_of_the_top_is_for_listeners_that_do_not_say),
        cmocka_unit_test(test_empty_files_and_sections_are_the_defaults),
        cmocka_unit_test(test_every_key_is_taken),
        cmocka_unit_test(test_the_access_log_follows_the_daemons_unless_it_is_told),
        cmocka_unit_test(test_paths_are_relative_to_the_configuration),
        cmocka_unit_test(test_outgoing_addresses_are_taken_in_order),
        cmocka_unit_test(test_a_list_of_outgoing_addresses_has_an_end),
        cmocka_unit_test(test_addresses_that_the_host_does_not_have_are_told),
        cmocka_unit_test(test_quiet_and_verbose_change_the_log),
        cmocka_unit_test(test_where_the_status_socket_is),
        cmocka_unit_test(test_times_in_every_unit),
        cmocka_unit_test(test_rules_are_taken),
        cmocka_unit_test(test_hosts_with_short_names_are_no_slips),
        cmocka_unit_test(test_the_keys_of_a_rule_stand_in_the_order_of_the_criteria),
        cmocka_unit_test(test_what_is_not_open_starts_off_loopback),
        cmocka_unit_test(test_listen_arguments_replace_the_listeners),
        cmocka_unit_test(test_listen_arguments_are_checked_like_listeners),
        cmocka_unit_test(test_printed_configuration_loads_to_the_same),
        cmocka_unit_test(test_printing_shows_defaults_and_what_no_rule_matches),
        cmocka_unit_test(test_rules_that_match_nobody_get_a_note),
        cmocka_unit_test(test_references_keep_a_snapshot),
        cmocka_unit_test(test_distance_counts_slips),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
