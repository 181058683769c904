"""The rows of `./dev bench rtt`: who is asked how, and which rule costs what is more than one round trip on each leg."""
from dataclasses import dataclass

USER, PASSWORD = "alice", "correct-horse-battery"


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    proxy: tuple = None  # the program and what it is to do; None: no proxy
    protocol: str = ""
    warm: bool = False  # the client has met the proxy before; else it knows nothing of it
    client_tfo: bool = False
    server_tfo: bool = False
    tls: bool = False
    early_data: bool = False
    by_script: bool = False  # the client is first_byte.py, not `socks6 connect`
    costs: tuple = ()  # (leg, why): what it takes beyond C + S

    @property
    def round_trips(self):
        """(those between client and proxy, those between proxy and server) that the rules ask for."""
        return tuple(1 + sum(leg == each for each, _ in self.costs) for leg in ("C", "S"))


TCP_PROXY = ("C", "TCP's handshake with the proxy comes before the first byte to it")
TCP_SERVER = ("S", "TCP's handshake with the server comes before the first byte to it: the client did not ask for Fast Open there, "
                   "whose data a server may get twice")
GREETING = ("C", "SOCKS 5: the request waits for the choice of a method")
REPLY = ("C", "SOCKS 5: data waits for the reply to the request")
RFC1929 = ("C", "SOCKS 5: name and password are a round trip of their own (RFC 1929)")
NO_COOKIE = ("C", "Fast Open: no cookie of the proxy's yet, so the SYN can carry no data")
NO_TOKEN = ("C", "the request came in a SYN and spends no token: anybody could have repeated it, so it waits for the end of the "
                 "handshake (tfo_without_token: wait)")
TLS_HANDSHAKE = ("C", "TLS 1.3's handshake comes before the request, which is no early data: it spends no token, or early data is "
                      "off")


def needs_of(row):
    """What the row cannot be measured without, by name."""
    if row.proxy is None:
        return
    if row.proxy[0] != "socks6d":
        yield row.proxy[0]
        return
    if "password" in row.proxy:
        yield "password"
    if row.tls:
        yield "tls"
    if row.early_data:
        yield "early data"
    if row.by_script:
        return
    if row.warm:
        yield "sessions"
    if row.client_tfo:
        yield "client Fast Open"
    if row.server_tfo:
        yield "option Fast Open"


def others():
    both = (("C", "TCP's handshake with the server comes before the first byte, over both legs"), ("S", ""))
    yield Row("direct", "direct", costs=both)
    yield Row("direct-tfo", "direct, TCP Fast Open", warm=True, client_tfo=True)
    socks5 = (TCP_PROXY, GREETING, TCP_SERVER, REPLY)
    yield Row("dante", "SOCKS 5, dante", ("dante",), "socks5", costs=socks5)
    yield Row("microsocks", "SOCKS 5, microsocks", ("microsocks",), "socks5", costs=socks5)
    yield Row("microsocks-password", "SOCKS 5 with a password, microsocks", ("microsocks", "password"), "socks5",
              costs=(*socks5, RFC1929))
    yield Row("socks5", "SOCKS 5, socks6d", ("socks6d",), "socks5", costs=socks5)


LEGS = {"": (False, False), "-client-tfo": (True, False), "-server-tfo": (False, True), "-tfo": (True, True)}
LEG_TITLES = {"": "", "-client-tfo": ", Fast Open to the proxy", "-server-tfo": ", Fast Open to the server",
              "-tfo": ", Fast Open on both legs"}


def socks6(legs, warm, password, transport):
    client_tfo, server_tfo = LEGS[legs]
    costs = []
    if not client_tfo:
        costs.append(TCP_PROXY)
    elif not warm:
        costs.append(NO_COOKIE)
    if transport == "tls" or transport == "early data" and not warm:
        costs.append(TLS_HANDSHAKE)
    if not server_tfo:
        costs.append(TCP_SERVER)
    name = "-".join(["socks6", *(["password"] if password else []), *([transport.replace(" ", "-")] if transport else []),
                     "warm" if warm else "cold"]) + legs
    title = ("SOCKS 6" + (" with a password" if password else "") + {"": "", "tls": ", TLS", "early data": ", TLS with early data"}[
        transport] + (", warm" if warm else ", cold") + LEG_TITLES[legs])
    return Row(name, title, ("socks6d", *(["password"] if password else []), *(["tls"] if transport else [])), "socks6", warm,
               client_tfo, server_tfo, bool(transport), transport == "early data", costs=tuple(costs))


def scripted():
    """What the daemon does for a client that starts no session: the request in one segment, or in the SYN."""
    for legs, (client_tfo, server_tfo) in LEGS.items():
        costs = [NO_TOKEN if client_tfo else TCP_PROXY, *([] if server_tfo else [TCP_SERVER])]
        yield Row("socks6-tokenless" + legs, "SOCKS 6 without a session" + LEG_TITLES[legs], ("socks6d",), "socks6", True,
                  client_tfo, server_tfo, by_script=True, costs=tuple(costs))
    yield Row("socks6-tokenless-act-tfo", "SOCKS 6 without a session, Fast Open on both legs, tfo_without_token: act",
              ("socks6d", "act"), "socks6", True, True, True, by_script=True)


def rows_for(has):
    """All rows, in the order of the table; `has` says what the build knows (cold rows need no Fast Open of the client)."""
    del has
    rows = [*others(), *scripted()]
    for transport in ("", "tls", "early data"):
        for password in (False, True):
            for warm in (False, True):
                for legs in LEGS:
                    if transport == "early data" and not warm:
                        continue  # there is no early data without a ticket: as TLS, cold
                    rows.append(socks6(legs, warm, password, transport))
    return rows
