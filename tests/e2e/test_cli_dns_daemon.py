"""`socks6 dns` and `socks6 dns --listen` with the real daemon between them and a name server made of Python."""

import random
import re
import subprocess

import dns.flags
import dns.rcode
import dns.rdatatype
import pytest

from cli_peers import DEADLINE, client_environment, client_path
from dns_peers import RECORDS, NameServer, answering, comparable, rrset
from lib import isolate
from lib.net import wait_until
from test_cli_dns_listen import Local, query

BY_TYPE = {}
for _kind, _data in RECORDS:
    BY_TYPE.setdefault(dns.rdatatype.from_text(_kind), []).append((_kind, _data))


def zone(one):
    """x.test has a record of every type, bigN.test N long ones; nodata.test none, slow.test no answer; nothing else exists."""
    name, kind = one.question[0].name.to_text(), one.question[0].rdtype
    soa = rrset("test.", "SOA", "ns.test. admin.test. 1 7200 3600 1209600 300")
    if name == "x.test." and kind in BY_TYPE:
        first, _ = BY_TYPE[kind][0]
        return answering(rrset(name, first, *[data for _, data in BY_TYPE[kind]]), flags=dns.flags.AA | dns.flags.RA)(one)
    if name.startswith("big"):
        return answering(rrset(name, "TXT", *[f'"{"t" * 200}{i:03}"' for i in range(int(name[3:].split(".")[0]))]))(one)
    if name == "slow.test.":
        return None
    if name in ("nodata.test.", "x.test."):
        return answering(authority=[soa])(one)
    return answering(authority=[soa], rcode=dns.rcode.NXDOMAIN)(one)


@pytest.fixture(scope="module")
def name_server():
    with NameServer(zone) as server:
        yield server


@pytest.fixture
def proxy(daemon, name_server):
    return daemon(dns={"upstream": [f"udp://127.0.0.1:{name_server.port}"], "hosts": "none"})


def url(one):
    return f"socks6://127.0.0.1:{one.addr[1]}"


def ask(one, *args, **more):
    done = subprocess.run([client_path(), "-x", url(one), "dns", *map(str, args)], env=client_environment(), capture_output=True,
                          timeout=DEADLINE, check=False, **more)
    assert b"Sanitizer" not in done.stderr, done.stderr
    return done


def without_ttl(text):
    """Lines of dig's output but for what a cache changes."""
    lines = [re.sub(r"^(\S+\t+)\d+(\s+IN)", r"\1TTL\2", line) for line in comparable(text)]
    return sorted(line for line in lines if not line.startswith(("; EDNS", ";; OPT", ";; flags", ";; MSG SIZE")))


def dig(port, *args):
    return subprocess.run(["dig", "+nocookie", "+tries=1", "+time=20", "@127.0.0.1", "-p", str(port), *args], capture_output=True,
                          timeout=DEADLINE, check=True).stdout.decode()


def test_every_type_by_every_way_equals_the_direct_answer(proxy, name_server):
    with Local(url(proxy)) as local:
        for kind in BY_TYPE:
            words = ("x.test", f"TYPE{kind}")
            direct = without_ttl(dig(name_server.port, "+tcp", *words))
            assert any("TTL" in line for line in direct)
            assert without_ttl(ask(proxy, *words).stdout.decode()) == direct
            assert without_ttl(dig(local.port, *words)) == direct
            assert without_ttl(dig(local.port, "+tcp", *words)) == direct


@pytest.mark.parametrize("name,rcode,status", [("nodata.test", "NOERROR", 0), ("no.test", "NXDOMAIN", 0)])
def test_negative_answers(proxy, name, rcode, status):
    done = ask(proxy, name)
    assert done.returncode == status and f"status: {rcode}".encode() in done.stdout and b"SOA" in done.stdout
    with Local(url(proxy)) as local:
        assert dns.rcode.to_text(local.udp(query(name)).rcode()) == rcode


@pytest.mark.parametrize("count", [16, 280])
def test_long_answers(proxy, count):
    name = f"big{count}.test"
    done = ask(proxy, "+short", name, "TXT")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == count
    with Local(url(proxy)) as local:
        got = local.udp(query(name, "TXT", use_edns=0, payload=1232))
        assert got.flags & dns.flags.TC and not got.answer
        assert len(local.tcp(query(name, "TXT")).answer[0]) == count
        assert len(dig(local.port, name, "TXT", "+short").splitlines()) == count


def test_many_names_at_once(proxy):
    names = "\n".join(f"big{i % 9 + 1}.test TXT\nn{i}.test\nx.test MX" for i in range(300))
    done = ask(proxy, "+short", "-f", "-", input=names.encode())
    assert done.returncode == 0
    expected = sum(i % 9 + 1 for i in range(300)) + 300
    assert len(done.stdout.splitlines()) == expected


def test_kdig_and_dnspython(proxy):
    with Local(url(proxy)) as local:
        done = subprocess.run(["kdig", "@127.0.0.1", "-p", str(local.port), "+short", "+tcp", "+keepopen", "x.test", "MX", "x.test",
                               "AAAA"], capture_output=True, timeout=DEADLINE, check=True)
        assert done.stdout.splitlines() == [b"10 mx.x.test.", b"2001:db8::1"]
        for one in (local.udp(query("x.test", "SRV")), local.tcp(query("x.test", "SRV", use_edns=0))):
            assert one.answer == [rrset("x.test.", "SRV", "1 2 443 srv.x.test.")]


def test_the_systems_own_look_ups(proxy, isolation, tmp_path):
    """A machine whose resolv.conf names the local server: what getaddrinfo(3) finds."""
    del isolation
    addr = f"127.{random.randint(64, 127)}.{random.randint(0, 255)}.{random.randint(1, 254)}"
    wrapper = isolate.with_files(isolate.name_files(tmp_path, [], addr))
    with Local(url(proxy), listen=(f"{addr}:53",)):
        done = subprocess.run([*wrapper, "getent", "ahosts", "x.test"], capture_output=True, timeout=DEADLINE, check=True)
        assert {line.split()[0] for line in done.stdout.splitlines()} == {b"192.0.2.1", b"2001:db8::1"}
        assert subprocess.run([*wrapper, "getent", "ahosts", "no.test"], timeout=DEADLINE, check=False).returncode == 2


def test_a_question_without_an_answer_is_servfail_in_time(proxy):
    with Local(url(proxy), "-w", 1) as local:
        assert local.udp(query("slow.test")).rcode() == dns.rcode.SERVFAIL
        assert local.udp(query("x.test")).answer


def test_a_daemon_without_the_service(daemon):
    one = daemon(dns={"service": False})
    done = ask(one, "x.test")
    assert done.returncode == 3 and b"this proxy offers no DNS service" in done.stderr


def test_socks5_where_the_daemon_offers_it(daemon, name_server):
    upstream = [f"udp://127.0.0.1:{name_server.port}"]
    for offered in (False, True):
        one = daemon(dns={"upstream": upstream, "hosts": "none", "service_socks5": offered})
        done = subprocess.run([client_path(), "-x", f"socks5h://127.0.0.1:{one.addr[1]}", "dns", "+short", "x.test"],
                              env=client_environment(), capture_output=True, timeout=DEADLINE, check=False)
        assert (done.returncode, done.stdout) == ((0, b"192.0.2.1\n") if offered else (3, b""))


def test_the_daemon_is_replaced_under_a_local_server(daemon, name_server):
    settings = {"dns": {"upstream": [f"udp://127.0.0.1:{name_server.port}"], "hosts": "none"}}
    first = daemon(**settings)
    with Local(url(first), "-w", 2) as local:
        assert local.udp(query("x.test")).answer
        port = first.addr[1]
        first.stop()
        assert local.udp(query("x.test")).rcode() == dns.rcode.SERVFAIL
        daemon(listeners=[f"127.0.0.1:{port}"], **settings)
        wait_until(lambda: local.udp(query("x.test")).answer, "the service")
