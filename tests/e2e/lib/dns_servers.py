"""DNS servers for tests: Debian's nsd as authority and unbound as resolver over it, and one that does as it is told."""

import contextlib
import os
import socket
import struct
import subprocess
import threading

import dns.edns
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset

from .net import DEADLINE, DIES_WITH_US, free_low_port, wait_until
from .servers import end

HUGE_COUNT = 250  # TXT records of 240 bytes: 60 KB

ZONE = """$ORIGIN dns.example.
$TTL 300
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
@ MX 10 mail
@ CAA 0 issue "ca.example"
ns A 127.0.0.1
mail A 192.0.2.25
www A 192.0.2.1
www A 192.0.2.2
www AAAA 2001:db8::1
alias CNAME www
srv SRV 1 2 443 www
naptr NAPTR 10 20 "u" "E2U+sip" "!^.*$!sip:x@dns.example!" .
_443._tcp.www TLSA 3 1 1 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
svcb SVCB 1 www alpn="h2,h3" port="8443"
https HTTPS 1 . ipv4hint="192.0.2.1" ech="AAAA"
unknown TYPE65280 \\# 6 c00c00ff0102
ptr PTR www
sub DNAME other.dns.example.
x.other A 192.0.2.7
*.wild A 192.0.2.9
@ DNSKEY 257 3 13 mdsswUyr3DPW132mOi8V9xESWE8jTo0dxCjjnopKl+GqJxpVXckHAeF+KkxLbxILfDLUT0rAK9iUzy1L53eKGQ==
signed A 192.0.2.11
signed RRSIG A 13 3 300 20370101000000 20200101000000 12345 dns.example. c2lnbmF0dXJl
@ RRSIG SOA 13 2 300 20370101000000 20200101000000 12345 dns.example. c2lnbmF0dXJl
@ RRSIG DNSKEY 13 2 300 20370101000000 20200101000000 12345 dns.example. c2lnbmF0dXJl
"""


def zone_text():
    big = " ".join(f'"{i:03d}{"y" * 200}"' for i in range(17))
    huge = "\n".join(f'huge TXT "{i:04d}{"z" * 226}"' for i in range(HUGE_COUNT))
    many = "\n".join(f"n{i} A 198.51.100.{i % 256}" for i in range(1000))
    return f"{ZONE}big TXT {big}\n{huge}\n{many}\n"


def make_certificates(directory, name):
    """A CA and a certificate of it for `name`: (ca.pem, cert.pem, key.pem)."""
    def path(file):
        return os.path.join(directory, file)

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *new_key, "-keyout", path("ca.key"), "-out", path("ca.pem"), "-subj", "/CN=test CA", "-days", "2")
    with open(path("ext"), "w", encoding="ascii") as file:
        file.write(f"subjectAltName=DNS:{name},IP:127.0.0.1\n")
    openssl("req", *new_key, "-keyout", path("key.pem"), "-out", path("csr"), "-subj", f"/CN={name}")
    openssl("x509", "-req", "-in", path("csr"), "-CA", path("ca.pem"), "-CAkey", path("ca.key"), "-CAcreateserial",
            "-out", path("cert.pem"), "-days", "2", "-extfile", path("ext"))
    return path("ca.pem"), path("cert.pem"), path("key.pem")


def wait_for_dns(process, port):
    def answers():
        assert process.poll() is None, "the name server has ended"
        try:
            dns.query.tcp(dns.message.make_query(".", "NS"), "127.0.0.1", port=port, timeout=1)
        except (OSError, dns.exception.Timeout, EOFError):
            return False
        return True
    wait_until(answers, "the name server")


class Nsd:
    """The zone dns.example on 127.0.0.1; everything else is REFUSED."""

    def __init__(self, directory):
        directory = str(directory)
        self.port = free_low_port()
        with open(os.path.join(directory, "zone"), "w", encoding="ascii") as file:
            file.write(zone_text())
        config = os.path.join(directory, "nsd.conf")
        with open(config, "w", encoding="ascii") as file:
            file.write(f"""
server:
  ip-address: 127.0.0.1@{self.port}
  zonesdir: "{directory}"
  database: ""
  pidfile: "{directory}/nsd.pid"
  zonelistfile: "{directory}/zone.list"
  xfrdfile: "{directory}/xfrd.state"
  xfrdir: "{directory}"
  username: ""
  server-count: 1
remote-control:
  control-enable: no
zone:
  name: dns.example
  zonefile: zone
""")
        self.process = subprocess.Popen([*DIES_WITH_US, "/usr/sbin/nsd", "-d", "-c", config], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_dns(self.process, self.port)

    def close(self):
        end(self.process)


class Unbound:
    """
    A resolver on 127.0.0.1, `port` and, over TLS, `tls_port`. dns.example is nsd's; questions below hang.example are never
    answered, those below broken.example (nsd does not have it) with SERVFAIL, those below refused.example with REFUSED.
    """
    NAME = "resolver.example.net"

    def __init__(self, directory, authority):
        directory = str(directory)
        self.port, self.tls_port = free_low_port(), free_low_port()
        self.silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # it takes questions and says nothing
        self.silent.bind(("127.0.0.1", 0))
        self.ca, certificate, key = make_certificates(directory, self.NAME)
        config = os.path.join(directory, "unbound.conf")
        with open(config, "w", encoding="ascii") as file:
            file.write(f"""
server:
  directory: "{directory}"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  verbosity: 0
  num-threads: 1
  interface: 127.0.0.1@{self.port}
  interface: 127.0.0.1@{self.tls_port}
  tls-port: {self.tls_port}
  tls-service-key: "{key}"
  tls-service-pem: "{certificate}"
  access-control: 127.0.0.0/8 allow
  do-not-query-localhost: no
  module-config: "iterator"
  rrset-roundrobin: no
  minimal-responses: yes
  incoming-num-tcp: 100
  local-zone: "refused.example." refuse
stub-zone:
  name: "dns.example"
  stub-addr: 127.0.0.1@{authority.port}
stub-zone:
  name: "hang.example"
  stub-addr: 127.0.0.1@{self.silent.getsockname()[1]}
stub-zone:
  name: "broken.example"
  stub-addr: 127.0.0.1@{authority.port}
remote-control:
  control-enable: no
""")
        self.process = subprocess.Popen([*DIES_WITH_US, "/usr/sbin/unbound", "-d", "-c", config],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_dns(self.process, self.port)

    def direct(self, query):
        return dns.query.tcp(query, "127.0.0.1", port=self.port, timeout=DEADLINE)

    def close(self):
        end(self.process)
        self.silent.close()


class Scripted:
    """
    Answers each query with what `answer(query)` returns: a message, None for silence. `queries` is what came. Over UDP and
    TCP on one port, unless told a free one, of `host`. Must be made in the namespace in which it is to serve.
    """

    def __init__(self, answer=None, host="127.0.0.1", port=0):
        self.answer = answer or self.address
        self.queries = []
        self.lock = threading.Lock()
        self.tcp = socket.create_server((host, port))
        self.port = self.tcp.getsockname()[1]
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((host, self.port))
        self.threads = [threading.Thread(target=target, daemon=True) for target in (self._serve_udp, self._serve_tcp)]
        for thread in self.threads:
            thread.start()

    @staticmethod
    def address(query, ttl=300):
        """A and AAAA of loopback for every name."""
        response = dns.message.make_response(query)
        question = query.question[0]
        data = {dns.rdatatype.A: "127.0.0.1", dns.rdatatype.AAAA: "::1"}.get(question.rdtype)
        if data:
            response.answer.append(dns.rrset.from_text(question.name, ttl, "IN", question.rdtype, data))
        return response

    def _take(self, wire):
        query = dns.message.from_wire(wire)
        with self.lock:
            self.queries.append(query)
        response = self.answer(query)
        return response.to_wire() if response is not None else None

    def names(self):
        with self.lock:
            return [str(query.question[0].name) for query in self.queries]

    def _serve_udp(self):
        while True:
            try:
                wire, peer = self.udp.recvfrom(65535)
            except OSError:
                return
            if not wire:
                return  # it was shut down
            response = self._take(wire)
            if response is not None:
                self.udp.sendto(response, peer)

    def _serve_tcp(self):
        while True:
            try:
                connection, _ = self.tcp.accept()
            except OSError:
                return
            threading.Thread(target=self._serve_connection, args=(connection,), daemon=True).start()

    def _serve_connection(self, connection):
        with connection:
            while True:
                try:
                    response = self._take(read_message(connection))
                    if response is not None:
                        connection.sendall(frame(response))
                except (OSError, EOFError):
                    return

    def close(self):
        # First the threads: one that still waits takes what comes to whoever gets the number of its descriptor next.
        for sock in (self.udp, self.tcp):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(DEADLINE)
        self.udp.close()
        self.tcp.close()


# DNS over a stream ----------------------------------------------------------------------------------------------------


def frame(wire):
    return struct.pack("!H", len(wire)) + wire


def read_bytes(sock, count):
    got = bytearray()
    while len(got) < count:
        piece = sock.recv(count - len(got))
        if not piece:
            raise EOFError(f"stream ended after {bytes(got)!r}")
        got += piece
    return bytes(got)


def read_message(sock):
    return read_bytes(sock, struct.unpack("!H", read_bytes(sock, 2))[0])


def ask(sock, query):
    sock.sendall(frame(query.to_wire()))


def read_answer(sock):
    return dns.message.from_wire(read_message(sock))


def asked(sock, query):
    """The answer to one question, with no other in flight."""
    ask(sock, query)
    answer = read_answer(sock)
    assert answer.id == query.id
    return answer


def essence(message):
    """What of a message must be the same however it came: everything but id, TTLs and OPT."""
    def records(section):
        return [(rrset.name.to_text(), rrset.rdtype, rrset.rdclass, sorted(rdata.to_text() for rdata in rrset))
                for rrset in section]
    return (dns.flags.to_text(message.flags), dns.rcode.to_text(message.rcode()), message.question,
            records(message.answer), records(message.authority), records(message.additional))
