"""Names under `socks6 run`: asked as the preloaded library asks, by programs, and over UDP, of a proxy's DNS service written for it."""

import concurrent.futures
import ipaddress
import os
import re
import socket
import struct
import subprocess
import sys

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from cli_peers import DEADLINE, client_environment, client_path
from dns_peers import DnsProxy, answering, rrset
from lib import isolate
from run_shim import QUERY, RESOLVE, REVERSE, UDP_DNS, PortProxy, addr, answer, ends_well, from_addr, helper

ADDRCONFIG = 1
ASK_SYSTEM = 1
SOA = rrset("test.", "SOA", "ns.test. admin.test. 1 7200 3600 1209600 300")
RECORDS = {
    "www.x.test.": {"A": ["192.0.2.1"], "AAAA": ["2001:db8::1"], "TXT": ['"text"'], "SRV": ["1 2 80 www.x.test."]},
    "only4.x.test.": {"A": ["192.0.2.4"]},
    "big.x.test.": {"TXT": [f'"{"t" * 200}{i:03}"' for i in range(40)]},
    "1.2.0.192.in-addr.arpa.": {"PTR": ["www.x.test."]},
    "short.corp.test.": {"A": ["192.0.2.5"]},
}


def zone(query):
    """alias.x.test leads to www.x.test; failing.* and refused.* are answered so, silent.* not at all."""
    name, kind = query.question[0].name.to_text(), dns.rdatatype.to_text(query.question[0].rdtype)
    first = name.split(".")[0]
    if first == "silent":
        return None
    if first in ("failing", "refused"):
        return answering(rcode=dns.rcode.SERVFAIL if first == "failing" else dns.rcode.REFUSED)(query)
    aliases = [rrset(name, "CNAME", "www.x.test.")] if name == "alias.x.test." else []
    owner = "www.x.test." if aliases else name
    if owner not in RECORDS:
        return answering(authority=[SOA], rcode=dns.rcode.NXDOMAIN)(query)
    data = RECORDS[owner].get(kind)
    return answering(*aliases, *([rrset(owner, kind, *data)] if data else []), authority=[] if data else [SOA])(query)


@pytest.fixture
def proxy():
    with DnsProxy(zone) as one:
        yield one


def resolve(shim, name, family=socket.AF_UNSPEC, flags=0):
    """(addresses, canonical name), or the status."""
    name = name.encode()
    status, body = shim.ask(RESOLVE, struct.pack("=HHI", family, len(name), flags) + name)
    if status != 0:
        assert not body
        return status
    count, canon_len = struct.unpack("=II", body[:8])
    assert len(body) == 8 + 24 * count + canon_len
    found = [from_addr(body[8 + 24 * i:32 + 24 * i]) for i in range(count)]
    assert all(port == 0 for _, port in found)
    return [host for host, _ in found], body[8 + 24 * count:].decode()


def reverse(shim, host):
    status, body = shim.ask(REVERSE, addr(host))
    if status != 0:
        return status
    assert body.endswith(b"\0")
    return body.decode().split("\0")[:-1]


def udp_ports(shim, host, port=53):
    status, body = shim.ask(UDP_DNS, addr(host, port))
    assert status == 0
    ipv4, ipv6, _ = struct.unpack("=HHI", body[:8])
    assert from_addr(body[8:]) == (host, port)
    return ipv4, ipv6


def ask_udp(host, port, query, timeout=DEADLINE):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        sock.connect((host, port))
        sock.send(query.to_wire())
        return dns.message.from_wire(sock.recv(65535))


def run(url, *argv, options=(), wrapper=(), **env):
    done = subprocess.run([*wrapper, client_path(), "-x", url, "run", *options, "--", *argv], env=client_environment(**env),
                          capture_output=True, timeout=DEADLINE, check=False, text=True)
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
    return done


def python(url, code, **more):
    done = run(url, sys.executable, "-c", "import socket\n" + code, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


# RUN_RESOLVE ----------------------------------------------------------------------------------------------------------

def test_addresses_of_both_families_and_the_canonical_name(proxy):
    with helper("-x", proxy.url()) as (process, shim):
        assert resolve(shim, "www.x.test") == (["2001:db8::1", "192.0.2.1"], "www.x.test")
        assert resolve(shim, "alias.x.test", socket.AF_INET) == (["192.0.2.1"], "www.x.test")
        assert resolve(shim, "only4.x.test") == (["192.0.2.4"], "only4.x.test")
        assert resolve(shim, "192.0.2.9") == (["192.0.2.9"], "192.0.2.9")
        ends_well(process)
    assert len(proxy.requests) == 1, "one connection served them all"
    names = [(one.question[0].name.to_text(), one.question[0].rdtype) for one in proxy.queries]
    assert len(set(names)) == len(names), "nothing was asked twice"


@pytest.mark.parametrize("name, family, status", [
    ("no.x.test.", socket.AF_UNSPEC, socket.EAI_NONAME), ("only4.x.test.", socket.AF_INET6, socket.EAI_NODATA),
    ("failing.x.test.", socket.AF_UNSPEC, socket.EAI_AGAIN), ("refused.x.test.", socket.AF_UNSPEC, socket.EAI_AGAIN),
    ("silent.x.test.", socket.AF_UNSPEC, socket.EAI_AGAIN), ("a b.x.test", socket.AF_UNSPEC, socket.EAI_NONAME),
    ("", socket.AF_UNSPEC, socket.EAI_NONAME), ("x.invalid", socket.AF_UNSPEC, socket.EAI_NONAME),
    ("www.x.test", 99, socket.EAI_FAMILY)])
def test_failures_have_the_codes_of_getaddrinfo(proxy, name, family, status):
    with helper("-x", proxy.url(), env={"RES_OPTIONS": "timeout:1 attempts:1"}) as (process, shim):
        assert resolve(shim, name, family) == status
        ends_well(process)


def test_search_domains_of_the_environment(proxy):
    with helper("-x", proxy.url(), env={"LOCALDOMAIN": "lab.test corp.test", "RES_OPTIONS": "ndots:2"}) as (process, shim):
        assert resolve(shim, "short", socket.AF_INET) == (["192.0.2.5"], "short.corp.test")
        assert resolve(shim, "short.", socket.AF_INET) == socket.EAI_NONAME
        assert resolve(shim, "www.x.test", socket.AF_INET) == (["192.0.2.1"], "www.x.test")
        ends_well(process)
    asked = [one.question[0].name.to_text() for one in proxy.queries]
    assert asked == ["short.lab.test.", "short.corp.test.", "short.", "www.x.test."]


def test_hosts_and_resolv_conf_are_those_of_the_machine(proxy, tmp_path, isolation):
    del isolation
    files = isolate.name_files(tmp_path, [("192.0.2.77", "printer.lan printer"), ("127.0.0.1", "localhost")], "192.0.2.53")
    with open(files["/etc/resolv.conf"], "a", encoding="ascii") as file:
        file.write("search corp.test\n")
    code = """
print(socket.gethostbyname_ex("printer"), socket.gethostbyname_ex("short"))
print(socket.getfqdn("192.0.2.77"), socket.gethostbyname("localhost"))
"""
    assert python(proxy.url(), code, wrapper=isolate.with_files(files), LC_ALL="C") == [
        "('printer.lan', ['printer'], ['192.0.2.77']) ('short.corp.test', [], ['192.0.2.5'])", "printer.lan 127.0.0.1"]
    assert {one.question[0].name.to_text() for one in proxy.queries} == {"short.corp.test."}


def test_one_question_for_all_who_ask_at_once(proxy):
    def slow(query):
        everybody.result(DEADLINE)
        return zone(query)

    everybody = concurrent.futures.Future()
    proxy.answer = slow
    with helper("-x", proxy.url()) as (process, shim), concurrent.futures.ThreadPoolExecutor(50) as pool:
        asks = [pool.submit(resolve, shim, "www.x.test", socket.AF_INET) for _ in range(50)]
        concurrent.futures.wait(asks, 0.2)
        everybody.set_result(None)
        assert {str(one.result(DEADLINE)) for one in asks} == {str((["192.0.2.1"], "www.x.test"))}
        ends_well(process)
    assert len(proxy.queries) == 1


def test_program_that_goes_while_it_asks_is_no_matter(proxy):
    with helper("-x", proxy.url()) as (process, shim):
        for _ in range(20):
            with shim.open() as sock:
                sock.sendall(shim.message(RESOLVE, struct.pack("=HHI", socket.AF_UNSPEC, 13, 0) + b"silent.x.test"))
        assert resolve(shim, "www.x.test", socket.AF_INET)[1] == "www.x.test"
        ends_well(process)


def test_proxy_that_goes_is_told_once_and_the_cache_stays():
    proxy = DnsProxy(zone)
    with helper("-x", proxy.url()) as (process, shim):
        assert resolve(shim, "only4.x.test")[0] == ["192.0.2.4"]
        proxy.stop(quiet=True)
        for _ in range(3):
            assert resolve(shim, "www.x.test") == socket.EAI_AGAIN
        assert resolve(shim, "only4.x.test")[0] == ["192.0.2.4"], "which is known already"
        text = ends_well(process)
    assert text.count("no names can be looked up") == 1 and "--fake-names" not in text


def test_proxy_without_the_service_is_told_once():
    with DnsProxy(code=5) as proxy, helper("-x", proxy.url()) as (process, shim):
        for name in ("a.test", "b.test"):
            assert resolve(shim, name) == socket.EAI_AGAIN
        assert reverse(shim, "192.0.2.1") == socket.EAI_AGAIN
        text = ends_well(process)
    lines = [line for line in text.splitlines() if "names" in line]
    assert len(lines) == 1 and "offers no DNS service" in lines[0] and "--fake-names" in lines[0], text


# RUN_REVERSE, RUN_QUERY -----------------------------------------------------------------------------------------------

def test_names_of_addresses(proxy):
    with helper("-x", proxy.url()) as (process, shim):
        assert reverse(shim, "192.0.2.1") == ["www.x.test"]
        assert reverse(shim, "::ffff:192.0.2.1") == ["www.x.test"]
        assert reverse(shim, "192.0.2.99") == socket.EAI_NONAME
        assert "localhost" in reverse(shim, "127.0.0.1")
        ends_well(process)


@pytest.mark.parametrize("kind", ["A", "SRV", "TXT", "MX"])
def test_whole_messages(proxy, kind):
    name = "big.x.test." if kind == "TXT" else "www.x.test."
    query = dns.message.make_query(name, kind, use_edns=kind == "A", want_dnssec=kind == "A")
    with helper("-x", proxy.url()) as (process, shim):
        for number in (1, 2):  # the second from the cache
            query.id = number
            status, body = shim.ask(QUERY, query.to_wire())
            response = dns.message.from_wire(body)
            assert status == 0 and query.is_response(response)
            expected = RECORDS[name].get(kind)
            assert response.answer == ([rrset(name, kind, *expected)] if expected else [])
            assert (response.edns >= 0) == (kind == "A") and not response.flags & dns.flags.TC
        ends_well(process)
    assert len(proxy.queries) == 1


# Over UDP -------------------------------------------------------------------------------------------------------------

def test_udp_is_answered_on_loopback_ports_of_each_destination(proxy):
    with helper("-x", proxy.url()) as (process, shim):
        here, there = udp_ports(shim, "192.0.2.53"), udp_ports(shim, "2001:db8::53")
        assert len({*here, *there}) == 4 and udp_ports(shim, "192.0.2.53") == here
        status, body = shim.ask(UDP_DNS, struct.pack("=HHI16s", 0, here[0], 0, b""))
        assert status == 0 and from_addr(body[8:]) == ("192.0.2.53", 53)
        query = dns.message.make_query("www.x.test.", "A")
        for host, port in (("127.0.0.1", here[0]), ("::1", here[1])):
            response = ask_udp(host, port, query)
            assert query.is_response(response) and response.answer == [rrset("www.x.test.", "A", "192.0.2.1")]
        response = ask_udp("127.0.0.1", there[0], dns.message.make_query("big.x.test.", "TXT"))
        assert response.flags & dns.flags.TC, "it is cut to what UDP takes"
        ends_well(process)


def test_udp_ports_are_not_for_other_users(proxy, isolation):
    """The helper is another user's: root's own may not ask there."""
    del isolation
    with helper("-x", proxy.url()) as (process, shim):
        root = udp_ports(shim, "192.0.2.53")[0]
        code = f"""
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout({DEADLINE})
s.connect(("127.0.0.1", int(sys.argv[1])))
s.send({dns.message.make_query("www.x.test.", "A").to_wire()!r})
print(s.recv(4096)[3] & 15)
"""
        as_nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        ask = lambda *who: int(subprocess.run([*who, sys.executable, "-c", code, str(root)], capture_output=True, check=True,
                                              timeout=DEADLINE).stdout)
        assert ask(*as_nobody) == dns.rcode.NOERROR, "programs that root starts change their user"
        ends_well(process)
    with helper("-x", proxy.url(), wrapper=as_nobody) as (process, shim):
        root = udp_ports(shim, "192.0.2.53")[0]
        assert ask() == dns.rcode.REFUSED
        assert ask(*as_nobody) == dns.rcode.NOERROR
        ends_well(process)


def test_many_destinations_take_few_descriptors(proxy):
    with helper("-x", proxy.url()) as (process, shim):
        first = udp_ports(shim, "192.0.2.1")
        pid = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, check=True, text=True).stdout.strip()
        for i in range(200):
            udp_ports(shim, str(ipaddress.ip_address("198.51.100.0") + i))
        assert len(os.listdir(f"/proc/{pid}/fd")) < 200
        assert udp_ports(shim, "192.0.2.1") != first, "the oldest went"
        ends_well(process)


# --fake-names ---------------------------------------------------------------------------------------------------------

def test_fake_addresses_stand_for_names():
    with PortProxy({80: answer(0)}) as proxy, helper("-x", proxy.url(), "--fake-names") as (process, shim):
        (first,), canonical = resolve(shim, "www.x.test")
        assert ipaddress.ip_address(first) in ipaddress.ip_network("198.18.0.0/15") and canonical == "www.x.test"
        assert resolve(shim, "WWW.X.test", socket.AF_INET)[0] == [first]
        (sixth,), _ = resolve(shim, "www.x.test", socket.AF_INET6)
        assert ipaddress.ip_address(sixth) in ipaddress.ip_network("fd00::/8")
        assert reverse(shim, first) == reverse(shim, sixth) == ["www.x.test"]
        assert reverse(shim, "192.0.2.1") == socket.EAI_NONAME
        port = udp_ports(shim, "192.0.2.53")[0]
        for kind, expected in (("A", first), ("AAAA", sixth)):
            response = ask_udp("127.0.0.1", port, dns.message.make_query("www.x.test.", kind))
            assert [one.to_text() for one in response.answer[0]] == [expected]
        assert ask_udp("127.0.0.1", port, dns.message.make_query("www.x.test.", "MX")).rcode() == dns.rcode.NOTIMP
        for host in (first, sixth):
            with shim.connect(host, 80).sock as sock:
                sock.sendall(b"ping")
                assert sock.recv(4) == b"ping"
        assert {one.host for one in proxy.requests} == {"www.x.test"}
        ends_well(process)


# Programs -------------------------------------------------------------------------------------------------------------

def test_python_sees_what_the_proxy_says(proxy):
    code = """
print([one[4][0] for one in socket.getaddrinfo("www.x.test", 80, type=socket.SOCK_STREAM)])
print(socket.gethostbyname_ex("alias.x.test"))
print(socket.getnameinfo(("192.0.2.1", 80), socket.NI_NUMERICSERV))
for name in ("no.x.test.", "failing.x.test."):
    try: socket.getaddrinfo(name, 80)
    except socket.gaierror as error: print(error.errno)
"""
    lines = python(proxy.url(), code)
    assert lines[0] == "['2001:db8::1', '192.0.2.1']"
    assert lines[1].startswith("('www.x.test', ") and "192.0.2.1" in lines[1]
    assert lines[2:] == ["('www.x.test', '80')", str(socket.EAI_NONAME), str(socket.EAI_AGAIN)]


@pytest.mark.parametrize("server", ["192.0.2.53", "127.0.0.53", "2001:db8::53"])
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_dig_is_served_whichever_server_it_asks(proxy, server, transport):
    done = run(proxy.url(), "dig", f"@{server}", transport, "+tries=1", f"+time={DEADLINE}", "www.x.test", "A", "+short")
    assert done.stdout.split() == ["192.0.2.1"], done
    done = run(proxy.url(), "dig", f"@{server}", transport, "+tries=1", f"+time={DEADLINE}", "big.x.test", "TXT", "+short")
    assert len(done.stdout.splitlines()) == 40, done


def test_verbose_tells_what_was_found(proxy):
    done = run(proxy.url(), sys.executable, "-c", "import socket; socket.gethostbyname('only4.x.test')", options=["-v"])
    assert re.search(r"socks6 run: python3[^ ]*\[\d+\]: only4\.x\.test: 192\.0\.2\.4 \(the proxy's DNS service\)", done.stderr)
    done = run(proxy.url(), "dig", "@192.0.2.53", "www.x.test", "+short", options=["-v"])
    assert "query for www.x.test. A: NOERROR, 1 records" in done.stderr
