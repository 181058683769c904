"""The program `socks6 probe`: scripted SOCKS 6 proxies of each revision, socks6d, and the proxies of others."""

import json
import re
import subprocess

import pytest

import probe_peers as peers
from cli_peers import DEADLINE, Peer, Proxy5, client_environment, client_path, closed_port, read_to_end
from lib import socks6 as s6
from lib.isolate import NetNs
from lib.net import DIES_WITH_US, free_low_port
from lib.servers import end, wait_for_port
from probe_peers import ProbedProxy


def run(*args, env=None, wrapper=(), timeout=DEADLINE):
    return subprocess.run([*wrapper, client_path(), "probe", *map(str, args)], env=client_environment(**(env or {})),
                          capture_output=True, text=True, timeout=timeout, check=False)


def probe(*args, **more):
    """The JSON of a run that is one, with its exit status inside."""
    done = run("--json", *args, **more)
    assert done.stderr == "", done.stderr
    report = json.loads(done.stdout)
    assert report["exit_status"] == done.returncode
    assert done.stdout.isascii() and done.stdout.count("\n") == 1
    return report


def states(report, *keys):
    return [report["checks"][key]["state"] for key in keys]


def state(report, key):
    return report["checks"][key]["state"]


def text(report, key):
    return report["checks"][key]["text"]


STACK = {"stack.tos.client_proxy": peers.TOS, "stack.tos.proxy_remote": peers.TOS,
         "stack.happy_eyeballs": peers.HAPPY_EYEBALLS, "stack.ttl.client_proxy": peers.TTL,
         "stack.ttl.proxy_remote": peers.TTL, "stack.no_fragmentation.client_proxy": peers.NO_FRAGMENTATION,
         "stack.no_fragmentation.proxy_remote": peers.NO_FRAGMENTATION, "stack.fast_open": peers.FAST_OPEN,
         "stack.multipath": peers.MULTIPATH, "stack.listen_backlog": peers.BACKLOG, "stack.udp_error": peers.UDP_ERROR,
         "stack.port_parity": peers.PORT_PARITY}


# Revisions ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draft", [8, 9, 10, 11, 12])
def test_revisions_are_told_apart(draft):
    with ProbedProxy(draft) as proxy:
        report = probe(proxy.url())
    fits = report["checks"]["revision.draft"]["list"]
    assert fits == {9: [9, 10]}.get(draft, [draft]), text(report, "revision.draft")
    assert report["exit_status"] == 0 and report["looks_like"] == "socks6-proxy"
    assert state(report, "revision.names_11") == ("no" if draft == 12 else "yes")
    assert state(report, "revision.names_12") == ("yes" if draft == 12 else "no")
    assert state(report, "revision.options_20k") == ("yes" if draft == 12 else "no")
    assert state(report, "revision.udp_framing") == ("no" if draft == 8 else "yes")


def test_two_readings_of_revision_9_and_10_are_told_by_port_parity():
    with ProbedProxy(10, stack=[peers.TTL, peers.PORT_PARITY]) as proxy:
        assert probe(proxy.url())["checks"]["revision.draft"]["list"] == [10, 11]


@pytest.mark.parametrize("draft", [8, 9, 10, 11, 12])
def test_every_stack_option_of_a_revision_is_seen(draft):
    with ProbedProxy(draft) as proxy:
        report = probe(proxy.url())
    for key, option in STACK.items():
        assert state(report, key) == ("yes" if draft >= peers.SINCE[option] else "no"), (key, text(report, key))
    assert report["checks"]["stack.ttl.proxy_remote"]["value"] == (None if draft < 9 else 63)
    assert report["checks"]["stack.fast_open"]["value"] == 12


def test_a_proxy_that_contradicts_itself_is_said_to():
    with ProbedProxy(11, values={peers.NO_FRAGMENTATION: b"\0\0"}) as proxy:
        report = probe(proxy.url())
    assert state(report, "revision.draft") == "unknown" and report["checks"]["revision.draft"]["list"] == []
    assert "no single revision" in text(report, "revision.draft")


def test_answers_that_differ_from_the_question_are_told():
    values = {peers.TOS: b"\x08\0", peers.TTL: b"\x40\0", peers.HAPPY_EYEBALLS: b"\x01\0", peers.MULTIPATH: b"\x01\0",
              peers.NO_FRAGMENTATION: b"\x01\0", peers.FAST_OPEN: b"\0\0", peers.BACKLOG: b"\0\0",
              peers.UDP_ERROR: b"\x01\0", peers.PORT_PARITY: b"\x02\0"}
    with ProbedProxy(11, values=values) as proxy:
        report = probe(proxy.url())
    for key, option in STACK.items():
        # a TFO option without data in the SYN is one that was honoured all the same
        assert state(report, key) == ("yes" if option == peers.FAST_OPEN else "no"), key
        assert text(report, key).startswith("understood"), key
        assert report["checks"][key]["value"] is not None
    assert report["exit_status"] == 0


@pytest.mark.parametrize("option, value", [(peers.HAPPY_EYEBALLS, b"\x03\0"), (peers.MULTIPATH, b"\0\0"),
                                           (peers.PORT_PARITY, b"\x07\0"), (peers.PORT_PARITY, b"\x01\x02"),
                                           (peers.BACKLOG, b"\0\x09"), (peers.NO_FRAGMENTATION, b"\xff\0")])
def test_values_that_mean_nothing_are_defects(option, value):
    with ProbedProxy(11, values={option: value}) as proxy:
        report = probe(proxy.url())
    assert {state(report, key) for key, one in STACK.items() if one == option} == {"broken"}
    assert report["exit_status"] == 1 and "the protocol" in report["summary"]


def test_a_proxy_that_chokes_on_many_options_is_asked_for_each_alone():
    with ProbedProxy(11, chokes=True) as proxy:
        report = probe(proxy.url())
    assert states(report, "stack.tos.client_proxy", "stack.ttl.proxy_remote", "stack.multipath") == ["yes"] * 3


# What is offered, and what is not -------------------------------------------------------------------------------------


def test_a_bare_proxy_offers_nothing_and_can_be_used():
    with ProbedProxy(11, stack=[], sessions=False, dns=False, bind=False, udp=False) as proxy:
        report = probe(proxy.url())
    assert report["exit_status"] == 0
    assert set(states(report, *STACK)) == {"no"}
    assert states(report, "dns.ipv4", "dns.ipv6", "session.start", "command.bind", "command.udp_associate") == ["no"] * 5
    assert states(report, "session.resume", "session.tokens", "session.teardown") == ["skipped"] * 3
    assert "not offered" in text(report, "dns.ipv4") and "not offered" in text(report, "command.bind")
    assert report["checks"]["command.bind"]["value"] == 7 and report["checks"]["dns.ipv4"]["value"] == 5


def test_sessions_and_tokens_are_tried():
    with ProbedProxy(11) as proxy:
        report = probe(proxy.url())
    assert states(report, "session.start", "session.resume", "session.tokens", "session.teardown") == ["yes"] * 4
    assert report["checks"]["session.start"]["value"] == 16 and report["checks"]["session.tokens"]["value"] == 16
    assert proxy.session is None, "the probe ends what it has begun"
    spent = [dict(options)[s6.EXPENDITURE] for _, _, _, options in proxy.requests if s6.EXPENDITURE in dict(options)]
    assert spent[:2] == [b"\0\0\0\x64"] * 2, "the lowest token of the window, twice"
    assert spent[2:] == [b"\0\0\0\x64"], "and once, in a session of its own, on the warm way"
    assert report["checks"]["time.cold"]["value"] == 2 and report["checks"]["time.warm"]["value"] == 2
    assert "in a session with a token" in text(report, "time.warm")


def test_ways_cold_and_warm_without_sessions():
    with ProbedProxy(11, sessions=False) as proxy:
        report = probe(proxy.url())
    for key in ("time.cold", "time.warm"):
        assert report["checks"][key]["value"] == 2 and "session" not in text(report, key)


def test_a_session_without_tokens():
    with ProbedProxy(11, no_window=True) as proxy:
        report = probe(proxy.url())
    assert states(report, "session.start", "session.resume", "session.tokens") == ["yes", "yes", "no"]


@pytest.mark.parametrize("change, key", [({"spends_twice": True}, "session.tokens"), ({"immortal": True}, "session.teardown"),
                                         ({"silent_session": True}, "session.resume")])
def test_broken_sessions_are_defects(change, key):
    with ProbedProxy(11, **change) as proxy:
        report = probe(proxy.url())
    assert state(report, key) == "broken", text(report, key)
    assert report["exit_status"] == 1


def test_a_session_id_in_the_operation_reply_is_taken_and_told():
    with ProbedProxy(11, id_in_reply=True) as proxy:
        report = probe(proxy.url())
    assert state(report, "session.start") == "yes" and "Operation Reply" in text(report, "session.start")


def test_an_untrusted_session_gets_the_login_and_dates_the_proxy():
    with ProbedProxy(11, users={"u": "p"}, untrusted=True, stack=[]) as proxy:
        report = probe(proxy.url("u:p@"))
        in_session = [options for _, _, _, options in proxy.requests if s6.SESSION_ID in dict(options)]
    assert "untrusted" in text(report, "session.start")
    assert in_session and all(s6.AUTH_DATA in dict(options) for options in in_session)
    assert report["checks"]["revision.draft"]["list"] == [9]


def test_dns_is_asked_for_the_root_or_a_name():
    with ProbedProxy(11) as proxy:
        report = probe(proxy.url())
        assert proxy.query[12:] == b"\0\0\x02\0\x01"
        assert "NOERROR, 2 records" in text(report, "dns.ipv4") and report["checks"]["dns.ipv6"]["ms"] >= 0
        probe("--dns-name", "www.Example.org.", proxy.url())
        assert proxy.query[12:] == b"\x03www\x07Example\x03org\0\0\x01\0\x01"


@pytest.mark.parametrize("answer", [b"", b"\0\0\x81\x80", b"x" * 12])
def test_dns_answers_that_are_none_are_defects(answer):
    with ProbedProxy(11, dns_answer=answer) as proxy:
        assert states(probe(proxy.url()), "dns.ipv4", "dns.ipv6") == ["broken", "broken"]


def test_a_udp_association_that_never_begins_is_a_defect():
    with ProbedProxy(11, no_association=True) as proxy:
        report = probe(proxy.url())
    assert states(report, "command.udp_associate", "revision.udp_framing") == ["yes", "broken"]


# Authentication -------------------------------------------------------------------------------------------------------


def test_a_login_that_is_wanted_and_not_there():
    with ProbedProxy(11, users={"u": "p"}, selects=[2, 1]) as proxy:
        report = probe(proxy.url())
    assert report["exit_status"] == 3 and "wants a login" in report["summary"]
    assert report["checks"]["auth.socks6_methods"]["list"] == [2, 1]
    assert "user name and password, GSSAPI" in text(report, "auth.socks6_methods")
    assert state(report, "command.connect") == "skipped"


def test_a_login_that_is_good():
    with ProbedProxy(12, users={"alice": "hunter2"}) as proxy:
        report = probe(proxy.url("alice@"), env={"SOCKS6_PASSWORD": "hunter2"})
    assert report["exit_status"] == 0 and state(report, "auth.login") == "yes"
    assert state(report, "session.resume") == "yes" and "without a login" in text(report, "session.resume")


def test_a_login_that_is_bad_is_not_shown():
    with ProbedProxy(11, users={"u": "p"}) as proxy:
        done = run("-v", proxy.url("u:hunter2@"))
    assert done.returncode == 3 and "refuses this user name" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_a_login_goes_to_nobody_who_has_not_answered():
    got = []

    def listen(sock):
        got.append(read_to_end(sock))
    with peers.Anything(listen) as stranger:
        done = run("--timeout", 1, f"socks6://bob:hunter2@127.0.0.1:{stranger.port}")
    assert done.returncode == 3 and got and not any(b"hunter2" in data or b"bob" in data for data in got)


def test_a_selection_that_was_not_offered_is_a_defect():
    with ProbedProxy(11, users={"u": "p"}) as proxy:
        proxy.change["selects"] = ()
        proxy._refuse = lambda sock, options=b"": sock.sendall(  # pylint: disable=protected-access
            s6.auth_reply(1, s6.option(s6.SELECTION, b"\x63")))
        report = probe(proxy.url())
    assert state(report, "auth.socks6_methods") == "broken" and "99" in text(report, "auth.socks6_methods")


# Targets and exit status ----------------------------------------------------------------------------------------------


def test_without_a_target_only_the_proxy_itself_is_asked_for():
    with ProbedProxy(11) as proxy:
        report = probe(proxy.url())
        hosts = set(proxy.asked_hosts)
        own = {("127.0.0.1", proxy.port), ("localhost", proxy.port), ("localhost\0\0", proxy.port)}
    assert hosts == own | {("0.0.0.0", 53), ("::", 53)}
    assert report["target"] == f"127.0.0.1:{proxy.port}" and report["target_is_default"]


def test_a_target_is_connected_to_and_gets_no_byte():
    got = []
    with Peer(lambda sock: got.append(read_to_end(sock))) as server, ProbedProxy(11) as proxy:
        report = probe("--target", f"web.test:{server.port}", proxy.url())
    assert report["exit_status"] == 0 and not report["target_is_default"]
    assert got and set(got) == {b""}
    assert ("web.test", server.port) in proxy.asked_hosts and ("127.0.0.1", proxy.port) not in proxy.asked_hosts
    assert report["checks"]["command.connect"]["value"] == 0


def test_a_target_that_refuses_is_status_1():
    with closed_port() as closed, ProbedProxy(11) as proxy:
        report = probe("--target", f"127.0.0.1:{closed.getsockname()[1]}", proxy.url())
    assert report["exit_status"] == 1 and "connection refused (reply 5)" in report["summary"]
    assert state(report, "command.connect") == "no" and report["checks"]["command.connect"]["value"] == 5


def test_a_proxy_whose_rules_refuse_itself_can_still_be_used():
    with ProbedProxy(11, connect_code=2) as proxy:
        report = probe(proxy.url())
    assert report["exit_status"] == 0 and "--target" in report["summary"]
    assert states(report, "command.connect", "stack.ttl.proxy_remote") == ["unknown", "unknown"]


def test_a_proxy_without_connect_is_status_1():
    with ProbedProxy(11, connect_code=7) as proxy:
        report = probe(proxy.url())
    assert report["exit_status"] == 1 and state(report, "command.connect") == "no"


def test_time_runs_out_and_is_said_to():
    """Nothing but the plain NOOP and CONNECT is answered: each other question takes its quarter, and what is left is not asked."""
    def talk(sock):
        if sock.recv(1, peers.socket.MSG_PEEK) == b"\x06" and sock.recv(65536)[2:4] == b"\0\0":
            sock.sendall(s6.auth_reply() + s6.op_reply(0))
        read_to_end(sock)
    with peers.Anything(talk) as proxy:
        report = probe("--timeout", 2, proxy.url())
    assert not report["complete"] and report["exit_status"] == 1 and "time ran out" in report["summary"]
    assert any("the time ran out" in check["text"] for check in report["checks"].values())


def test_the_first_connection_that_works_is_used():
    with ProbedProxy(11, host="127.0.0.1") as proxy:
        assert probe(f"localhost:{proxy.port}")["exit_status"] == 0
        assert probe("-6", f"localhost:{proxy.port}")["exit_status"] == 3


# Malformed answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply, words", [
    (b"\x05\0\0\0\0\0\0\x01\0\0\0\0", "Operation Reply: starts with byte 5, not with version 6"),
    (b"\x06\0\0\0\0\0\0\x02\0\0\0\0", "Operation Reply: address type 2 is not known"),
    (b"\x06\0\0\x08\0\0\0\x01\0\0\0\0\0\x01\0\x10\0\0\0\0",
     "Operation Reply: option kind 1 has length 16, but only 8 bytes of options are left"),
    (b"\x06\0\x60\0\0\0\0\x01\0\0\0\0", "Operation Reply: 24576 bytes of options, more than the draft's 20480"),
    (b"\x06\0\0\0\0\0\0\x03\0\0\0\0", "Operation Reply: an empty domain name as address"),
])
def test_the_place_of_a_malformation_is_told(reply, words):
    with ProbedProxy(11, reply=reply) as proxy:
        report = probe("--timeout", 4, proxy.url())
    assert text(report, "version.socks6") == words and state(report, "version.socks6") == "broken"
    assert report["exit_status"] == 3 and words in report["summary"]


def test_a_broken_connect_reply_is_status_3():
    with ProbedProxy(11) as proxy:
        proxy._connect = lambda sock, *_: sock.sendall(b"\x07")  # pylint: disable=protected-access
        report = probe(proxy.url())
    assert report["exit_status"] == 3 and state(report, "command.connect") == "broken"


def test_an_option_of_odd_length_is_told_and_does_no_harm():
    """As one public proxy answers to a login."""
    with ProbedProxy(11, auth_options=b"\0\x04\0\x07\x02\x01\0") as proxy:
        report = probe(proxy.url("u:p@"))
    assert report["exit_status"] == 0
    assert "option kind 4 has length 7" in text(report, "version.socks6") and "length 7" in text(report, "auth.login")


# Times ----------------------------------------------------------------------------------------------------------------


def test_times_are_told_in_ms_and_in_round_trips():
    with ProbedProxy(11) as proxy:
        report = probe(proxy.url())
    for key in ("time.noop", "time.connect"):
        check = report["checks"][key]
        assert check["ms"] > 0 and check["round_trips"] > 0 and "round trip" in check["text"]
    assert report["checks"]["time.socks5_connect"]["ms"] is None


# The table ------------------------------------------------------------------------------------------------------------


def test_the_table_has_a_row_per_check_and_a_sentence_on_top():
    with ProbedProxy(11) as proxy:
        done = run(proxy.url())
        report = probe(proxy.url())
    lines = done.stdout.splitlines()
    assert lines[0] == f"127.0.0.1:{proxy.port}: this is a SOCKS 6 proxy, and can be used."
    rows = [line for line in lines if re.match(r"  \S.{23,}", line)]
    assert len(rows) == len(report["checks"])
    assert all(len(line) < 200 and line.isprintable() for line in lines)


def test_the_keys_of_the_json_are_those_of_the_manual_page():
    with open(f"{peers.os.path.dirname(__file__)}/../../man/socks6.1.scd", encoding="utf-8") as page:
        documented = set(re.findall(r"^\*([a-z0-9]+\.[a-z0-9_.]+)\*", page.read(), re.MULTILINE))
    with ProbedProxy(11) as proxy:
        assert documented == set(probe(proxy.url())["checks"])


def test_what_is_asked_is_said_with_v():
    with ProbedProxy(11) as proxy:
        done = run("-v", "-x", proxy.url())
    assert "socks6: probe: asking a NOOP of SOCKS 6\n" in done.stderr and "using the proxy of -x" in done.stderr


def test_standard_output_that_is_full_is_an_error():
    with ProbedProxy(11) as proxy, open("/dev/full", "wb") as full:
        done = subprocess.run([client_path(), "probe", proxy.url()], env=client_environment(), stdout=full,
                              stderr=subprocess.PIPE, timeout=DEADLINE, check=False)
    assert done.returncode == 1 and b"standard output" in done.stderr


# Usage ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args, words", [
    (["a", "b"], "a word too many: 'b'"), (["-x", "socks6://a", "b"], "named twice"), (["--target", "x"], "HOST:PORT"),
    (["--target", "::1:80"], "brackets"), (["--target", ":80"], "HOST:PORT"), (["--target", "[::1]:0"], "HOST:PORT"),
    (["--timeout", "0"], "--timeout"), (["--timeout", "3601"], "--timeout"), (["--timeout", "1x"], "--timeout"),
    (["--dns-name", "a..b"], "not a domain name"), (["--dns-name", ""], "not a domain name"), (["-4", "-6"], "exclude"),
    (["http://x"], "proxy URL"), (["--jsn"], "unknown option '--jsn'"), (["x" * 5000], "too long")])
def test_usage(args, words):
    done = run(*args)
    assert done.returncode == 2 and words in done.stderr and done.stdout == "", done.stderr


def test_help_names_every_option():
    done = run("--help")
    assert done.returncode == 0
    for option in ("-4", "-6", "--dns-name", "--json", "--target", "--timeout", "-v"):
        assert option in done.stdout


def test_the_proxy_is_found_as_by_every_subcommand():
    with ProbedProxy(11) as proxy:
        done = run("--json", env={"SOCKS6_PROXY": proxy.url()})
        assert json.loads(done.stdout)["proxy"] == f"127.0.0.1:{proxy.port}"


# Real proxies ---------------------------------------------------------------------------------------------------------


def test_socks6d(proxy):
    host, port = proxy.addr[:2]
    report = probe(f"socks6://{host}:{port}")
    assert report["exit_status"] == 0 and report["looks_like"] == "socks6-proxy"
    assert states(report, "version.socks6", "version.socks5", "version.socks4a", "version.socks4", "command.noop",
                  "command.connect", "command.connect_name", "command.socks5_connect", "auth.socks6_methods",
                  "auth.socks5_methods", "revision.names_11", "revision.names_12", "revision.options_20k") == ["yes"] * 13
    broken = [key for key, check in report["checks"].items() if check["state"] == "broken"]
    assert broken == [] and report["complete"]


def test_socks6d_that_refuses_a_target(proxy, daemon):
    with closed_port() as closed:
        port = closed.getsockname()[1]
        assert probe("--target", f"127.0.0.1:{port}", "{}:{}".format(*proxy.addr[:2]))["exit_status"] == 1
    one = daemon(rules=[{"deny": {"to": ["127.0.0.0/8"]}}])
    report = probe("{}:{}".format(*one.addr[:2]))
    assert report["exit_status"] == 0 and report["checks"]["command.connect"]["value"] == 2


def test_socks6d_without_socks6(daemon):
    one = daemon(listeners=[{"address": "127.0.0.1:0", "protocols": ["socks5"]}])
    report = probe("socks6://{}:{}".format(*one.addr[:2]))
    assert report["exit_status"] == 3 and "SOCKS 5 proxy" in report["summary"] and "socks5h://" in report["summary"]
    assert states(report, "version.socks6", "version.socks5", "version.socks4") == ["no", "yes", "no"]
    assert probe("socks5h://{}:{}".format(*one.addr[:2]))["exit_status"] == 0
    assert probe("{}:{}".format(*one.addr[:2]))["exit_status"] == 0, "without a scheme any version will do"


def test_microsocks():
    port = free_low_port()
    process = subprocess.Popen([*DIES_WITH_US, "microsocks", "-i", "127.0.0.1", "-p", str(port), "-u", "me", "-P", "secret"],
                               stderr=subprocess.PIPE)
    try:
        wait_for_port(process, port)
        report = probe(f"socks5h://me:secret@127.0.0.1:{port}")
        assert report["exit_status"] == 0 and report["looks_like"] == "socks5-proxy"
        assert states(report, "version.socks6", "version.socks5", "version.socks4", "auth.login") == ["no", "yes", "no", "yes"]
        assert report["checks"]["auth.socks5_methods"]["list"] == [2]
        report = probe(f"127.0.0.1:{port}")
        assert report["exit_status"] == 3 and "wants a login" in report["summary"]
    finally:
        end(process)


def test_dante(tmp_path, echo):
    port = free_low_port()
    config = tmp_path / "danted.conf"
    config.write_text(f"logoutput: stderr\ninternal: 127.0.0.1 port = {port}\nexternal: 127.0.0.1\n"
                      "clientmethod: none\nsocksmethod: none\nuser.notprivileged: nobody\n"
                      "client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }\nsocks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }\n")
    process = subprocess.Popen([*DIES_WITH_US, "danted", "-f", str(config), "-p", str(tmp_path / "pid")],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_for_port(process, port)
        assert probe(f"127.0.0.1:{port}")["exit_status"] == 0, "it does not connect to itself, and can be used"
        report = probe("--target", f"127.0.0.1:{echo.port}", f"socks5h://127.0.0.1:{port}")
        assert report["exit_status"] == 0 and report["looks_like"] == "socks5-proxy"
        assert states(report, "version.socks6", "version.socks5", "version.socks4", "auth.socks5_methods",
                      "command.socks5_connect") == ["no", "yes", "yes", "yes", "yes"]
    finally:
        end(process)


def test_ssh_dynamic_forwarding(sshd, tmp_path):
    port = free_low_port()
    command = sshd.command("none")
    command[1:1] = ["-N", "-D", f"127.0.0.1:{port}"]
    command = [word for word in command if word != "ProxyCommand=none"]
    command.remove("-o")
    process = subprocess.Popen([*DIES_WITH_US, *command], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=tmp_path)
    try:
        wait_for_port(process, port)
        report = probe(f"127.0.0.1:{port}")
        assert report["exit_status"] == 0 and report["looks_like"] == "socks5-proxy"
        assert states(report, "version.socks6", "version.socks5", "version.socks4") == ["no", "yes", "yes"]
    finally:
        end(process)


def test_a_scripted_socks5_proxy_and_its_reply_codes():
    with closed_port() as closed, Proxy5() as proxy:
        report = probe("--target", f"127.0.0.1:{closed.getsockname()[1]}", proxy.url())
        proxy.errors.clear()  # it takes nothing but SOCKS 5, and says so
    assert report["exit_status"] == 1 and "connection refused (reply 5)" in report["summary"]


# TCP Fast Open --------------------------------------------------------------------------------------------------------


def test_fast_open_with_the_proxy_is_seen(isolation):
    del isolation
    ns = NetNs("tfo")
    try:
        ns.sysctl(net__ipv4__tcp_fastopen=3)
        assert fast_open_in(ns, offered=True)["state"] == "yes"
        assert fast_open_in(ns, offered=False)["state"] == "no"
        ns.sysctl(net__ipv4__tcp_fastopen=0)
        check = fast_open_in(ns, offered=False)
        assert check["state"] == "skipped" and "net.ipv4.tcp_fastopen is 0" in check["text"]
    finally:
        ns.holder.stdin.close()
        ns.holder.wait(DEADLINE)


def fast_open_in(ns, offered):
    proxy = ns.call(lambda: ProbedProxy(11, dns=False))
    with proxy:
        if offered:
            proxy.listener.setsockopt(peers.socket.IPPROTO_TCP, peers.socket.TCP_FASTOPEN, 16)
        return probe(proxy.url(), wrapper=ns.wrapper)["checks"]["connection.fast_open"]
