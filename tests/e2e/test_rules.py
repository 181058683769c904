"""`rules:`: first match by source, destination, name, port and command; names are judged again by their addresses."""

import contextlib
import socket

import pytest

from lib import socks6 as s6
from lib.clients import DIALERS, expect_code, finish6, noop6
from lib.daemon import base_config
from lib.net import dial, listening, nobody_is_waiting

PROTOCOLS = sorted(DIALERS)
ALLOWED, DENIED = s6.SUCCESS, s6.RULES


@pytest.fixture(scope="module")
def ruled(names):
    """ruled(rules): the daemon of this module, reloaded with these rules; a proxy on 127.0.0.1 with private names."""
    from lib.daemon import Daemon
    with Daemon(base_config(("127.0.0.1:0",)), wrapper=names) as one:
        def apply(rules):
            one.reload(base_config(("127.0.0.1:0",), rules=rules))
            return one
        yield apply


def outcome(proxy, host, port, protocol="socks6", source=None):
    tunnel = DIALERS[protocol](proxy.addr, host, port, source=source and (source, 0))
    with tunnel:
        return tunnel.code


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_without_rules_everything_is_allowed(ruled, echo, protocol):
    expect_code(ruled([]).addr, protocol, *echo.addr, ALLOWED)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_denied_destination_is_code_2_in_every_protocol(ruled, protocol):
    proxy = ruled([{"deny": {"to": ["127.0.0.0/8"]}}, {"allow": {}}])
    with listening() as server:
        expect_code(proxy.addr, protocol, *server.addr, DENIED)
        expect_code(proxy.addr, protocol, "v4.test", server.addr[1], DENIED)
        assert nobody_is_waiting(server)


def test_the_first_match_decides(ruled, echo):
    allow, deny = {"allow": {"to": ["127.0.0.1"]}}, {"deny": {"to": ["127.0.0.1"]}}
    assert outcome(ruled([allow, deny]), *echo.addr) == ALLOWED
    assert outcome(ruled([deny, allow]), *echo.addr) == DENIED


def test_what_no_rule_matches_gets_the_opposite_of_the_last_rule(ruled, echo):
    assert outcome(ruled([{"allow": {"to": ["10.0.0.0/8"]}}]), *echo.addr) == DENIED
    assert outcome(ruled([{"deny": {"to": ["10.0.0.0/8"]}}]), *echo.addr) == ALLOWED


def test_rules_by_source(ruled, echo):
    proxy = ruled([{"allow": {"from": ["127.0.0.3", "127.9.0.0/16"]}}])
    for source, code in (("127.0.0.3", ALLOWED), ("127.9.4.5", ALLOWED), ("127.0.0.1", DENIED), ("127.10.0.1", DENIED)):
        assert outcome(proxy, *echo.addr, source=source) == code, source


def test_rules_by_destination_network(ruled, echo):
    proxy = ruled([{"deny": {"to": ["127.0.0.2/31"]}}, {"allow": {}}])
    # 127.0.0.2 and .3 are in it; nothing listens on .4, which shows that it was dialled.
    for host, code in (("127.0.0.1", ALLOWED), ("127.0.0.2", DENIED), ("127.0.0.3", DENIED), ("127.0.0.4", s6.REFUSED)):
        assert outcome(proxy, host, echo.port) == code, host


def test_rules_by_ipv6_network(ruled, echo6, echo):
    proxy = ruled([{"deny": {"to": ["::1/128"]}}, {"allow": {}}])
    assert outcome(proxy, *echo6.addr) == DENIED
    assert outcome(proxy, "v6.test", echo6.port) == DENIED
    assert outcome(proxy, *echo.addr) == ALLOWED


def test_rules_by_name_ignore_case_and_one_trailing_dot(ruled, echo):
    proxy = ruled([{"deny": {"to": ["denied.example", "V4.Test"]}}, {"allow": {}}])
    for name in ("denied.example", "DENIED.Example", "denied.example.", "v4.test", "v4.TEST."):
        assert outcome(proxy, name, echo.port) == DENIED, name
    assert outcome(proxy, "deep.sub.denied.example", echo.port) == s6.REFUSED
    assert outcome(proxy, "127.0.0.1", echo.port) == ALLOWED, "a rule on the name says nothing about the address"


def test_rules_by_name_pattern_match_below_the_name(ruled, echo):
    proxy = ruled([{"deny": {"to": ["*.denied.example"]}}, {"allow": {}}])
    for name in ("deep.sub.denied.example", "DEEP.SUB.DENIED.EXAMPLE.", "no-such.denied.example"):
        assert outcome(proxy, name, echo.port) == DENIED, name
    assert outcome(proxy, "v4.test", echo.port) == ALLOWED


def test_a_name_denied_by_name_is_not_even_looked_up(ruled, name_server):
    proxy = ruled([{"deny": {"to": ["*.secret.test"]}}, {"allow": {}}])
    assert outcome(proxy, "a.secret.test", 80) == DENIED
    assert outcome(proxy, "b.public.test", 80) == s6.HOST_UNREACHABLE
    assert name_server.asked.get("b.public.test") and not name_server.asked.get("a.secret.test")


def test_a_name_that_resolves_to_a_denied_address_is_denied(ruled):
    """No way round the rules by a name of one's own."""
    proxy = ruled([{"deny": {"to": ["127.0.0.2"]}}, {"allow": {}}])
    with listening("127.0.0.2") as server:
        assert outcome(proxy, "two.test", server.addr[1]) == DENIED
        assert nobody_is_waiting(server)
    with listening() as server:
        assert outcome(proxy, "v4.test", server.addr[1]) == ALLOWED
        assert not nobody_is_waiting(server)


def test_a_name_allowed_by_name_is_allowed_where_its_network_is_not(ruled):
    proxy = ruled([{"allow": {"to": ["allowed.example"]}}, {"deny": {"to": ["127.0.0.0/8"]}}, {"allow": {}}])
    assert outcome(proxy, "allowed.example", 1) == s6.REFUSED  # dialled: nobody is there
    assert outcome(proxy, "127.0.0.2", 1) == DENIED
    assert outcome(proxy, "two.test", 1) == DENIED


def test_of_several_addresses_only_the_allowed_ones_are_dialled(ruled, echo, echo6):
    """both.test is ::1 and 127.0.0.1."""
    proxy = ruled([{"deny": {"to": ["::1"]}}, {"allow": {}}])
    assert outcome(proxy, "both.test", echo.port) == ALLOWED
    assert outcome(proxy, "both.test", echo6.port) == s6.REFUSED
    proxy = ruled([{"deny": {"to": ["127.0.0.1"]}}, {"allow": {}}])
    assert outcome(proxy, "both.test", echo6.port) == ALLOWED
    assert outcome(proxy, "both.test", echo.port) == s6.REFUSED


@pytest.mark.parametrize("host", [b"127.0.0.1", "::ffff:127.0.0.1", b"::ffff:127.0.0.1", b"::ffff:7f00:1"])
def test_other_spellings_of_an_address_are_that_address(ruled, echo, host):
    proxy = ruled([{"deny": {"to": ["127.0.0.1/32"]}}, {"allow": {}}])
    assert outcome(proxy, host, echo.port) == DENIED


@pytest.mark.parametrize("host", [b"0177.0.0.1", b"2130706433", b"0x7f.1", b"127.1", b"127.0.0.01"])
def test_odd_spellings_that_the_resolver_takes_for_an_address_are_judged_by_it(ruled, host):
    """inet_aton(3) reads these as 127.0.0.1. They may fail, they must not get through."""
    proxy = ruled([{"deny": {"to": ["127.0.0.0/8"]}}, {"allow": {}}])
    with listening() as server:
        assert outcome(proxy, host, server.addr[1]) in (DENIED, s6.HOST_UNREACHABLE)
        assert nobody_is_waiting(server)


def test_rules_by_port(ruled, echo, echo6):
    proxy = ruled([{"allow": {"ports": [echo.port]}}])
    assert outcome(proxy, *echo.addr) == ALLOWED
    assert outcome(proxy, "v4.test", echo.port) == ALLOWED
    other = next(port for port in (1, 2) if port != echo.port)
    assert outcome(proxy, "127.0.0.1", other) == DENIED
    proxy = ruled([{"allow": {"ports": [f"{echo.port - 1}-{echo.port + 1}"]}}])
    assert outcome(proxy, *echo.addr) == ALLOWED
    assert outcome(proxy, "127.0.0.1", echo.port + 2) == DENIED
    assert outcome(proxy, "127.0.0.1", echo.port - 2) == DENIED
    del echo6


def test_rules_by_command(ruled, echo):
    proxy = ruled([{"deny": {"commands": ["connect"]}}, {"allow": {}}])
    assert outcome(proxy, *echo.addr) == DENIED
    assert noop6(proxy.addr) == s6.SUCCESS
    proxy = ruled([{"allow": {"commands": ["connect"]}}])
    assert outcome(proxy, *echo.addr) == ALLOWED


def test_all_criteria_of_a_rule_must_match(ruled, echo):
    proxy = ruled([{"allow": {"from": ["127.0.0.5"], "to": ["127.0.0.1"], "ports": [echo.port], "commands": ["connect"]}}])
    assert outcome(proxy, *echo.addr, source="127.0.0.5") == ALLOWED
    assert outcome(proxy, *echo.addr, source="127.0.0.6") == DENIED
    assert outcome(proxy, "127.0.0.2", echo.port, source="127.0.0.5") == DENIED
    assert outcome(proxy, "127.0.0.1", 1, source="127.0.0.5") == DENIED


def test_users_rules_match_nobody_while_there_are_no_users(ruled, echo):
    proxy = ruled([{"allow": {"users": ["alice"]}}])
    assert outcome(proxy, *echo.addr) == DENIED


def test_noop_that_no_rule_allows_is_code_2(ruled):
    proxy = ruled([{"deny": {"from": ["127.0.0.9"]}}, {"allow": {}}])
    with contextlib.closing(dial(proxy.addr, source=("127.0.0.9", 0))) as sock:
        sock.sendall(s6.noop())
        assert finish6(sock).code == DENIED
    assert noop6(proxy.addr) == s6.SUCCESS


def test_a_denial_is_logged_with_the_line_of_its_rule(daemon, echo):
    text = f"""listeners:
  - address: 127.0.0.1:0
log: {{format: json}}
rules:
  - allow: {{to: [10.0.0.0/8]}}
  - deny: {{to: ["127.0.0.0/8"]}}
  - allow: {{ports: [{echo.port}]}}
"""
    proxy = daemon(config=text)
    expect_code(proxy.addr, "socks6", *echo.addr, DENIED)
    record = proxy.access()[0]
    assert (record["rule"], record["reply"]) == (6, DENIED)


def test_rules_of_a_reload_hold_for_new_connections_and_old_ones_live_on(ruled, echo):
    proxy = ruled([])
    tunnel = DIALERS["socks6"](proxy.addr, *echo.addr)
    with tunnel as sock:
        ruled([{"deny": {"to": ["127.0.0.0/8"]}}, {"allow": {}}])
        assert outcome(proxy, *echo.addr) == DENIED
        sock.sendall(b"still")
        assert sock.recv(5, socket.MSG_WAITALL) == b"still"


def test_early_data_of_a_denied_request_goes_nowhere(ruled):
    proxy = ruled([{"deny": {"to": ["127.0.0.1"]}}, {"allow": {}}])
    with listening() as server, contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(s6.request(*server.addr) + b"secret" * 10000)
        assert finish6(sock).code == DENIED
        assert sock.recv(1) == b""
        assert nobody_is_waiting(server)
