"""A wrong configuration of each kind: FILE:LINE:COLUMN, what is wrong and what to write instead; checked, at start and at reload."""

import os
import subprocess

import pytest

from lib import socks6 as s6
from lib.clients import noop6
from lib.daemon import daemon_binary, environment, run_daemon, write_config
from lib.net import DEADLINE

SAMPLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../contrib/socks6d.yaml")

# name -> (file, where, what is wrong, what to write instead)
WRONG = {
    "unknown key": ("listeners:\n  - address: 127.0.0.1:0\nlimits:\n  conections: 5\n", "4:3",
                    "unknown key 'conections'", "write 'connections'"),
    "key of a later version": ("metrics:\n  listen: [127.0.0.1]\n", "1:1", "unknown key 'metrics'", "remove it"),
    "duplicate key": ("workers: 1\nopen: true\nworkers: 2\n", "3:1", "'workers' is already at line 1, column 1",
                      "remove one of the two"),
    "duplicate listener": ("listeners:\n  - address: 127.0.0.1:4000\n  - address: 127.0.0.1:4000\n", "3:14",
                           "already at line 2, column 14", "remove one of the two"),
    "bad network": ("rules:\n  - allow: {to: [192.0.2.1, 10.0.0.5/8]}\n", "2:29", "'10.0.0.5/8' has bits set behind its prefix",
                    "write 10.0.0.0/8 for the network, or 10.0.0.5 for the one address"),
    "prefix too long": ("rules:\n  - allow: {from: 10.0.0.0/33}\n", "2:19", "'33' is not the length of an IPv4 prefix",
                        "write a number from 0 to 32"),
    "port 70000": ("listeners:\n  - address: 127.0.0.1:70000\n", "2:14", "'70000' is not a port", "from 1 to 65535"),
    "port 70000 in a rule": ("rules:\n  - deny: {ports: [80, 70000]}\n", "2:24", "'70000' is not a port", "from 1 to 65535"),
    "reversed ports": ("rules:\n  - deny: {ports: 9000-8000}\n", "2:19", "'9000-8000' runs backwards", "write 8000-9000"),
    "cyclic alias": ("a: &x [1, *x]\n", "1:4", "anchors ('&x') are not taken", "write the value out"),
    "alias": ("rules:\n  - allow: {to: *x}\n", "2:17", "aliases ('*x') are not taken", "in quotes"),
    "pattern without quotes": ("rules:\n  - allow: {to: [*.example.org]}\n", "2:18", "'*' begins an alias", "\"*.example.org\""),
    "IPv6 without quotes": ("listeners:\n  - address: [::]:1080\n", "2:14", "YAML reads this IPv6 address as something else",
                            "\"[::]:1080\""),
    "tag": ("workers: !!int 4\n", "1:10", "tags", "write the value alone"),
    "open bracket": ("rules: []\nlisteners: [\n", "2:12", "the bracket that begins here does not end", "close it"),
    "a tab": ("limits:\n\tidle: 5s\n", "2:1", "a tab", "indent with spaces"),
    "time without unit": ("limits: {idle: 10}\n", "1:16", "'10' has no unit", "ms, s, m, h or d"),
    "wrong kind": ("listeners: 127.0.0.1:1080\n", "1:12", "expected a list", "- address: 127.0.0.1:1080"),
    "no list left": ("rules:\n  - deny: {to: []}\n", "2:16", "an empty list", "remove the key"),
    "open proxy": ("listeners:\n  - address: 0.0.0.0:0\n", "2:14", "0.0.0.0:0 would be open to everybody", "'open: true'"),
    "escape sequence": ("workers: \"\\e]0;owned\\a\"\n", "1:10", "'\\x1b]0;owned\\x07' is not a number", "'auto'"),
}


def assert_error(text, path, where, wrong, instead):
    assert text.startswith(f"{path}:{where}: "), text
    assert wrong in text and instead in text, text
    assert text.endswith("\n") and text.count("\n") == 1, "one line"
    assert all(c == "\n" or 0x20 <= ord(c) < 0x7f for c in text), repr(text)


@pytest.mark.parametrize("name", WRONG)
def test_a_check_says_where_and_what_to_write(tmp_path, name):
    config, where, wrong, instead = WRONG[name]
    path = write_config(tmp_path, config)
    done = run_daemon("-t", "-c", path)
    assert (done.returncode, done.stdout) == (1, "")
    assert_error(done.stderr, path, where, wrong, instead)


def test_it_does_not_start_with_an_error(tmp_path):
    config, where, wrong, instead = WRONG["unknown key"]
    path = write_config(tmp_path, config)
    for args in ((), ("--print-config",), ("-l", "127.0.0.1:0")):
        done = run_daemon("-c", path, *args)
        assert (done.returncode, done.stdout) == (1, "")
        assert_error(done.stderr, path, where, wrong, instead)


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "missing.yaml"
    for args in ((), ("-t",)):
        done = run_daemon("-c", str(path), *args)
        assert (done.returncode, done.stderr) == (1, f"{path}: No such file or directory\n")
    done = run_daemon("-t", "-c", str(tmp_path))
    assert (done.returncode, done.stderr) == (1, f"{tmp_path}: Is a directory\n")


def test_a_file_without_end_is_refused():
    done = run_daemon("-t", "-c", "/dev/zero")
    assert (done.returncode, done.stderr) == (1, "/dev/zero: longer than 1048576 bytes; no configuration is\n")


@pytest.mark.parametrize("name", ["unknown key", "cyclic alias", "bad network", "escape sequence"])
def test_a_reload_says_the_same_and_changes_nothing(daemon, name):
    config, where, wrong, instead = WRONG[name]
    proxy = daemon(log_format="text")
    line = proxy.reload(config, good=False)
    assert f"{proxy.config_path}:{where}: " in line and wrong in line and instead in line
    assert noop6(proxy.addr) == s6.SUCCESS


def test_a_wrong_address_on_the_command_line_is_named():
    for value, expected in (
            ("1080", "-l 1080: '1080' is a port alone; write an address before it: 127.0.0.1:1080\n"),
            ("127.0.0.1:70000", "-l 127.0.0.1:70000: '70000' is not a port; write a number from 1 to 65535, or 0 for any free one\n")):
        done = run_daemon("-t", "-l", value)
        assert done.returncode != 0 and done.stderr == expected
    done = run_daemon("-t", "-l", "0.0.0.0:0")
    assert done.returncode != 0 and done.stderr.startswith("-l 0.0.0.0:0: 0.0.0.0:0 would be open to everybody: ")


def test_the_sample_is_valid_and_is_the_default(tmp_path):
    assert run_daemon("-t", "-c", SAMPLE).returncode == 0
    empty = write_config(tmp_path, "")
    assert run_daemon("--print-config", "-c", SAMPLE).stdout == run_daemon("--print-config", "-c", empty).stdout


def test_the_default_file_is_read_if_it_is_there(isolation):
    """In a mount namespace of its own, where /etc holds nothing else."""
    del isolation
    script = 'mount -t tmpfs tmpfs /etc && { [ -z "$2" ] || printf "%s" "$2" >/etc/socks6d.yaml; } && exec "$1" --print-config'
    outputs = {}
    for text in ("", "workers: 7\n", "wokers: 7\n"):
        done = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", daemon_binary(), text], capture_output=True, text=True,
                              env=environment(), timeout=DEADLINE, check=False)
        outputs[text] = done
    assert outputs[""].returncode == 0 and "workers: auto" in outputs[""].stdout
    assert outputs["workers: 7\n"].returncode == 0 and "workers: 7" in outputs["workers: 7\n"].stdout
    wrong = outputs["wokers: 7\n"]
    assert wrong.returncode == 1 and wrong.stderr.startswith("/etc/socks6d.yaml:1:1: unknown key 'wokers'; write 'workers'")
