"""CONNECT and NOOP in every protocol: replies, bound addresses, names, and in which order bytes come."""

import contextlib
import socket
import threading

import pytest

from conftest import LONGEST_NAME
from lib import socks6 as s6
from lib.clients import DIALERS, expect_code, finish6, noop6, socks4_dial, socks5_dial, socks6_dial
from lib.net import dial, listening, nobody_is_waiting, pattern, recv_all, recv_exact, sha
from lib.servers import full_listener

PROTOCOLS = sorted(DIALERS)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("front", ["127.0.0.1", "::1"])
def test_connect_moves_bytes_over_both_address_families(proxy, echo, protocol, front):
    where = proxy.addr if front == "127.0.0.1" else proxy.addr6
    with DIALERS[protocol](where, *echo.addr) as sock:
        sock.sendall(b"hello")
        assert recv_exact(sock, 5) == b"hello"
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_success_names_the_address_that_the_server_sees(proxy, protocol):
    with listening() as server:
        tunnel = DIALERS[protocol](proxy.addr, *server.addr)
        with tunnel, server.accept_one() as peer:
            assert tunnel.ok
            assert (str(tunnel.reply.host), tunnel.reply.port) == peer.getpeername()[:2]


@pytest.mark.parametrize("protocol", ["socks5", "socks6"])
def test_success_names_an_ipv6_address_that_the_server_sees(proxy, protocol):
    with listening("::1") as server:
        tunnel = DIALERS[protocol](proxy.addr, *server.addr)
        with tunnel, server.accept_one() as peer:
            assert tunnel.reply.type == s6.IPV6
            assert (str(tunnel.reply.host), tunnel.reply.port) == peer.getpeername()[:2]


def test_socks4_over_ipv6_succeeds_with_zeroes(named_proxy, echo6):
    with socks4_dial(named_proxy.addr, "v6.test", echo6.port) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
    tunnel = socks4_dial(named_proxy.addr, "v6.test", echo6.port)
    with tunnel:
        assert tunnel.ok and str(tunnel.reply.host) == "0.0.0.0" and tunnel.reply.port == 0


# A hosts file has no names with a trailing dot; the name server knows both spellings.
@pytest.mark.parametrize("name", ["v4.test", "V4.Test", "both.test", "dns4.test", "DNS4.test", "dns4.test.", LONGEST_NAME,
                                  LONGEST_NAME + "."], ids=lambda name: name if len(name) < 99 else str(len(name)))
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_connect_by_name(named_proxy, echo, protocol, name):
    with DIALERS[protocol](named_proxy.addr, name, echo.port) as sock:
        sock.sendall(b"by name")
        assert recv_exact(sock, 7) == b"by name"


@pytest.mark.parametrize("name", ["v6.test", "dns6.test"])
@pytest.mark.parametrize("protocol", ["socks5", "socks6"])
def test_connect_by_name_that_has_only_ipv6(named_proxy, echo6, protocol, name):
    with DIALERS[protocol](named_proxy.addr, name, echo6.port) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"


def test_a_name_with_a_dead_and_a_live_address_reaches_the_live_one(named_proxy, echo, echo6):
    """both.test is ::1 and 127.0.0.1; each server listens on one of them only."""
    for server in (echo, echo6):
        with socks6_dial(named_proxy.addr, "both.test", server.port) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"


@pytest.mark.parametrize("draft", [11, 12])
@pytest.mark.parametrize("name", ["v4.test", "both.test", "dns4.test", "dns4.test.", "localhost"])
def test_both_forms_of_domain_padding_are_taken(named_proxy, echo, draft, name):
    """The names differ in length modulo 4, so that each amount of padding occurs."""
    with socks6_dial(named_proxy.addr, name, echo.port, draft=draft, early=b"data") as sock:
        assert recv_exact(sock, 4) == b"data"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("literal", [b"127.0.0.1", b"::1", b"::ffff:127.0.0.1"])
def test_a_domain_field_with_an_ip_literal_is_that_address(proxy, echo, echo6, protocol, literal):
    port = echo6.port if literal == b"::1" else echo.port
    tunnel = DIALERS[protocol](proxy.addr, literal, port)
    with tunnel as sock:
        assert tunnel.ok, tunnel.reply
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"


@pytest.mark.parametrize("protocol", ["socks5", "socks6"])
def test_ipv4_mapped_ipv6_becomes_ipv4_and_is_answered_as_ipv4(proxy, echo, protocol):
    tunnel = DIALERS[protocol](proxy.addr, "::ffff:127.0.0.1", echo.port)
    with tunnel:
        assert tunnel.ok and tunnel.reply.type == s6.IPV4 and str(tunnel.reply.host) == "127.0.0.1"


# Failures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_refused_is_code_5(proxy, protocol):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # bound, not listening: nobody else gets the port
        expect_code(proxy.addr, protocol, *sock.getsockname(), s6.REFUSED)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ["unknown.test", "UNKNOWN.test.", "x.nodata.test", "y" * 64 + ".test", "a..b", ".", "a b"])
def test_a_name_without_addresses_is_code_4(named_proxy, protocol, name):
    expect_code(named_proxy.addr, protocol, name, 80, s6.HOST_UNREACHABLE)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_name_too_long_for_the_name_system_is_code_4(named_proxy, protocol):
    expect_code(named_proxy.addr, protocol, b"n" * 255, 80, s6.HOST_UNREACHABLE)
    expect_code(named_proxy.addr, protocol, b"n." * 127, 80, s6.HOST_UNREACHABLE)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ["x.servfail.test", "x.silent.test"])
def test_a_failing_resolver_is_code_1(named_proxy, protocol, name):
    expect_code(named_proxy.addr, protocol, name, 80, s6.FAILURE)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_answer_within_the_connect_limit_is_code_9(daemon, protocol):
    proxy = daemon(limits={"connect": "300ms"})
    with full_listener() as server:
        # SOCKS 5 has no such code: 4 is the nearest.
        code = s6.HOST_UNREACHABLE if protocol == "socks5" else s6.TIMED_OUT
        expect_code(proxy.addr, protocol, *server.addr, code)
    assert noop6(proxy.addr) == s6.SUCCESS


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_resolver_slower_than_the_connect_limit_is_code_1(daemon, names, protocol):
    proxy = daemon(limits={"connect": "100ms"}, wrapper=names)
    expect_code(proxy.addr, protocol, "x.silent.test", 80, s6.FAILURE)


def test_the_dns_service_that_is_not_there_is_code_5(daemon):
    proxy = daemon(dns={"service": False})
    for host in ("0.0.0.0", "::", b"0.0.0.0", b"::", "::ffff:0.0.0.0"):
        expect_code(proxy.addr, "socks6", host, 53, s6.REFUSED)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("host", ["0.0.0.0", "::", b"0.0.0.0", "::ffff:0.0.0.0"])
def test_the_unspecified_address_is_never_dialled(proxy, echo, protocol, host):
    expect_code(proxy.addr, protocol, host, echo.port, s6.RULES)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("port", [53, 80])
def test_a_name_of_the_unspecified_address_is_never_dialled(named_proxy, protocol, port):
    expect_code(named_proxy.addr, protocol, "unspecified.test", port, s6.RULES)


@pytest.mark.parametrize("protocol", ["socks4", "socks5"])
def test_unspecified_port_53_means_nothing_special_in_older_protocols(proxy, protocol):
    expect_code(proxy.addr, protocol, "0.0.0.0", 53, s6.RULES)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("host", ["224.0.0.1", "239.255.255.250", "ff02::1", "ff0e::1", b"224.0.0.1", "::ffff:224.0.0.1"])
def test_connect_to_multicast_is_code_2(proxy, protocol, host):
    expect_code(proxy.addr, protocol, host, 80, s6.RULES)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_name_of_a_multicast_address_is_code_2(named_proxy, protocol):
    expect_code(named_proxy.addr, protocol, "multicast.test", 80, s6.RULES)


@pytest.mark.parametrize("command", [s6.BIND, s6.UDP_ASSOCIATE, 4, 0x7f, 0xff])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0"])
def test_other_commands_are_code_7(proxy, command, host):
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(s6.request(host, 0, command=command))
        assert finish6(sock).code == s6.COMMAND
        assert sock.recv(1) == b""


@pytest.mark.parametrize("command", [2, 3, 0, 4, 0xf0])
def test_other_commands_are_code_7_over_socks5(proxy, command):
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(s6.socks5_greeting() + s6.socks5_request("0.0.0.0", 0, command=command))
        assert s6.read_socks5_method(sock) == 0
        assert s6.read_socks5_reply(sock).code == s6.COMMAND
        assert sock.recv(1) == b""


@pytest.mark.parametrize("command", [2, 0, 3, 0xff])
def test_other_commands_fail_over_socks4(proxy, command):
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(s6.socks4_request("127.0.0.1", 80, command=command))
        assert s6.read_socks4_reply(sock).code == s6.SOCKS4_FAILED
        assert sock.recv(1) == b""


@pytest.mark.parametrize("atyp", [0, 2, 5, 0x80, 0xff])
def test_an_unknown_address_type_is_code_8(proxy, atyp):
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(s6.request(None, 80, atyp=atyp, raw_address=b"\1\2\3\4"))
        assert finish6(sock).code == s6.ADDRESS_TYPE
        assert sock.recv(1) == b""


@pytest.mark.parametrize("atyp", [0, 2, 5, 0xff])
def test_an_unknown_address_type_is_code_8_over_socks5(proxy, atyp):
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(s6.socks5_greeting() + s6.socks5_request(None, 80, atyp=atyp, raw_address=b"\1\2\3\4"))
        assert s6.read_socks5_method(sock) == 0
        assert s6.read_socks5_reply(sock).code == s6.ADDRESS_TYPE
        assert sock.recv(1) == b""


@pytest.mark.parametrize("command", [s6.NOOP, s6.BIND, s6.UDP_ASSOCIATE])
def test_a_domain_name_with_another_command_than_connect_is_code_8(proxy, command):
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(s6.request("example.test", 0, command=command))
        assert finish6(sock).code == s6.ADDRESS_TYPE
        assert sock.recv(1) == b""


@pytest.mark.parametrize("host, port", [("0.0.0.0", 0), ("::", 0), ("192.0.2.1", 80), ("2001:db8::1", 443)])
def test_noop_succeeds_whatever_its_fields_say(proxy, host, port):
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(s6.noop(host=host, port=port))
        tunnel = finish6(sock)
        assert tunnel.code == s6.SUCCESS and tunnel.reply.options == []
        assert sock.recv(1) == b"", "the proxy closes after NOOP"


# Order of bytes -------------------------------------------------------------------------------------------------------


def test_replies_come_in_order_and_nothing_before_the_servers_data(proxy):
    """A server that talks first: Authentication Reply, Operation Reply, then its bytes, whatever the timing."""
    with listening() as server:
        with contextlib.closing(dial(proxy.addr)) as sock:
            sock.sendall(s6.request(*server.addr))
            with server.accept_one() as peer:
                peer.sendall(b"banner")
                peer.shutdown(socket.SHUT_WR)
                data = recv_all(sock)
        reader = s6.Reader(data)
        assert s6.read_auth_reply(reader).kinds() == []
        assert s6.read_op_reply(reader).code == s6.SUCCESS
        assert data[reader.at:] == b"banner"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_data_behind_the_request_arrives_first_once_and_in_order(proxy, protocol):
    early, late = pattern(1000, 1), pattern(1000, 2)
    with listening() as server:
        with DIALERS[protocol](proxy.addr, *server.addr, early=early) as sock, server.accept_one() as peer:
            sock.sendall(late)
            sock.shutdown(socket.SHUT_WR)
            assert recv_all(peer) == early + late


def test_early_data_in_one_segment_with_the_request_arrives(proxy):
    early = b"GET / HTTP/1.0\r\n\r\n"
    with listening() as server:
        with contextlib.closing(dial(proxy.addr)) as sock:
            sock.send(s6.request(*server.addr) + early)
            with server.accept_one() as peer:
                assert recv_exact(peer, len(early)) == early
                peer.sendall(b"answer")
                assert finish6(sock).code == s6.SUCCESS
                assert recv_exact(sock, 6) == b"answer"


def send_in_background(sock, data, end=True):
    def run():
        sock.sendall(data)
        if end:
            sock.shutdown(socket.SHUT_WR)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_megabytes_of_early_data_wait_for_a_server_that_is_slow_to_accept(proxy, protocol):
    """The server does not answer the SYN while the client sends as much as it can; nothing is lost or doubled."""
    early = pattern(8 << 20)
    with full_listener() as server:
        with contextlib.closing(dial(proxy.addr)) as sock:
            request = {"socks6": lambda: s6.request(*server.addr),
                       "socks5": lambda: s6.socks5_greeting() + s6.socks5_request(*server.addr),
                       "socks4": lambda: s6.socks4_request(*server.addr)}[protocol]()
            sender = send_in_background(sock, request + early)
            server.drain()
            with server.accept_one() as peer:
                assert sha(recv_all(peer)) == sha(early)
            sender.join(30)


def test_megabytes_of_early_data_wait_for_a_server_that_is_slow_to_read(proxy):
    early = pattern(8 << 20)
    with listening() as server:
        with contextlib.closing(dial(proxy.addr)) as sock:
            sender = send_in_background(sock, s6.request(*server.addr) + early)
            # The reply comes while the server has not read a byte.
            assert finish6(sock).code == s6.SUCCESS
            with server.accept_one() as peer:
                got = bytearray()
                while piece := peer.recv(7777):
                    got += piece
                assert sha(got) == sha(early)
            sender.join(30)


def test_early_data_and_end_in_one_go_reach_the_server(proxy):
    with listening() as server:
        with contextlib.closing(dial(proxy.addr)) as sock:
            sock.send(s6.request(*server.addr) + b"all there is")
            sock.shutdown(socket.SHUT_WR)
            with server.accept_one() as peer:
                assert recv_all(peer) == b"all there is"
                peer.sendall(b"answer after your end")
                peer.shutdown(socket.SHUT_WR)
                assert finish6(sock).code == s6.SUCCESS
                assert recv_all(sock) == b"answer after your end"


@pytest.mark.parametrize("announced, sent", [(0, 5000), (5000, 5000), (16384, 100), (16384, 16384), (100, 40000)])
def test_initial_data_with_an_advertisement_is_application_data_where_no_one_authenticates(proxy, announced, sent):
    data = pattern(sent)
    with listening() as server:
        options = s6.advertisement(announced, [2])
        with socks6_dial(proxy.addr, *server.addr, early=data, options=options) as sock, server.accept_one() as peer:
            sock.shutdown(socket.SHUT_WR)
            assert recv_all(peer) == data


def test_more_initial_data_than_allowed_is_refused(proxy):
    """At most 2^14 may be announced."""
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(s6.request("127.0.0.1", 9, options=s6.advertisement(16385, [2])))
        assert sock.recv(4, socket.MSG_WAITALL) == b"\x06\x01\x00\x00"
        assert sock.recv(1) == b""


@pytest.mark.parametrize("options", [
    s6.userpass(b"user", b"secret"), s6.userpass(b"user", b"secret") + s6.advertisement(0, [2]), s6.advertisement(0, [1, 2, 3])])
def test_credentials_are_not_needed_and_do_no_harm(proxy, echo, options):
    tunnel = socks6_dial(proxy.addr, *echo.addr, options=options, early=b"x")
    with tunnel as sock:
        assert tunnel.ok and tunnel.reply.auth.get(s6.SELECTION) is None
        assert sock.recv(1) == b"x"


@pytest.mark.parametrize("options", [
    s6.session_id(b"0123456789abcdef"), s6.session_id(b"0123"), s6.session_id(b"0123456789abcdef") + s6.session_teardown(),
    s6.session_id(b"x" * 1024), s6.session_id(b"0123456789abcdef") + s6.expenditure(1)])
def test_an_unknown_session_is_refused_as_invalid(proxy, options):
    with listening() as server, contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(s6.request(*server.addr, options=options) + b"early data that must go nowhere")
        auth = s6.read_auth_reply(sock)
        assert not auth.success and auth.options == [(s6.SESSION_INVALID, b"")]
        assert sock.recv(1) == b""
        assert nobody_is_waiting(server)


def test_tokens_and_teardown_outside_a_session_are_ignored(proxy, echo):
    options = s6.expenditure(7) + s6.window_request(10) + s6.session_teardown()
    tunnel = socks6_dial(proxy.addr, *echo.addr, options=options)
    with tunnel:
        assert tunnel.ok and tunnel.reply.auth.options == []


def test_stack_options_are_ignored_without_an_answer_until_they_are_supported(proxy, echo):
    options = b"".join(s6.stack(s6.LEG_REMOTE, s6.LEVEL_IP, code, b"\x02\x00") for code in (1, 2, 3, 4))
    options += s6.stack(s6.LEG_REMOTE, s6.LEVEL_TCP, 2, b"\2\0")
    tunnel = socks6_dial(proxy.addr, *echo.addr, options=options, early=b"x")
    with tunnel as sock:
        assert tunnel.ok and tunnel.reply.options == []
        assert sock.recv(1) == b"x"


# A failure's reply must be readable -----------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_failure_can_be_read_after_megabytes_of_early_data(proxy, protocol):
    """Closing with unread data would reset the connection and lose the reply: the proxy drains."""
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))
        addr = refusing.getsockname()
        request = {"socks6": lambda: s6.request(*addr),
                   "socks5": lambda: s6.socks5_greeting() + s6.socks5_request(*addr),
                   "socks4": lambda: s6.socks4_request(*addr)}[protocol]()
        with contextlib.closing(dial(proxy.addr)) as sock:
            data = request + bytes(2 << 20)
            # All of it is on its way before one byte of the reply is read.
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                sock.sendall(data)
            if protocol == "socks6":
                assert finish6(sock).code == s6.REFUSED
            elif protocol == "socks5":
                assert s6.read_socks5_method(sock) == 0
                assert s6.read_socks5_reply(sock).code == s6.REFUSED
            else:
                assert s6.read_socks4_reply(sock).code == s6.SOCKS4_FAILED
            assert sock.recv(1) == b""


def test_an_authentication_failure_can_be_read_after_megabytes_of_data(proxy):
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(s6.request("127.0.0.1", 9, options=s6.session_id(b"unknown.")) + bytes(2 << 20))
        assert s6.read_auth_reply(sock).kinds() == [s6.SESSION_INVALID]
        assert sock.recv(1) == b""


def test_socks5_by_another_listener_family(proxy, echo6):
    with socks5_dial(proxy.addr6, *echo6.addr) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
