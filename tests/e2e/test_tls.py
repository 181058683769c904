"""TLS on listeners: every protocol inside, ends and cuts, early data, reloads, certificates of clients, strangers."""

import contextlib
import os
import re
import socket
import ssl
import threading

import pytest

from lib import socks6 as s6
from lib.clients import noop6
from lib.daemon import base_config, run_daemon, write_config
from lib.net import dial, has_ended, listening, pattern, recv_all, recv_exact, recv_until_end, reset, sha, wait_until
from lib.tls import Authority, SClient, Tls, client_context, openssl


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    one = Authority(tmp_path_factory.mktemp("tls"))
    one.server = one.issue("proxy.test")
    one.other = one.issue("proxy.test", prefix="other")
    one.alice = one.issue("alice", alternatives=None)
    one.expired = one.issue("alice", alternatives=None, days=-1, prefix="expired")
    return one


@pytest.fixture(scope="session")
def foreign(tmp_path_factory):
    one = Authority(tmp_path_factory.mktemp("foreign"), "Foreign Authority")
    one.alice = one.issue("alice", alternatives=None)
    return one


def listener(authority, address="127.0.0.1:0", certificate=None, **more):
    certificate, key = certificate or authority.server
    return {"address": address, "tls": {"certificate": certificate, "key": key, **more}}


@pytest.fixture
def proxy(daemon, authority):
    return daemon(listeners=[listener(authority), "127.0.0.1:0"])


@pytest.fixture
def context(authority):
    return client_context(authority)


def counters(proxy):
    mark = proxy.mark()
    proxy.signal(10)
    line = proxy.wait_line("counters:", since=mark)
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", line)}


def dial6(proxy, context, host, port, early=b""):
    client = Tls(proxy.addr, context)
    client.sendall(s6.request(host, port) + early)
    assert s6.read_auth_reply(client).type == 0
    assert s6.read_op_reply(client).code == s6.SUCCESS
    return client


def dial5(proxy, context, host, port, early=b""):
    client = Tls(proxy.addr, context)
    client.sendall(s6.socks5_greeting())
    assert s6.read_socks5_method(client) == 0
    client.sendall(s6.socks5_request(host, port))
    s6.read_socks5_reply(client)
    client.sendall(early)
    return client


def dial4(proxy, context, host, port, early=b""):
    client = Tls(proxy.addr, context)
    client.sendall(s6.socks4_request(host, port) + early)
    s6.read_socks4_reply(client)
    return client


DIAL = {"socks6": dial6, "socks5": dial5, "socks4": dial4}


@contextlib.contextmanager
def pair(proxy, context, protocol="socks6", **more):
    with listening(**more) as server, DIAL[protocol](proxy, context, *server.addr) as client, server.accept_one() as peer:
        yield client, peer


def read_all(client):
    data = bytearray()
    while piece := client.recv(1 << 18):
        data += piece
    return bytes(data)


def read_exact(client, size):
    return s6.Reader(client).read(size)


# The stream ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2])
@pytest.mark.parametrize("protocol", sorted(DIAL))
def test_every_protocol_goes_through_and_both_ends_are_passed_on(daemon, authority, protocol, version):
    proxy = daemon(listeners=[listener(authority, min_version="1.2")])
    context = client_context(authority, version=version)
    with pair(proxy, context, protocol) as (client, server):
        client.sendall(b"question")
        client.end()
        assert recv_all(server) == b"question"
        server.sendall(b"answer" * 1000)
        server.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"answer" * 1000
    with pair(proxy, context, protocol) as (client, server):
        server.sendall(b"banner")
        server.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"banner"
        client.sendall(b"data" * 1000)
        client.end()
        assert recv_all(server) == b"data" * 1000
    for record in proxy.access(2):
        assert record["protocol"].startswith(protocol) and record["reason"] == "done" and record["reply"] == 0
        assert record["tls"] == {"TLSv1_3": "TLSv1.3", "TLSv1_2": "TLSv1.2"}[version.name]
    assert sorted((r["bytes_up"], r["bytes_down"]) for r in proxy.access(2)) == [(8, 6000), (4000, 6)]


def received_piece(client):
    try:
        return client.tls.read(1 << 18)
    except ssl.SSLZeroReturnError:
        return b""  # as Python says it before our own end is out


def test_megabytes_both_ways_at_once(proxy, context):
    up, down = pattern(24 << 20), pattern(31 << 20, seed=2)
    with pair(proxy, context) as (client, server):
        got = []
        threads = [threading.Thread(target=lambda: got.append(sha(recv_all(server)))),
                   threading.Thread(target=lambda: (server.sendall(down), server.shutdown(socket.SHUT_WR)))]
        for thread in threads:
            thread.start()
        # One thread for both directions of the client: TLS objects take one at a time.
        received = bytearray()
        at = 0
        has_ended = False
        client.sock.setblocking(False)
        while not has_ended or at < len(up) or client.rest or client.outgoing.pending:
            with contextlib.suppress(ssl.SSLWantReadError):
                while not has_ended:
                    piece = received_piece(client)
                    received += piece
                    has_ended = not piece
            if at < len(up) and client.outgoing.pending < 1 << 20:
                at += client.tls.write(up[at:at + (1 << 18)])
                if at == len(up):
                    with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLSyscallError):
                        client.tls.unwrap()
            if not has_ended or client.rest or client.outgoing.pending:
                client.move()
        for thread in threads:
            thread.join(60)
    assert sha(bytes(received)) == sha(down) and got == [sha(up)]


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_slow_reader_stops_the_other_end(proxy, context, side):
    """Neither is read without an end, and everything arrives once the reader goes on."""
    data = pattern(48 << 20)
    with pair(proxy, context) as (client, server):
        before = proxy.rss_kib()
        sender = server if side == "client" else client
        done = threading.Event()

        def send():
            sender.sendall(data)
            done.set()
        thread = threading.Thread(target=send)
        thread.start()
        assert not done.wait(1.5)  # the kernel's buffers hold far less
        assert proxy.rss_kib() - before < 24 << 10
        if side == "client":
            assert sha(read_exact(client, len(data))) == sha(data)
        else:
            assert sha(recv_exact(server, len(data))) == sha(data)
        thread.join(60)
        assert done.is_set()


def test_small_messages_go_back_and_forth(proxy, context, echo):
    with dial6(proxy, context, *echo.addr) as client:
        for size in [1, 2, 100, 16383, 16384, 16385, 1, 40000]:
            client.sendall(pattern(size))
            assert read_exact(client, size) == pattern(size)


# Ends that are none -------------------------------------------------------------------------------------------------------


def test_an_end_of_tcp_alone_resets_the_server(proxy, context):
    """A stream that anybody could have cut must not look whole (RFC 8446 section 6.1)."""
    with pair(proxy, context) as (client, server):
        client.sendall(b"part of it")
        assert recv_exact(server, 10) == b"part of it"
        client.cut()
        assert recv_until_end(server) == (b"", "reset")
    record = proxy.access()[0]
    assert record["reason"] == "client ended without close_notify" and record["bytes_up"] == 10


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset_is_passed_on(proxy, context, who):
    with pair(proxy, context) as (client, server):
        client.sendall(b"x")
        assert recv_exact(server, 1) == b"x"
        if who == "client":
            reset(client.sock)
            assert recv_until_end(server) == (b"", "reset")
        else:
            reset(server)
            with pytest.raises((ConnectionResetError, ssl.SSLError)):
                client.recv(10)
    assert proxy.access()[0]["reason"] == f"{who} reset"


def test_a_broken_record_ends_it(proxy, context):
    with pair(proxy, context) as (client, server):
        client.sendall(b"good")
        assert recv_exact(server, 4) == b"good"
        client.sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        assert recv_until_end(server) == (b"", "reset")
        with pytest.raises((ConnectionResetError, ssl.SSLError)):
            client.recv(10)
    assert proxy.access()[0]["reason"] == "client broke TLS"


def test_a_refusal_arrives_whole_and_in_order(proxy, context, echo):
    """Also if the client has sent more than was read, which is thrown away."""
    with Tls(proxy.addr, context) as client:
        client.sendall(s6.request("127.0.0.1", 1) + pattern(100_000))
        assert s6.read_auth_reply(client).type == 0
        assert s6.read_op_reply(client).code == s6.REFUSED
        assert client.recv(1) == b""
    with Tls(proxy.addr, context) as client:
        client.sendall(b"\x07" + bytes(20))
        assert read_all(client) == b"\x06"


def test_the_dns_service_answers_through_tls(proxy, context):
    query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x09localhost\x00\x00\x01\x00\x01"
    with dial6(proxy, context, "0.0.0.0", 53) as client:
        for _ in range(3):
            client.sendall(len(query).to_bytes(2, "big") + query)
            size = int.from_bytes(read_exact(client, 2), "big")
            answer = read_exact(client, size)
            assert answer[:2] == b"\x12\x34" and answer[-4:] == b"\x7f\0\0\1"
        client.end()
        assert client.recv(1) == b""
    assert proxy.access()[0]["tls"] == "TLSv1.3"


# Handshakes ---------------------------------------------------------------------------------------------------------------


def test_protocols_by_alpn(proxy, authority, echo):
    for count, (offer, chosen) in enumerate(((None, None), (["socks6"], "socks6"), (["h2", "socks6"], "socks6"))):
        with dial6(proxy, client_context(authority, alpn=offer), *echo.addr) as client:
            assert client.tls.selected_alpn_protocol() == chosen
        proxy.access(count + 1)
    mark = proxy.mark()
    with pytest.raises(ssl.SSLError, match="(?i)no.application.protocol"):
        Tls(proxy.addr, client_context(authority, alpn=["http/1.1"]))
    assert proxy.access(since=mark)[0]["reason"] == "TLS: no application protocol"
    with SClient(proxy.addr, "-alpn", "http/1.1") as client:
        assert b"no application protocol" in client.read_to_end()


def test_tls_12_only_if_it_is_enabled(daemon, authority):
    proxy = daemon(listeners=[listener(authority)])
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        Tls(proxy.addr, client_context(authority, version=ssl.TLSVersion.TLSv1_2))
    record = proxy.access()[0]
    assert record["reason"] == "TLS: unsupported protocol" and record["tls"] is None


def test_strangers_get_a_clear_line(proxy, echo):
    tls, plain = proxy.listeners()[:2]
    cases = [(b"\x05\x01\x00", "TLS: SOCKS without TLS on a TLS listener"),
             (s6.request(*echo.addr), "TLS: SOCKS without TLS on a TLS listener"),
             (b"GET / HTTP/1.1\r\n\r\n", "TLS: not TLS"), (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", "TLS: "),
             (b"\x16\x03\x01\xff\xff" + bytes(100), "TLS: "), (b"\x16" + b"\xff" * 1000, "TLS: ")]
    for data, reason in cases:
        mark = proxy.mark()
        with contextlib.closing(dial(tls)) as sock:
            sock.sendall(data)
            got, _ = recv_until_end(sock)
            assert not got or got[0] == 0x15, got  # an alert, or nothing
        record = proxy.access(since=mark)[0]
        assert record["reason"].startswith(reason) and record["protocol"] is None, record
    mark = proxy.mark()
    with SClient(plain) as client:
        client.read_to_end()
    assert proxy.access(since=mark)[0]["reason"] == "TLS on a listener without TLS"
    assert counters(proxy)["tls_failures"] == len(cases)
    mark = proxy.mark()
    dial(tls).close()
    assert proxy.access(since=mark)[0]["reason"] == "client closed before its request"
    assert counters(proxy)["tls_failures"] == len(cases)


def test_the_handshake_limit_covers_tls(daemon, authority, context):
    proxy = daemon(listeners=[listener(authority)], limits={"handshake": "500ms"})
    for data in (b"", b"\x16\x03\x01\x02\x00\x01\x00"):
        mark = proxy.mark()
        with contextlib.closing(dial(proxy.addr)) as sock:
            sock.sendall(data)
            assert recv_until_end(sock)[0] == b""
        assert proxy.access(since=mark)[0]["reason"] == "handshake timeout"
    mark = proxy.mark()
    with Tls(proxy.addr, context) as client:  # and what follows
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            client.recv(1)
    assert proxy.access(since=mark)[0]["reason"] == "handshake timeout"


def test_clients_must_show_a_certificate_where_one_is_asked_for(daemon, authority, foreign, echo):
    proxy = daemon(listeners=[listener(authority, client_ca=authority.pem), listener(authority)])
    with dial6(proxy, client_context(authority, certificate=authority.alice), *echo.addr) as client:
        client.sendall(b"hello")
        assert read_exact(client, 5) == b"hello"
    assert proxy.access()[0]["tls"] == "TLSv1.3"
    for certificate, why in ((None, "TLS: peer did not return a certificate"),
                             (foreign.alice, "TLS: unable to get local issuer certificate"),
                             (authority.expired, "TLS: certificate has expired")):
        mark = proxy.mark()
        with pytest.raises((ssl.SSLError, ConnectionResetError)):  # TLS 1.3 clients learn of it with the first read
            with Tls(proxy.addr, client_context(authority, certificate=certificate)) as client:
                client.sendall(s6.request(*echo.addr))
                client.recv(1)
        assert proxy.access(since=mark)[0]["reason"] == why
    assert counters(proxy)["tls_failures"] == 3


def test_a_ticket_from_where_no_certificate_is_asked_for_is_worth_nothing_where_one_is(daemon, authority, tmp_path):
    proxy = daemon(listeners=[listener(authority), listener(authority, client_ca=authority.pem)])
    warm(proxy, tmp_path / "session")
    strict = proxy.listeners()[1]
    with SClient(strict, session=tmp_path / "session") as client:
        client.write(s6.noop())
        output = client.read_to_end()
    assert b"Reused" not in output and b"certificate required" in output


# Tickets and early data ---------------------------------------------------------------------------------------------------


def warm(proxy, session, addr=None):
    """A first connection; leaves its ticket in a file."""
    with SClient(addr or proxy.addr, "-alpn", "socks6", new_session=session) as client:
        client.write(s6.noop())
        client.read_until(rb"\x06\x00\x00\x00")
        client.read_to_end()
    assert os.path.getsize(session) > 0


def early_connect(proxy, session, tmp_path, server, payload=b"early question", new_session=None):
    """A request and its data as early data; the output of s_client until the server's answer."""
    with open(tmp_path / "early", "wb") as file:
        file.write(s6.request(*server.addr) + payload)
    with SClient(proxy.addr, "-alpn", "socks6", early=tmp_path / "early", session=session,
                 new_session=new_session) as client:
        with server.accept_one() as peer:
            assert recv_exact(peer, len(payload)) == payload
            peer.sendall(b"an answer")
            return client.read_until(b"an answer")


def test_early_data_is_accepted_also_after_a_reload(daemon, authority, tmp_path):
    config = {"listeners": [listener(authority)], "log": {"format": "json", "level": "debug"}, "status": {"socket": "none"}}
    proxy = daemon(config)
    session = tmp_path / "session"
    warm(proxy, session)
    with listening() as server:
        for _ in range(2):
            output = early_connect(proxy, session, tmp_path, server)
            assert b"Reused, TLSv1.3" in output and b"Early data was accepted" in output
        assert counters(proxy)["tls_early_data_accepted"] == 2
        config["listeners"] = [listener(authority, certificate=authority.other)]
        proxy.reload(config)
        output = early_connect(proxy, session, tmp_path, server)
        assert b"Reused, TLSv1.3" in output and b"Early data was accepted" in output
        # With it switched off the ticket is good, and the data is sent again by whoever wants to.
        config["listeners"] = [listener(authority, early_data=False)]
        proxy.reload(config)
        with SClient(proxy.addr, "-alpn", "socks6", early=tmp_path / "early", session=session) as client:
            client.read_until(b"Early data was rejected")
            client.write(s6.noop())
            client.read_until(rb"\x06\x00\x00\x00")
    found = counters(proxy)
    assert found["tls_early_data_accepted"] == 3 and found["tls_resumed"] == 4 and found["tls_handshakes"] == 5
    assert found["tls_failures"] == 0


def record_flight(session, early, tmp_path):
    """The first flight of a client with early data, taken from a socket that nobody answers."""
    with listening() as recorder:
        with open(tmp_path / "early", "wb") as file:
            file.write(early)
        with SClient(recorder.addr, "-alpn", "socks6", early=tmp_path / "early", session=session):
            with recorder.accept_one() as peer:
                flight = bytearray()
                peer.settimeout(10)
                # ClientHello, change_cipher_spec, then one record of early data.
                while not whole_flight(flight):
                    flight += peer.recv(65536)
    return bytes(flight)


def whole_flight(data):
    kinds = []
    while len(data) >= 5 and len(data) >= 5 + int.from_bytes(data[3:5], "big"):
        kinds.append(data[0])
        data = data[5 + int.from_bytes(data[3:5], "big"):]
    return kinds and kinds[-1] == 0x17


def test_a_replayed_flight_is_never_acted_upon(daemon, authority, tmp_path):
    """Its early data is accepted, and its request waits for a client that is not there."""
    config = {"listeners": [listener(authority)], "log": {"format": "json", "level": "debug"}, "status": {"socket": "none"},
              "limits": {"handshake": "400ms"}}
    proxy = daemon(config)
    session = tmp_path / "session"
    warm(proxy, session)
    with listening() as server:
        flight = record_flight(session, s6.request(*server.addr) + b"do it", tmp_path)
        for round_ in range(2):
            mark = proxy.mark()
            socks = [dial(proxy.addr) for _ in range(20)]
            for sock in socks:
                sock.sendall(flight)
            records = proxy.access(20, since=mark)
            assert {r["reason"] for r in records} == {"handshake timeout"}
            for sock in socks:
                sock.close()
            assert counters(proxy)["tls_early_data_accepted"] == 20 * (round_ + 1)
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.accept()
            proxy.reload(config)


def replay(proxy, flight, count):
    socks = [dial(proxy.addr) for _ in range(count)]
    for sock in socks:
        sock.sendall(flight)
    return socks


def test_a_replayed_flight_starts_and_ends_no_session(daemon, authority, context, tmp_path):
    proxy = daemon(listeners=[listener(authority)], limits={"handshake": "400ms"})
    session = tmp_path / "session"
    warm(proxy, session)
    flight = record_flight(session, s6.noop(s6.session_request() + s6.window_request(64)), tmp_path)
    for sock in replay(proxy, flight, 20):
        sock.close()
    with Tls(proxy.addr, context) as client:
        client.sendall(s6.noop(s6.session_request()))
        identity = s6.read_auth_reply(client).get(s6.SESSION_ID)
    assert identity
    flight = record_flight(session, s6.noop(s6.session_id(identity) + s6.session_teardown()), tmp_path)
    for sock in replay(proxy, flight, 20):
        sock.close()
    proxy.access(42)
    found = counters(proxy)
    assert found["tls_early_data_accepted"] == 40
    assert found["sessions_started"] == 1 and found["sessions_torn_down"] == 0
    # Whoever is there gets it, with a request in early data, too.
    with open(tmp_path / "early", "wb") as file:
        file.write(s6.noop(s6.session_request() + s6.window_request(64)))
    with SClient(proxy.addr, "-alpn", "socks6", early=tmp_path / "early", session=session) as client:
        client.read_until(b"Early data was accepted")
        client.read_to_end()
    assert counters(proxy)["sessions_started"] == 2


def test_a_replayed_token_acts_once(daemon, authority, context, tmp_path):
    """And at once: nobody has finished a handshake when the server is reached."""
    proxy = daemon(listeners=[listener(authority)])
    session = tmp_path / "session"
    warm(proxy, session)
    with Tls(proxy.addr, context) as client:
        client.sendall(s6.noop(s6.session_request() + s6.window_request(64)))
        reply = s6.read_auth_reply(client)
        identity, base = reply.get(s6.SESSION_ID), int.from_bytes(reply.get(s6.WINDOW)[:4], "big")
    with listening() as server:
        request = s6.request(*server.addr, options=s6.session_id(identity) + s6.expenditure(base)) + b"once"
        flight = record_flight(session, request, tmp_path)
        socks = replay(proxy, flight, 50)
        with server.accept_one() as peer:
            assert recv_exact(peer, 4) == b"once"
            wait_until(lambda: counters(proxy)["tokens_rejected"] == 49, "49 rejected tokens")
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.accept()
        for sock in socks:
            sock.close()
    found = counters(proxy)
    assert found["tls_early_data_accepted"] == 50 and found["tokens_accepted"] == 1


def test_a_session_of_tls_is_none_without_it(daemon, authority, context):
    proxy = daemon(listeners=[listener(authority), "127.0.0.1:0"])
    with Tls(proxy.addr, context) as client:
        client.sendall(s6.noop(s6.session_request()))
        identity = s6.read_auth_reply(client).get(s6.SESSION_ID)
    with contextlib.closing(dial(proxy.listeners()[1])) as sock:
        sock.sendall(s6.noop(s6.session_id(identity)))
        assert s6.read_auth_reply(sock).kinds() == [s6.SESSION_INVALID]
    with Tls(proxy.addr, context) as client:
        client.sendall(s6.noop(s6.session_id(identity)))
        assert s6.read_auth_reply(client).kinds() == [s6.SESSION_OK]


# Reload -------------------------------------------------------------------------------------------------------------------


def served(addr, authority):
    """The serial number of the certificate that is served now."""
    with Tls(addr, client_context(authority)) as client:
        return ssl.DER_cert_to_PEM_cert(client.tls.getpeercert(True))


def test_a_new_certificate_is_served_and_connections_live_on(daemon, authority, tmp_path, context):
    for name, source in (("cert.pem", authority.server[0]), ("key.pem", authority.server[1])):
        (tmp_path / name).write_bytes(open(source, "rb").read())
    proxy = daemon(listeners=[{"address": "127.0.0.1:0",
                               "tls": {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}}])
    before = served(proxy.addr, authority)
    with pair(proxy, context) as (client, server):
        client.sendall(b"one")
        assert recv_exact(server, 3) == b"one"
        (tmp_path / "cert.pem").write_bytes(open(authority.other[0], "rb").read())
        assert "is not the key of the certificate" in proxy.reload(good=False)
        assert served(proxy.addr, authority) == before
        (tmp_path / "key.pem").write_bytes(open(authority.other[1], "rb").read())
        proxy.reload()
        assert served(proxy.addr, authority) != before
        client.sendall(b"two")
        assert recv_exact(server, 3) == b"two"
        server.sendall(b"three")
        assert read_exact(client, 5) == b"three"


def test_listeners_at_any_free_port_are_not_confused_by_a_reload(daemon, authority, context):
    """Their addresses are the same in the configuration; their order tells them apart."""
    proxy = daemon(listeners=[listener(authority), "127.0.0.1:0"])
    tls, plain = proxy.listeners()[:2]
    config = base_config([listener(authority), "127.0.0.1:0"])

    def both_serve(tls, plain):
        Tls(tls, context).close()
        return noop6(plain) == s6.SUCCESS
    mark = proxy.mark()
    for _ in range(2):
        proxy.reload(config)
        assert all(both_serve(tls, plain) for _ in range(10))
    config["listeners"].append({"address": "127.0.0.1:0"})
    proxy.reload(config)
    third, = proxy.listeners(mark)
    assert both_serve(tls, third) and both_serve(tls, plain)
    del config["listeners"][1:]
    proxy.reload(config)
    wait_until(lambda: refuses(plain) and refuses(third), "the end of two of them")
    Tls(tls, context).close()


def refuses(addr):
    try:
        dial(addr).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_listener_changes_between_plain_and_tls(daemon, authority, context, echo):
    proxy = daemon(listeners=["127.0.0.1:0"])
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(s6.noop())
        assert s6.read_auth_reply(sock).type == 0
    config = {"listeners": [listener(authority)], "log": {"format": "json", "level": "debug"}, "status": {"socket": "none"}}
    proxy.reload(config)
    with dial6(proxy, context, *echo.addr) as client:
        client.sendall(b"x")
        assert read_exact(client, 1) == b"x"
    config["listeners"] = [{"address": "127.0.0.1:0"}]
    proxy.reload(config)
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(s6.noop())
        assert s6.read_auth_reply(sock).type == 0


# Configuration ------------------------------------------------------------------------------------------------------------


def test_paths_are_relative_to_the_file_and_errors_are_exact(authority, tmp_path):
    def check(tls):
        path = write_config(tmp_path, "listeners:\n  - address: 127.0.0.1:0\n    tls:\n" + tls)
        done = run_daemon("-t", "-c", path)
        return done.returncode, (done.stdout + done.stderr).replace(str(tmp_path), "DIR")

    for name in ("server", "other", "expired"):
        source = getattr(authority, name)
        (tmp_path / f"{name}.pem").write_bytes(open(source[0], "rb").read())
        (tmp_path / f"{name}.key").write_bytes(open(source[1], "rb").read())
    (tmp_path / "text").write_text("nothing\n")
    cert, key = "      certificate: server.pem\n", "      key: server.key\n"
    status, text = check(cert + key)
    assert status == 0 and text.startswith("configuration is good\n"), text
    for tls, error in (
            (cert, "4:7: tls without a key; add 'key: FILE', in PEM form"),
            (key, "4:7: tls without a certificate; add 'certificate: FILE', in PEM form"),
            ("      certificate: missing.pem\n" + key, "4:20: 'DIR/missing.pem' cannot be read: No such file or directory"),
            ("      certificate: text\n" + key, "4:20: 'DIR/text' holds no certificate in PEM form"),
            (cert + "      key: other.key\n", "5:12: 'DIR/other.key' is not the key of the certificate"),
            (cert + key + "      client_ca: text\n", "6:18: 'DIR/text' holds no certificate in PEM form"),
            (cert + key + "      min_version: 1.1\n", "6:20: '1.1' is not a version of TLS; write one of: 1.3, 1.2"),
            (cert + key + "      early_date: true\n", "6:7: unknown key 'early_date'"),
            (cert + key + "      early_data: maybe\n", "6:19: ")):
        status, text = check(tls)
        assert status == 1 and f"DIR/socks6d.yaml:{error}" in text, text
    status, text = check("      certificate: expired.pem\n      key: expired.key\n")
    assert status == 0 and 'note: the certificate of 127.0.0.1:0 "DIR/expired.pem" has expired' in text


def test_an_expired_certificate_is_warned_of(daemon, authority):
    proxy = daemon(listeners=[listener(authority, certificate=authority.expired)])
    assert "has expired" in proxy.wait_line("the certificate of 127.0.0.1:0")


def test_what_is_printed_can_be_read_again(authority, tmp_path):
    path = write_config(tmp_path, {"listeners": [listener(authority, client_ca=authority.pem, early_data=False,
                                                          min_version="1.2")]})
    printed = run_daemon("--print-config", "-c", path)
    again = write_config(tmp_path, printed.stdout, "again.yaml")
    assert run_daemon("--print-config", "-c", again).stdout == printed.stdout
    assert authority.pem in printed.stdout and "early_data: false" in printed.stdout and "min_version: 1.2" in printed.stdout


def test_a_listener_for_known_clients_needs_no_rules(authority, tmp_path):
    for more, status in (({}, 1), ({"client_ca": authority.pem}, 0)):
        path = write_config(tmp_path, {"listeners": [listener(authority, "0.0.0.0:0", **more)]})
        assert run_daemon("-t", "-c", path).returncode == status


def test_secrets_are_not_logged(daemon, authority, context, echo):
    proxy = daemon(listeners=[listener(authority)])
    with dial6(proxy, context, *echo.addr) as client:
        client.sendall(b"x")
        assert read_exact(client, 1) == b"x"
    key = openssl("pkey", "-in", authority.server[1], "-outform", "DER").hex()
    assert "PRIVATE" not in proxy.text() and key[60:120] not in proxy.text()


# Users by certificate ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def people(authority):
    return {"alice": authority.alice,
            "bob@example.org": authority.issue("somebody", alternatives="email:bob@example.org,DNS:x.test", prefix="bob"),
            "host.test": authority.issue("another", alternatives="DNS:host.test", prefix="host"),
            "nobody": authority.issue("mallory", alternatives="DNS:mallory.test", prefix="nobody")}


@pytest.fixture
def known(daemon, authority, tmp_path):
    """A daemon for users with certificates; known.users is its users file."""
    users = tmp_path / "users"
    secret = openssl("passwd", "-6", "-salt", "salt", "secret").decode().strip()
    users.write_text(f"alice:*\nbob@example.org:*\nhost.test:*\ndave:{secret}\n")
    config = {"listeners": [listener(authority, client_ca=authority.pem), listener(authority)],
              "auth": {"methods": ["certificate", "password"], "users": str(users)},
              "log": {"format": "json", "level": "debug"}, "status": {"socket": "none"}}
    proxy = daemon(config)
    proxy.users = users
    return proxy


@pytest.mark.parametrize("protocol", sorted(DIAL))
@pytest.mark.parametrize("name", ["alice", "bob@example.org", "host.test"])
def test_a_certificate_names_its_user(known, authority, people, echo, protocol, name):
    with DIAL[protocol](known, client_context(authority, certificate=people[name]), *echo.addr) as client:
        client.sendall(b"hello")
        assert read_exact(client, 5) == b"hello"
    assert known.access()[0]["user"] == name
    assert counters(known)["auth_certificates"] == 1


def test_a_certificate_of_nobody_lets_nobody_in(known, authority, people, echo):
    context = client_context(authority, certificate=people["nobody"])
    with Tls(known.addr, context) as client:
        client.sendall(s6.request(*echo.addr))
        assert s6.read_auth_reply(client).type == 1
    with Tls(known.addr, context) as client:
        client.sendall(s6.socks5_greeting())
        assert s6.read_socks5_method(client) == 255
    with Tls(known.addr, context) as client:
        client.sendall(s6.socks4_request(*echo.addr))
        assert read_exact(client, 8)[1] == 91
    assert [r["reason"] for r in known.access(3)] == ["the certificate names no user"] * 3
    assert [r["user"] for r in known.access(3)] == [None] * 3
    # Where none is asked for, and without TLS, there is no way in but the password.
    mark = known.mark()
    with Tls(known.listeners()[1], client_context(authority, certificate=people["alice"])) as client:
        client.sendall(s6.request(*echo.addr))
        assert s6.read_auth_reply(client).type == 1
    assert known.access(since=mark)[0]["reason"] == "no credentials"


def test_a_password_says_more_than_a_certificate(known, authority, people, echo):
    context = client_context(authority, certificate=people["alice"])
    with Tls(known.addr, context) as client:
        client.sendall(s6.noop(s6.userpass(b"dave", b"secret")))
        assert s6.read_auth_reply(client).type == 0
    assert known.access()[0]["user"] == "dave"
    mark = known.mark()
    with Tls(known.addr, context) as client:
        client.sendall(s6.noop(s6.userpass(b"dave", b"wrong")))
        assert s6.read_auth_reply(client).type == 1
    assert known.access(since=mark)[0]["user"] is None


def test_who_is_removed_from_the_users_is_cut_off(known, authority, people, echo):
    alice, host = (client_context(authority, certificate=people[name]) for name in ("alice", "host.test"))
    with dial6(known, alice, *echo.addr) as cut, dial6(known, host, *echo.addr) as stays:
        known.users.write_text("host.test:*\n")
        known.reload()
        with pytest.raises((ConnectionResetError, ssl.SSLError)):
            cut.recv(1)
        stays.sendall(b"still here")
        assert read_exact(stays, 10) == b"still here"
    with Tls(known.addr, alice) as client:
        client.sendall(s6.noop())
        assert s6.read_auth_reply(client).type == 1


def test_a_ticket_brings_its_user_along(known, people, tmp_path):
    certificate = ("-cert", people["alice"][0], "-key", people["alice"][1])
    session = tmp_path / "session"
    with SClient(known.addr, *certificate, new_session=session) as client:
        client.write(s6.noop())
        client.read_until(rb"\x06\x00\x00\x00")
        client.read_to_end()
    with open(tmp_path / "early", "wb") as file:
        file.write(s6.noop())
    mark = known.mark()
    with SClient(known.addr, early=tmp_path / "early", session=session) as client:
        client.read_until(rb"\x06\x00\x00\x00")
        assert b"Early data was accepted" in client.read_to_end()
    assert known.access(since=mark)[0]["user"] == "alice"
