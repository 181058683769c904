"""TCP Fast Open between `socks6 connect` and its proxy, in network namespaces: what travels in the SYN is read off the wire."""

import contextlib
import socket
import struct
import subprocess
import threading

import pytest

from cli_peers import (DEADLINE, Peer, SessionProxy6, auth6, client_environment, client_path, option6, read_to_end,
                       reply6)
from dns_peers import DnsServer, answering, rrset
from lib import isolate
from lib.capture import Capture
from test_cli_tls import EARLY, GO_ON, GRANT, make_certificates, s_server

PROXY, PROXY6 = "10.1.0.1", "2001:db8:1::1"
TCP_FASTOPEN = 23


class Net:
    """client 10.1.0.2 -- 10.1.0.1 proxy, and 2001:db8:1:: alike. Servers are where the proxy is."""

    def __init__(self):
        self.client, self.proxy = isolate.NetNs("client"), isolate.NetNs("proxy")
        self.client.link("c-p", self.proxy, "p-c")
        self.client.address("c-p", "10.1.0.2/24", "2001:db8:1::2/64")
        self.proxy.address("p-c", f"{PROXY}/24", f"{PROXY6}/64")
        for space, device in ((self.client, "c-p"), (self.proxy, "p-c")):
            space.ip(f"link set {device} up")
            space.sysctl(net__ipv4__tcp_fastopen=3, net__ipv4__tcp_fastopen_blackhole_timeout_sec=0)
        self.client.nft("add table inet t")
        self.client.nft("add chain inet t o { type filter hook output priority 0; }")

    def make(self, function):
        """A peer whose listener is the proxy's."""
        peer = self.proxy.call(function)
        peer.listener.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 64)
        return peer

    def close(self):
        for space in (self.client, self.proxy):
            space.holder.stdin.close()
            space.holder.wait(DEADLINE)


@pytest.fixture(scope="module")
def shared_net(isolation):
    del isolation
    net = Net()
    yield net
    net.close()


@pytest.fixture
def net(shared_net):
    """Without cookies and with its settings as they were."""
    for space in (shared_net.client, shared_net.proxy):
        space.ip("tcp_metrics flush all")
    yield shared_net
    shared_net.client.nft("flush chain inet t o")
    shared_net.client.sysctl(net__ipv4__tcp_fastopen=3)


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    make_certificates(folder)
    return folder


@pytest.fixture
def connect(net, tmp_path):
    """connect(url, port, *options): (the run, the bytes of data in its SYN)"""
    def run(peer, url, port, *options, data=b"ping", wrapper=()):
        with Capture(net.client, "c-p", PROXY) as capture:
            done = subprocess.run(
                [*net.client.wrapper, *wrapper, client_path(), "connect", "-N", "-v", *options, "-x", url, "s.test", str(port)],
                input=data, capture_output=True, env=client_environment(XDG_CACHE_HOME=str(tmp_path / "cache")),
                timeout=DEADLINE, check=False)
            attempts = capture.attempts(peer.port)
        return done, [one.size for one in attempts]
    return run


def answer_all(sock):
    sock.sendall(b"<" + read_to_end(sock) + b">")


@pytest.fixture
def server(net):
    with net.proxy.call(lambda: Peer(answer_all)) as one:
        yield one


def good(done, *texts):
    assert (done.returncode, done.stdout) == (0, b"<ping>"), done.stderr
    for text in texts:
        assert text in done.stderr, done.stderr.decode()
    return True


@pytest.mark.parametrize("host", [PROXY, PROXY6])
def test_second_connection_takes_one_round_trip(net, connect, server, host):
    with net.make(lambda: SessionProxy6({"alice": "hunter2"}, host=host)) as proxy:
        url = proxy.url("alice:hunter2@")
        done, syns = connect(proxy, url, server.port, "--early")
        assert good(done, b"2 round trips to the proxy") and syns == [0]
        done, syns = connect(proxy, url, server.port, "--early")
        good(done, b"by TCP Fast Open, with", b"in the SYN (0 round trips)", b"1 round trip to the proxy")
        assert syns == [len(proxy.requests[-1].raw) + len(b"ping")]
        assert proxy.rejected == 0 and proxy.acted == 2


@pytest.mark.parametrize("option", ["--no-tfo", "--no-session"])
def test_not_where_it_is_not_wanted(net, connect, server, option):
    with net.make(lambda: SessionProxy6(host=PROXY)) as proxy:
        for _ in range(2):
            connect(proxy, proxy.url(), server.port)
        done, syns = connect(proxy, proxy.url(), server.port, option)
        assert good(done, b"2 round trips to the proxy") and syns == [0]


def test_not_without_a_token(net, connect, server):
    """A session without a window: there is a cookie, and the request could be repeated."""
    with net.make(lambda: SessionProxy6(host=PROXY, window=0)) as proxy:
        for _ in range(3):
            done, syns = connect(proxy, proxy.url(), server.port)
            assert good(done, b"2 round trips to the proxy") and syns == [0]


def test_kernel_that_does_not_do_it(net, connect, server):
    with net.make(lambda: SessionProxy6(host=PROXY)) as proxy:
        for _ in range(2):
            connect(proxy, proxy.url(), server.port)
        net.client.sysctl(net__ipv4__tcp_fastopen=0)
        done, syns = connect(proxy, proxy.url(), server.port)
        assert good(done, b"2 round trips to the proxy") and syns == [0]


def test_proxy_that_does_not_do_it(net, connect, server):
    with net.proxy.call(lambda: SessionProxy6(host=PROXY)) as proxy:
        for _ in range(3):
            done, syns = connect(proxy, proxy.url(), server.port)
            assert good(done, b"2 round trips to the proxy") and syns == [0]


def test_path_that_drops_data_in_a_syn(net, connect, server):
    with net.make(lambda: SessionProxy6(host=PROXY)) as proxy:
        for _ in range(2):
            connect(proxy, proxy.url(), server.port)
        net.client.nft("add rule inet t o tcp flags & (syn | ack) == syn ip length > 90 drop")
        done, _ = connect(proxy, proxy.url(), server.port)
        assert good(done, b"2 round trips to the proxy")
        assert proxy.rejected == 0 and proxy.acted == 3


def test_more_than_a_segment_is_not_begun_in_the_syn(net, connect, server):
    with net.make(lambda: SessionProxy6(host=PROXY)) as proxy:
        for _ in range(2):
            connect(proxy, proxy.url(), server.port)
        data = b"x" * 4000
        done, syns = connect(proxy, proxy.url(), server.port, "--early", data=data)
        assert (done.returncode, done.stdout) == (0, b"<" + data + b">")
        assert syns == [0]


def test_refusal_in_answer_to_a_syn_with_data(net, connect, server):
    with net.make(lambda: SessionProxy6(host=PROXY)) as proxy:
        for _ in range(2):
            connect(proxy, proxy.url(), server.port)
    done, syns = connect(proxy, proxy.url(), server.port)
    assert done.returncode == 3 and b"Connection refused" in done.stderr and syns[0] > 0


def test_refused_syn_with_data_goes_to_the_next_address(net, connect, server, tmp_path):
    """The proxy's name has two addresses; the one that took Fast Open is gone. The data arrives, once."""
    (tmp_path / "names").mkdir()
    files = isolate.name_files(tmp_path / "names", [(PROXY6, "proxy.test"), (PROXY, "proxy.test")], "127.0.0.1")
    wrapper = isolate.with_files(files)
    with net.make(lambda: SessionProxy6(host=PROXY6)) as proxy:
        url = f"socks6://proxy.test:{proxy.port}"
        for _ in range(2):
            good(connect(proxy, url, server.port, "--early", wrapper=wrapper)[0])
    with net.make(lambda: SessionProxy6(host=PROXY, port=proxy.port)) as again:
        again.sessions.update(proxy.sessions)
        done, syns = connect(again, url, server.port, "--early", wrapper=wrapper)
        good(done, b"cannot connect to proxy [2001:db8:1::1]")
        assert syns[0] > 0 and len(syns) == 2
        assert again.acted == 1 and again.rejected == 0


@pytest.mark.parametrize("early", [True, False])
def test_rejected_token_behind_a_syn_with_data(net, connect, server, early):
    """What was in the SYN may have been read twice: only what carried no data is asked for again."""
    asked = []

    def spiteful(sock):
        data = sock.recv(65536)
        asked.append(data)
        window = struct.pack("!HHII", 12, 12, 7, 100)
        if len(asked) <= 2:
            answer = auth6(False, *([option6(6, b"i" * 16)] if len(asked) == 1 else [option6(14)]), window)
            sock.sendall(answer + reply6(5))
        else:
            sock.sendall(auth6(True, option6(15), window))
        read_to_end(sock)
    with net.make(lambda: Peer(spiteful, PROXY)) as proxy:
        url = f"socks6://{PROXY}:{proxy.port}"
        options = ["--early"] if early else []
        for _ in range(2):
            assert connect(proxy, url, server.port, *options)[0].returncode == 1
        done, syns = connect(proxy, url, server.port, *options)
        assert done.returncode == 3 and b"has seen the idempotence token" in done.stderr
        assert syns[0] > 0 and len(asked) == (3 if early else 4)


# Over TLS.

class Relay(Peer):
    """TCP to a port of this machine."""

    def __init__(self, port):
        self.target = port
        super().__init__(self._relay, PROXY)

    def _relay(self, sock):
        with socket.create_connection(("127.0.0.1", self.target)) as other:
            thread = threading.Thread(target=self._move, args=(other, sock), daemon=True)
            thread.start()
            self._move(sock, other)
            thread.join(DEADLINE)

    @staticmethod
    def _move(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("option,trips", [([], 1), (["--no-tfo"], 2)])
def test_a_question_of_dns_in_the_syn(net, tmp_path, option, trips):
    """The proxy is one of Python behind which a service answers; the first two runs bring session, token and cookie."""
    with net.proxy.call(lambda: DnsServer(answering(rrset("x.test.", "A", "192.0.2.1")))) as server, \
            net.make(lambda: SessionProxy6(host=PROXY, destination=("127.0.0.1", server.port))) as proxy:
        def run(*options):
            with Capture(net.client, "c-p", PROXY) as capture:
                done = subprocess.run(
                    [*net.client.wrapper, client_path(), "-x", proxy.url(), "dns", "-v", "+short", *options, "x.test"],
                    capture_output=True, env=client_environment(XDG_CACHE_HOME=str(tmp_path / "cache")), timeout=DEADLINE, check=False)
                sizes = [one.size for one in capture.attempts(proxy.port)]
            assert (done.returncode, done.stdout) == (0, b"192.0.2.1\n"), done.stderr
            return done.stderr.decode(), sizes
        text, sizes = run()
        assert "2 round trips to the proxy" in text and sizes == [0]
        text, sizes = run(*option)
        request = proxy.requests[-1]
        assert f"{trips} round trip" in text and sizes == [len(request.first) if trips == 1 else 0]
        assert b"\x01x\x04test" in request.extra and proxy.rejected == 0


def test_client_hello_and_early_data_in_one_syn(net, pki, tmp_path):
    def run(one, relay, answer):
        env = client_environment(XDG_CACHE_HOME=str(tmp_path / "cache"))
        url = f"socks6s://{PROXY}:{relay.port}?ca={pki}/ca.pem"
        with Capture(net.client, "c-p", PROXY) as capture, subprocess.Popen(
                [*net.client.wrapper, client_path(), "connect", "-v", "--early", "-x", url, "web.test", "80"], env=env,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                process.stdin.write(b"GET /early\n")
                process.stdin.flush()
                one.wait(b"GET /early\n")
                one.say(answer + b"hello")
                assert process.stdout.read(5) == b"hello"
                process.terminate()
                text = process.stderr.read().decode()
            finally:
                process.kill()
            sizes = [segment.size for segment in capture.attempts(relay.port)]
        return text, sizes

    with s_server(pki, *EARLY, wrapper=net.proxy.wrapper) as one, net.make(lambda: Relay(one.port)) as relay:
        text, sizes = run(one, relay, GRANT)
        assert sizes == [0] and "3 round trips to the proxy" in text
        text, sizes = run(one, relay, GO_ON)
        assert "early data accepted (0 round trips)" in text and "1 round trip to the proxy" in text, text
        assert "by TCP Fast Open, with" in text and sizes[0] > 300
        assert f"with {sizes[0]} bytes in the SYN" in text
