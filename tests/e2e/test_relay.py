"""The relay: ends and resets of each side, urgent data, back-pressure, times."""

import contextlib
import re
import socket
import subprocess
import sys
import threading

import pytest

from conftest import leaves_no_trace
from lib import socks6 as s6
from lib.clients import DIALERS, socks6_dial
from lib.daemon import daemon_binary
from lib.net import has_ended, listening, pattern, recv_all, recv_exact, recv_until_end, reset, sha, wait_until


@pytest.fixture
def proxy(relaying_daemon):
    """Everything here holds whether bytes are copied or spliced."""
    yield from leaves_no_trace(relaying_daemon)


@contextlib.contextmanager
def pair(proxy, protocol="socks6", **more):
    """Both ends of one relayed connection: (client, server)."""
    with listening(**more) as server, DIALERS[protocol](proxy.addr, *server.addr) as client, server.accept_one() as peer:
        yield client, peer


@pytest.mark.parametrize("protocol", sorted(DIALERS))
def test_the_clients_end_is_passed_on_and_the_other_way_stays_open(proxy, protocol):
    with pair(proxy, protocol) as (client, server):
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert recv_all(server) == b"question"
        server.sendall(b"answer" * 1000)
        server.shutdown(socket.SHUT_WR)
        assert recv_all(client) == b"answer" * 1000


@pytest.mark.parametrize("protocol", sorted(DIALERS))
def test_the_servers_end_is_passed_on_and_the_other_way_stays_open(proxy, protocol):
    with pair(proxy, protocol) as (client, server):
        server.sendall(b"banner")
        server.shutdown(socket.SHUT_WR)
        assert recv_all(client) == b"banner"
        client.sendall(b"data" * 1000)
        client.shutdown(socket.SHUT_WR)
        assert recv_all(server) == b"data" * 1000


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_data_and_end_that_come_together_both_arrive(proxy, size):
    """MSG_MORE keeps the last data back until the FIN leaves with it: one wake-up for both."""
    data = pattern(size)
    for _ in range(20 if size == 1 else 3):
        with pair(proxy) as (client, server):
            received = []
            thread = threading.Thread(target=lambda: received.append(recv_all(server)))
            thread.start()
            client.sendall(data, socket.MSG_MORE)
            client.shutdown(socket.SHUT_WR)
            thread.join(30)
            assert received == [data]
            server.sendall(b"x", socket.MSG_MORE)
            server.shutdown(socket.SHUT_WR)
            assert recv_all(client) == b"x"


def test_the_clients_reset_reaches_the_server(proxy):
    with pair(proxy) as (client, server):
        client.sendall(b"before")
        assert recv_exact(server, 6) == b"before"
        reset(client)
        assert recv_until_end(server) == (b"", "reset")


def test_the_servers_reset_reaches_the_client(proxy):
    with pair(proxy) as (client, server):
        server.sendall(b"before")
        assert recv_exact(client, 6) == b"before"
        reset(server)
        assert recv_until_end(client) == (b"", "reset")


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_reset_after_a_half_close_is_passed_on(proxy, side):
    with pair(proxy) as (client, server):
        first, second = (client, server) if side == "client" else (server, client)
        first.shutdown(socket.SHUT_WR)
        assert recv_all(second) == b""
        reset(second)
        assert recv_until_end(first) == (b"", "reset")
    with pair(proxy) as (client, server):
        first, second = (client, server) if side == "client" else (server, client)
        first.shutdown(socket.SHUT_WR)
        assert recv_all(second) == b""
        second.sendall(b"still on")
        assert recv_exact(first, 8) == b"still on"
        reset(first)
        # The second end has something to say again, and meets the reset.
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while True:
                second.sendall(b"x" * 1000)


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_reset_with_data_in_flight_is_passed_on(proxy, side):
    """The receiver does not read: the proxy holds bytes that it cannot deliver when the reset comes."""
    with pair(proxy) as (client, server):
        sender, receiver = (client, server) if side == "client" else (server, client)
        sender.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sender.send(bytes(1 << 16))
        reset(sender)
        assert recv_until_end(receiver)[1] == "reset"


@pytest.mark.parametrize("side", ["client", "server"])
def test_urgent_data_arrives_inline_and_in_order(proxy, side):
    with pair(proxy) as (client, server):
        sender, receiver = (client, server) if side == "client" else (server, client)
        expected = b""
        for number in range(200):
            piece = bytes([number]) * (number % 7 + 1)
            sender.sendall(piece)
            sender.send(bytes([255 - number]), socket.MSG_OOB)
            expected += piece + bytes([255 - number])
            if number % 10 == 0:
                assert recv_exact(receiver, len(expected)) == expected
                expected = b""
        sender.sendall(b"tail")
        assert recv_exact(receiver, len(expected) + 4) == expected + b"tail"
        # and nothing is stuck the other way
        receiver.sendall(b"back")
        assert recv_exact(sender, 4) == b"back"


@pytest.mark.parametrize("side", ["client", "server"])
def test_urgent_data_in_the_middle_of_a_bulk_transfer_arrives_in_order(proxy, side):
    with pair(proxy) as (client, server):
        sender, receiver = (client, server) if side == "client" else (server, client)
        pieces = [pattern(99991, seed) for seed in range(30)]

        def send():
            for piece in pieces:
                sender.sendall(piece)
                sender.send(b"!", socket.MSG_OOB)
            sender.shutdown(socket.SHUT_WR)
        thread = threading.Thread(target=send)
        thread.start()
        assert sha(recv_all(receiver)) == sha(b"!".join(pieces) + b"!")
        thread.join()


def test_urgent_data_as_the_last_thing_before_the_end_arrives(proxy):
    for _ in range(20):
        with pair(proxy) as (client, server):
            client.send(b"data")
            client.send(b"!", socket.MSG_OOB)
            client.shutdown(socket.SHUT_WR)
            assert recv_all(server) == b"data!"


def test_urgent_data_behind_the_request_arrives(proxy):
    """The out-of-band byte is already there when the relay starts."""
    with listening() as server:
        from lib.clients import finish6
        from lib.net import dial
        with contextlib.closing(dial(proxy.addr)) as sock:
            sock.sendall(s6.request(*server.addr) + b"early")
            sock.send(b"!", socket.MSG_OOB)
            sock.sendall(b"late")
            with server.accept_one() as peer:
                assert recv_exact(peer, 10) == b"early!late"
            assert finish6(sock).ok


def test_a_receiver_that_does_not_read_stops_the_sender_and_loses_nothing(proxy):
    """Back-pressure: the proxy holds a bounded amount. Then everything arrives, in order."""
    with pair(proxy) as (client, server):
        client.setblocking(False)
        sent = 0
        data = pattern(1 << 16)
        stalled = 0
        while stalled < 20:
            try:
                sent += client.send(data[sent % len(data):])
                stalled = 0
            except BlockingIOError:
                stalled += 1
                threading.Event().wait(0.01)
            assert sent < 64 << 20, "the proxy swallows without end"
        client.setblocking(True)
        client.shutdown(socket.SHUT_WR)
        got = recv_all(server)
        assert len(got) == sent
        assert sha(got) == sha((data * (sent // len(data) + 1))[:sent])


def test_both_directions_at_once(proxy):
    up, down = pattern(16 << 20, 1), pattern(16 << 20, 2)
    with pair(proxy) as (client, server):
        got = {}

        def send(sock, data):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        def receive(name, sock):
            got[name] = sha(recv_all(sock))
        threads = [threading.Thread(target=send, args=(client, up)), threading.Thread(target=send, args=(server, down)),
                   threading.Thread(target=receive, args=("up", server)),
                   threading.Thread(target=receive, args=("down", client))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert got == {"up": sha(up), "down": sha(down)}


def test_small_messages_go_back_and_forth_many_times(proxy, echo):
    with socks6_dial(proxy.addr, *echo.addr) as sock:
        for number in range(2000):
            message = b"%d" % number
            sock.sendall(message)
            assert recv_exact(sock, len(message)) == message


def test_many_transfers_at_once_do_not_mix(proxy, echo):
    failures = []

    def one(seed):
        data = pattern(300_000 + seed, seed)
        with socks6_dial(proxy.addr, *echo.addr) as sock:
            def send():
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
            sender = threading.Thread(target=send)
            sender.start()
            if recv_all(sock) != data:
                failures.append(seed)
            sender.join()
    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures


# Times ----------------------------------------------------------------------------------------------------------------


def test_an_idle_relay_ends_at_its_limit(daemon):
    proxy = daemon(limits={"idle": "300ms"})
    with pair(proxy) as (client, server):
        recv_until_end(client)
        recv_until_end(server)
        record = proxy.access()[-1]
        assert "idle" in str(record).lower()


def test_traffic_in_either_direction_keeps_a_relay_from_being_idle(daemon):
    proxy = daemon(limits={"idle": "1s"})
    with pair(proxy) as (client, server):
        for number in range(15):
            sender, receiver = (client, server) if number % 2 else (server, client)
            threading.Event().wait(0.1)
            sender.sendall(b"x")
            assert recv_exact(receiver, 1) == b"x"


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_quiet_half_closed_relay_ends_at_its_own_limit(daemon, side):
    """Each way; a relay that is whole stays although it is just as quiet."""
    proxy = daemon(limits={"half_closed": "300ms"})
    with pair(proxy) as (whole_client, whole_server), pair(proxy) as (client, server):
        first, second = (client, server) if side == "client" else (server, client)
        first.shutdown(socket.SHUT_WR)
        assert recv_all(second) == b""
        recv_until_end(first)
        assert not has_ended(whole_client) and not has_ended(whole_server)
        whole_client.sendall(b"x")
        assert recv_exact(whole_server, 1) == b"x"


def test_a_busy_half_closed_relay_lives_past_the_limit(daemon):
    proxy = daemon(limits={"half_closed": "1s"})
    with pair(proxy) as (client, server):
        client.shutdown(socket.SHUT_WR)
        assert recv_all(server) == b""
        for _ in range(15):
            threading.Event().wait(0.1)
            server.sendall(b"x")
            assert recv_exact(client, 1) == b"x"


def test_both_legs_get_keepalive(proxy):
    """Read off the kernel's view of the daemon's sockets."""
    import subprocess
    with pair(proxy) as (client, server):
        ports = {str(client.getsockname()[1]), str(server.getpeername()[1])}

        def legs():
            out = subprocess.run(["ss", "-Htnpoe"], capture_output=True, text=True, check=True).stdout
            return [line for line in out.splitlines() if f"pid={proxy.pid}," in line
                    and any(f":{port} " in line for port in ports)]
        # The dialled leg gets it once the connection has lived for a second.
        wait_until(lambda: sum("keepalive" in line for line in legs()) == 2, lambda: f"keepalive on both of {legs()}")


def test_nothing_is_held_for_idle_relays(proxy, echo):
    """Descriptors: two per relayed connection, no pipe."""
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(socks6_dial(proxy.addr, *echo.addr))
        assert proxy.fds() == proxy.base_fds + 100


def counters(proxy):
    """The daemon's counters, by SIGUSR1."""
    import signal
    mark = proxy.mark()
    proxy.signal(signal.SIGUSR1)
    line = proxy.wait_line("accepted", "the counters", mark)
    return dict((name, int(value)) for name, value in re.findall(r"(\w+)[=:]\s*(\d+)", line.replace('"', "")))


def pipes(proxy):
    return sum(target.startswith("pipe:") for target in proxy.fd_targets())


def test_bulk_takes_pipes_only_if_it_is_to_be_spliced_and_gives_them_back(proxy):
    before = pipes(proxy)
    with pair(proxy) as (client, server):
        client.settimeout(1)
        with contextlib.suppress(TimeoutError):
            while True:
                client.sendall(bytes(1 << 20))  # the server reads later
        assert pipes(proxy) == before + (2 if proxy.relay == "splice" else 0)
        reader = threading.Thread(target=recv_until_end, args=(server,))
        reader.start()
        client.settimeout(30)
        client.sendall(bytes(64 << 20))
        # All is read, the connection is open: an idle relay, and then an idle daemon, has none.
        wait_until(lambda: pipes(proxy) == before, lambda: f"{pipes(proxy)} pipes to be {before}")
        client.shutdown(socket.SHUT_WR)
        reader.join(30)


NOBODY = ["setpriv", "--reuid", "65533", "--regid", "65533", "--clear-groups"]


def test_bulk_is_copied_where_the_system_gives_no_large_pipe(daemon, isolation):
    """A user without privileges, who may have no page in pipes any more."""
    del isolation  # it needs root
    if subprocess.run([*NOBODY, "test", "-x", daemon_binary()], check=False).returncode != 0:
        pytest.skip("other users cannot run the build")
    with open("/proc/sys/fs/pipe-user-pages-soft", encoding="ascii") as file:
        pages = int(file.read())
    if pages == 0:
        pytest.skip("there is no limit on pipes here")
    holder = subprocess.Popen([*NOBODY, sys.executable, "-c", """
import fcntl, os, sys
kept = []
try:
    while True:
        kept.append(os.pipe())
        fcntl.fcntl(kept[-1][1], 1031, 1 << 20)
except OSError:
    print("full", flush=True)
sys.stdin.read()
"""], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"full\n"
        proxy = daemon(relay="splice", wrapper=["sh", "-c", 'chmod 755 "$(dirname "$3")" && exec ' + " ".join(NOBODY) + ' "$@"',
                                                "sh"])
        data = pattern(32 << 20)
        with pair(proxy) as (client, server):
            received = []
            reader = threading.Thread(target=lambda: received.append(recv_all(server)))
            reader.start()
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            reader.join(60)
            assert sha(received[0]) == sha(data)
        assert pipes(proxy) == 2  # standard output and standard error
        wait_until(lambda: counters(proxy)["splice_refused"] >= 1, "a count of it")
    finally:
        holder.stdin.close()
        holder.stdout.close()
        holder.wait()
