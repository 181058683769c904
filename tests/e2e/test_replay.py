"""
Replays: what clients have sent is recorded on its way and sent again, over TLS as early data, over plain TCP as a whole. SYNs are
repeated in test_fast_open.py. That these checks would find a proxy that acts upon replays is proved with one that does.
"""

import contextlib
import itertools
import os
import re
import subprocess

import pytest

from lib import socks6 as s6
from lib.daemon import Daemon, base_config, client_binary, environment, faults_binary
from lib.faults import Faults
from lib.net import wait_until
from lib.replay import Ledger, Recorder, first_flight, repeat
from lib.status import status, totals
from lib.tls import Authority, SClient

GOAL = 10 ** 4
ROUND = 250
LONG = 900  # seconds, for sanitizers on busy machines


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    one = Authority(tmp_path_factory.mktemp("replay"))
    one.certificates = [one.issue("proxy.test"), one.issue("proxy.test", prefix="other")]
    return one


class World:
    """A daemon, plain and with TLS; a recorder in front of each; the server that counts; and the clients' memories."""

    def __init__(self, stack, authority, folder, **process):
        self.authority, self.folder, self.path = authority, folder, folder / "status"
        self.proxy = stack.enter_context(Daemon(self.config(0), **process))
        self.tls, self.plain = self.proxy.listeners()[:2]
        self.ledger = stack.enter_context(Ledger())
        self.tls_recorder = stack.enter_context(Recorder(self.tls))
        self.plain_recorder = stack.enter_context(Recorder(self.plain))
        self.serial, self.payloads = itertools.count(1), []

    def config(self, certificate):
        certificate, key = self.authority.certificates[certificate]
        return base_config([{"address": "127.0.0.1:0", "tls": {"certificate": certificate, "key": key}}, "127.0.0.2:0"],
                           workers=4, status={"socket": str(self.path)}, log={"level": "info", "access": False},
                           limits={"connections_per_client": "none", "handshake": "20s"})

    def payload(self):
        self.payloads.append(b"pay %06d\n" % next(self.serial))
        return self.payloads[-1]

    def connect(self, url, recorder, *options):
        """`socks6 connect`, which does as it thinks best; what it has sent."""
        payload = self.payload()
        done = subprocess.run([client_binary(), "connect", "-N", "--early", "--no-tfo", *options, "-x", url, *map(str, self.ledger.addr)],
                              input=payload, capture_output=True, check=False, timeout=60,
                              env=environment(XDG_CACHE_HOME=str(self.folder / "cache")))
        assert (done.returncode, done.stdout) == (0, payload), done
        return bytes(recorder.streams[-1])

    def tls_connect(self):
        return self.connect(f"socks6s://127.0.0.1:{self.tls_recorder.port}?ca={self.authority.pem}", self.tls_recorder)

    def plain_connect(self, *options):
        return self.connect(f"socks6://127.0.0.1:{self.plain_recorder.port}", self.plain_recorder, *options)

    def openssl_connect(self):
        """A request without a token as early data, which `socks6 connect` never sends."""
        payload, early, ticket = self.payload(), self.folder / "early", self.folder / "ticket"
        if not ticket.exists():
            with SClient(self.tls, "-alpn", "socks6", new_session=ticket) as client:
                client.write(s6.noop())
                client.read_to_end()
        early.write_bytes(s6.request(*self.ledger.addr) + payload)
        with SClient(self.tls_recorder.addr, "-alpn", "socks6", early=early, session=ticket) as client:
            assert b"Early data was accepted" in client.read_until(payload)
        return bytes(self.tls_recorder.streams[-1])

    def violations(self):
        return self.ledger.violations(totals(self.path)["connected"], self.payloads)


@pytest.fixture
def world(authority, tmp_path):
    with contextlib.ExitStack() as stack:
        yield World(stack, authority, tmp_path)


def repeat_early_data(world, kind, goal, size=ROUND):
    """
    Records a client and repeats it, half of it before and half after a reload, until `goal` replays have had their early data accepted; every
    second time with the rest of what the client sent behind it, every second reload with another certificate.
    """
    accepted, failures = 0, 0
    for number in itertools.count():
        stream = world.tls_connect() if kind == "token" else world.openssl_connect()
        data = stream if number % 2 else first_flight(stream)
        counted = repeat(world.tls, world.path, data, size // 2, "tls_early_data_accepted")
        world.proxy.reload(world.config(number // 2 % 2))
        counted += repeat(world.tls, world.path, data, size // 2, "tls_early_data_accepted")
        accepted += counted
        failures += counted < size // 2
        assert failures < 20, "tickets age faster than their flights are repeated"
        if accepted >= goal:
            return accepted, number + 1


def replays_of_early_data_act_upon_nothing(world, goal):
    world.tls_connect()  # gets a ticket, a session and tokens
    before = totals(world.path)
    for kind in ("token", "none"):
        at = totals(world.path)
        accepted, originals = repeat_early_data(world, kind, goal)
        found = totals(world.path)
        grown = {name: found[name] - at[name] for name in found}
        assert grown["tls_early_data_accepted"] == accepted + originals
        assert grown["connected"] == originals
        if kind == "token":
            assert (grown["tokens_accepted"], grown["tokens_rejected"]) == (originals, accepted)
            assert grown["requests_waited"] == 0
        else:
            assert grown["tokens_accepted"] == grown["tokens_rejected"] == 0
            assert grown["requests_waited"] >= accepted  # and the recorded ones, if they were not quick enough
    assert found["tls_early_data_accepted"] - before["tls_early_data_accepted"] >= 2 * goal
    assert all(one["tls_early_data_accepted"] > 0 for one in status(world.path)["workers"])
    assert not world.violations()


def test_replayed_early_data_acts_upon_nothing(world):
    replays_of_early_data_act_upon_nothing(world, 400)


@pytest.mark.full
@pytest.mark.timeout(LONG)
def test_ten_thousand_replays_of_early_data_act_upon_nothing(world):
    """Of requests with a token, and as many of requests without."""
    replays_of_early_data_act_upon_nothing(world, GOAL)


# Plain TCP ------------------------------------------------------------------------------------------------------------


def repeat_plain(world, stream, count, counter):
    half = count // 2
    counted = repeat(world.plain, world.path, stream, half, counter)
    world.proxy.reload()
    return counted + repeat(world.plain, world.path, stream, count - half, counter)


def test_plain_streams_with_a_token_act_once(world):
    world.plain_connect()
    stream = world.plain_connect()
    assert repeat_plain(world, stream, 1000, "tokens_rejected") == 1000
    found = totals(world.path)
    assert (found["tokens_accepted"], found["tokens_rejected"], found["connected"]) == (1, 1000, 2)
    assert not world.violations()


def test_plain_streams_without_a_token_act_as_often_as_they_are_sent(world):
    """What the manual says: over plain TCP nothing tells a replay from a client but a token."""
    stream = world.plain_connect("--no-session")
    assert repeat_plain(world, stream, 20, "connected") == 20
    payload = repr(world.payloads[0])
    assert world.violations() == [f"{payload} acted 21 times", "21 connections for 1 requests",
                                  f"{21 * len(world.payloads[0])} bytes for {len(world.payloads[0])}"]


# Whether replays that act would be noticed ----------------------------------------------------------------------------


@pytest.fixture
def broken(authority, tmp_path):
    if not os.access(faults_binary(), os.X_OK):
        pytest.fail(f"{faults_binary()} is not built")
    with contextlib.ExitStack() as stack:
        faults = Faults(tmp_path / "control")
        one = World(stack, authority, tmp_path, binary=faults_binary(), env={"SOCKS6_FAULTS": faults.path})
        one.faults = faults
        yield one


@pytest.mark.parametrize("off", [[], ["token"]])
def test_a_proxy_that_does_not_check_tokens_is_found_out(broken, off):
    broken.faults.switch_off(*off)
    broken.tls_connect()
    stream = broken.tls_connect()
    assert repeat(broken.tls, broken.path, first_flight(stream), 20, "tls_early_data_accepted") == 20
    broken.plain_connect()
    stream = broken.plain_connect()
    repeat(broken.plain, broken.path, stream, 20, "tokens_accepted" if off else "tokens_rejected")
    # 44; but one that is given up before the proxy has got round to it need not be acted upon.
    wait_until(lambda: totals(broken.path)["connected"] >= (24 if off else 4), "connections for what was repeated")
    found = broken.violations()
    if off:
        assert any(re.fullmatch(r"\d+ connections for 4 requests", one) for one in found), found
        assert totals(broken.path)["tokens_accepted"] >= 22
    else:
        assert not found


@pytest.mark.parametrize("off", [[], ["wait"]])
def test_a_proxy_that_does_not_wait_for_clients_is_found_out(broken, off):
    stream = broken.openssl_connect()
    broken.faults.switch_off(*off)
    assert repeat(broken.tls, broken.path, first_flight(stream), 20, "connected" if off else "requests_waited") >= 20
    assert ("21 connections for 1 requests" in broken.violations()) == bool(off)
