"""The tests' own protocol code against bytes written out by hand from the protocol documents, and against itself."""

import ipaddress

import pytest

from lib import socks6 as s6


def test_request_by_ipv4_has_the_documented_bytes():
    assert s6.request("192.0.2.1", 80) == bytes.fromhex("0601 0000 0050 00 01 c0000201")


def test_request_by_ipv6_has_the_documented_bytes():
    assert s6.request("2001:db8::1", 443) == bytes.fromhex("0601 0000 01bb 00 04 20010db8000000000000000000000001")


@pytest.mark.parametrize("draft, text", [(11, "0601 0000 0050 00 03 0b 6578616d706c652e636f6d"),
                                         (12, "0601 0000 0050 00 03 0b 6578616d706c652e636f6d")])
def test_request_by_name_that_needs_no_padding_is_the_same_in_both_forms(draft, text):
    assert s6.request("example.com", 80, draft=draft) == bytes.fromhex(text)


def test_request_by_name_counts_the_padding_from_draft_12_on():
    assert s6.request("a.b", 80) == bytes.fromhex("0601 0000 0050 00 03 03 612e62")
    assert s6.request("ab", 80) == bytes.fromhex("0601 0000 0050 00 03 02 6162 00")
    assert s6.request("ab", 80, draft=12) == bytes.fromhex("0601 0000 0050 00 03 03 6162 00")


def test_options_have_the_documented_bytes():
    assert s6.stack(s6.LEG_REMOTE, s6.LEVEL_TCP, 1, b"\x04\x00") == bytes.fromhex("0001 0008 84 01 0400")
    assert s6.advertisement(16384, [2]) == bytes.fromhex("0002 0008 4000 02 00")
    assert s6.userpass(b"u", b"pw") == bytes.fromhex("0004 000c 02 01 01 75 02 7077 00")
    assert s6.session_request() == bytes.fromhex("0005 0004")
    assert s6.session_id(b"abcd") == bytes.fromhex("0006 0008 61626364")
    assert s6.session_teardown() == bytes.fromhex("000a 0004")
    assert s6.window_request(256) == bytes.fromhex("000b 0008 00000100")
    assert s6.expenditure(7) == bytes.fromhex("000d 0008 00000007")


def test_replies_are_decoded():
    auth = s6.read_auth_reply(bytes.fromhex("06 00 0010 0008 0004 000c 000c 00000001 00000100"))
    assert auth.success and auth.kinds() == [s6.SESSION_OK, s6.WINDOW]
    reply = s6.read_op_reply(bytes.fromhex("06 05 0008 1f90 00 01 7f000001 0001 0008 82 01 0000"))
    assert (reply.code, reply.port, reply.host) == (s6.REFUSED, 8080, ipaddress.IPv4Address("127.0.0.1"))
    assert reply.options == [(s6.STACK, bytes.fromhex("82010000"))]


@pytest.mark.parametrize("text", [
    "05 00 0000", "06 02 0000", "06 00 0002 0000", "06 00 0004 0008 0000", "06 00 0004 0008 0003", "06 00 0008 0008 0008 00000000",
    "06 00 0004 0001 0004", "06 00 0004 0006 0004", "06 00 0008 0008 0004 0008 0004"])
def test_a_malformed_authentication_reply_is_seen(text):
    with pytest.raises(s6.ProtocolError):
        s6.read_auth_reply(bytes.fromhex(text))


@pytest.mark.parametrize("text", [
    "05 00 0000 0000 00 01 00000000", "06 0a 0000 0000 00 01 00000000", "06 00 0000 0000 01 01 00000000",
    "06 00 0000 0000 00 02 00000000", "06 00 0000 0000 00 03 00 000000", "06 00 0000 0000 00 03 02 6162 01",
    "06 00 0000 0000 00 01 000000", "06 00 0004 0000 00 01 00000000 0008 0004"])
def test_a_malformed_operation_reply_is_seen(text):
    with pytest.raises(s6.ProtocolError):
        s6.read_op_reply(bytes.fromhex(text))


@pytest.mark.parametrize("draft", [11, 12])
@pytest.mark.parametrize("host", ["1.2.3.4", "::1", b"a", b"ab", b"abc", b"abcd", b"x" * 250])
def test_requests_survive_the_round_trip(host, draft):
    options = [s6.session_request(), s6.unknown_options(2, 12)]
    decoded = s6.read_request(s6.request(host, 4711, options=options, draft=draft))
    assert str(decoded.host) == str(host) if isinstance(host, str) else decoded.host == host
    assert decoded.port == 4711 and decoded.kinds() == [s6.SESSION_REQUEST, 0x7000, 0x7000]


def test_replies_survive_the_round_trip():
    reply = s6.read_op_reply(s6.op_reply(3, "2001:db8::5", 99, s6.stack(2, 1, 1, b"\x10\x00")))
    assert (reply.code, str(reply.host), reply.port) == (3, "2001:db8::5", 99)
    assert s6.read_auth_reply(s6.auth_reply(1, s6.option(s6.SESSION_INVALID))).kinds() == [s6.SESSION_INVALID]


def test_the_older_protocols_have_the_documented_bytes():
    assert s6.socks5_greeting([0, 2]) == b"\x05\x02\x00\x02"
    assert s6.socks5_request("10.0.0.1", 80) == bytes.fromhex("05 01 00 01 0a000001 0050")
    assert s6.socks5_request("ab", 80) == bytes.fromhex("05 01 00 03 02 6162 0050")
    assert s6.socks4_request("10.0.0.1", 80, b"me") == bytes.fromhex("04 01 0050 0a000001 6d65 00")
    assert s6.socks4_request("ab", 80, b"me") == bytes.fromhex("04 01 0050 00000001 6d65 00 6162 00")
    assert s6.read_socks4_reply(bytes.fromhex("00 5b 0050 0a000001")).code == s6.SOCKS4_FAILED
    assert s6.read_socks5_reply(bytes.fromhex("05 04 00 01 0a000001 0050")).code == s6.HOST_UNREACHABLE
