"""The program `socks6 passwd`: by standard input, and at a terminal."""

import os
import pty
import re
import signal
import subprocess
import termios

import pytest

from cli_peers import DEADLINE, client_environment, client_path

BASE64 = "[./A-Za-z0-9]"
FORMS = {
    "yescrypt": rf"\$y\$j9T\${BASE64}{{22}}\${BASE64}{{43}}",
    "bcrypt": rf"\$2b\$10\${BASE64}{{53}}",
    "sha512crypt": rf"\$6\$rounds=100000\${BASE64}{{16}}\${BASE64}{{86}}",
}
# What makes a hash quick, for tests that are about something else.
QUICK = ("-m", "bcrypt", "-C", "4")


def passwd(*args, given="", **more):
    """Runs the program without a terminal."""
    return subprocess.run([client_path(), "passwd", *map(str, args)], input=given.encode(), capture_output=True,
                          env=client_environment(), timeout=DEADLINE, check=False, start_new_session=True, **more)


def said(done):
    return done.stderr.decode()


@pytest.fixture
def users(tmp_path):
    """A file with the user alice, whose password is `right`."""
    path = tmp_path / "users"
    assert passwd("-c", "-i", *QUICK, path, "alice", given="right\n").returncode == 0
    return path


def is_right(path, name, password):
    done = passwd("-v", "-i", path, name, given=password + "\n")
    assert done.stdout == b""
    assert done.returncode == (0 if "is right" in said(done) else 1)
    return done.returncode == 0


@pytest.mark.parametrize("method", FORMS)
def test_each_method_makes_a_hash_that_verifies(tmp_path, method):
    path = tmp_path / "users"
    done = passwd("-c", "-i", "-m", method, path, "alice", given="open sesame\n")
    assert done.returncode == 0, said(done)
    assert said(done) == f"socks6: passwd: user 'alice' added to {path}\n"
    assert re.fullmatch(rf"alice:{FORMS[method]}\n", path.read_text())
    assert path.stat().st_mode & 0o7777 == 0o600
    assert is_right(path, "alice", "open sesame")
    assert not is_right(path, "alice", "open sesam")


def test_yescrypt_is_the_default_and_salts_differ(users):
    for name in ("bob", "carol"):
        assert passwd("-i", users, name, given="same\n").returncode == 0
    bob, carol = (line.split(":")[1] for line in users.read_text().splitlines()[1:])
    assert re.fullmatch(FORMS["yescrypt"], bob) and re.fullmatch(FORMS["yescrypt"], carol)
    assert bob != carol


def test_a_password_is_changed_and_the_rest_stays(users):
    users.write_text("# staff\n" + users.read_text() + "bob:*\n")
    done = passwd("-i", *QUICK, users, "alice", given="new\r\n")
    assert done.returncode == 0 and f"password of 'alice' changed in {users}" in said(done)
    lines = users.read_text().splitlines()
    assert lines[0] == "# staff" and lines[1].startswith("alice:$2b$04$") and lines[2:] == ["bob:*"]
    assert is_right(users, "alice", "new") and not is_right(users, "alice", "right")


def test_a_user_is_deleted(users):
    done = passwd("-D", users, "bob")
    assert done.returncode == 1 and said(done) == f"socks6: passwd: there is no user 'bob' in {users}\n"
    assert passwd("-D", users, "alice").returncode == 0
    assert users.read_text() == ""


def test_a_line_is_printed_without_a_file():
    done = passwd("-n", "-i", *QUICK, "alice", given="right\n")
    assert done.returncode == 0 and said(done) == ""
    assert re.fullmatch(rf"alice:\$2b\$04\${BASE64}{{53}}\n", done.stdout.decode())


def test_the_longest_password_works_and_no_longer_one(users):
    longest = "p" * 255
    assert passwd("-i", "-m", "sha512crypt", "-C", 1000, users, "bob", given=longest + "\n").returncode == 0
    assert is_right(users, "bob", longest) and not is_right(users, "bob", longest[:-1])
    before = users.read_text()
    for given, why in ((longest + "p\n", "longer than 255 bytes"), ("\n", "is empty"), ("", "is empty"),
                       ("a\0b\n", "contains a NUL byte")):
        done = passwd("-i", users, "bob", given=given)
        assert done.returncode == 1 and why in said(done)
    done = passwd("-i", "-m", "bcrypt", users, "bob", given="p" * 73 + "\n")
    assert done.returncode == 1 and "bcrypt looks at 72 bytes" in said(done)
    assert users.read_text() == before


def test_files_that_cannot_be_changed(tmp_path, users):
    missing = tmp_path / "missing"
    done = passwd("-i", missing, "alice", given="right\n")
    assert done.returncode == 1 and "No such file or directory; --create makes it" in said(done)
    done = passwd("-c", "-i", users, "bob", given="right\n")
    assert done.returncode == 1 and "exists already" in said(done)
    users.write_text("alice:*\nalice:*\n")
    done = passwd("-i", *QUICK, users, "alice", given="right\n")
    assert done.returncode == 1 and "more than once" in said(done)
    assert users.read_text() == "alice:*\nalice:*\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["users"]


@pytest.mark.parametrize("args, why", [
    ((), "expected FILE and NAME"),
    (("file",), "expected FILE and NAME"),
    (("-n", "file", "alice"), "no FILE with --print"),
    (("file", "a:b"), "the name has a colon"),
    (("file", ""), "the name is empty"),
    (("file", "a\nb"), "the name has a control character"),
    (("-m", "md5", "file", "alice"), "'md5' is none of"),
    (("-C", "12", "file", "alice"), "expected 1 to 11 for yescrypt, found '12'"),
    (("-C", "3", "-m", "bcrypt", "file", "alice"), "expected 4 to 17 for bcrypt"),
    (("-C", "x", "file", "alice"), "found 'x'"),
    (("-D", "-v", "file", "alice"), "only one of"),
    (("-c", "-D", "file", "alice"), "--create goes with"),
    (("--frob", "file", "alice"), "unknown option '--frob'"),
    (("-m",), "option '-m' needs an argument"),
])
def test_usage_errors(tmp_path, args, why):
    done = passwd(*args, cwd=tmp_path)
    assert done.returncode == 2 and why in said(done)
    assert list(tmp_path.iterdir()) == []


def test_options_of_the_proxy_have_no_place():
    done = subprocess.run([client_path(), "-x", "socks6://127.0.0.1", "passwd", "file", "alice"], capture_output=True,
                          env=client_environment(), timeout=DEADLINE, check=False)
    assert done.returncode == 2 and b"there is no proxy in this" in done.stderr


def test_help_lists_every_option():
    done = passwd("--help")
    assert done.returncode == 0
    for option in ("--create", "--cost", "--delete", "--stdin", "--method", "--print", "--verify", "--help"):
        assert option in done.stdout.decode()


def test_without_a_terminal_and_without_stdin(users):
    done = passwd(users, "bob", given="right\n")
    assert done.returncode == 1 and "there is no terminal to ask for the password; --stdin" in said(done)


# At a terminal.

class Terminal:
    """The program on a terminal of its own, with standard output and error there too."""

    def __init__(self, *args):
        self.text = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(client_path(), [client_path(), "passwd", *map(str, args)], client_environment())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        os.close(self.fd)

    def await_text(self, text):
        while text not in self.text:
            self.text += os.read(self.fd, 4096)

    def has_echo(self):
        return bool(termios.tcgetattr(self.fd)[3] & termios.ECHO)

    def type(self, prompt, line):
        """Types a line when the prompt is there."""
        self.await_text(prompt)
        self.text = self.text.split(prompt, 1)[1]
        assert not self.has_echo()
        os.write(self.fd, line)

    def end(self):
        try:
            while True:
                self.text += os.read(self.fd, 4096)
        except OSError:  # the other side is closed
            pass
        status = os.waitpid(self.pid, 0)[1]
        return os.waitstatus_to_exitcode(status)


def test_a_password_is_typed_twice_and_not_shown(users):
    with Terminal(*QUICK, users, "bob") as terminal:
        terminal.type(b"New password: ", b"tip top\n")
        terminal.type(b"The same again: ", b"tip top\n")
        assert terminal.end() == 0
        assert b"tip" not in terminal.text and b"added" in terminal.text
    assert is_right(users, "bob", "tip top")
    with Terminal("-v", users, "bob") as terminal:
        terminal.type(b"Password: ", b"tip top\n")
        assert terminal.end() == 0


def test_two_different_ones_change_nothing(users):
    before = users.read_text()
    with Terminal(*QUICK, users, "alice") as terminal:
        terminal.type(b"New password: ", b"one\n")
        terminal.type(b"The same again: ", b"two\n")
        assert terminal.end() == 1
        assert b"not the same" in terminal.text
    assert users.read_text() == before


def test_too_long_a_line_is_read_to_its_end(users):
    with Terminal(*QUICK, users, "alice") as terminal:
        terminal.type(b"New password: ", b"p" * 300 + b"\n")
        assert terminal.end() == 1
        assert b"longer than 255 bytes" in terminal.text


def test_the_end_of_the_terminal_is_no_password(users):
    with Terminal(*QUICK, users, "alice") as terminal:
        terminal.type(b"New password: ", b"\x04")
        assert terminal.end() == 1
        assert b"no password was given" in terminal.text


@pytest.mark.parametrize("key, number", [(b"\x03", signal.SIGINT), (b"\x1c", signal.SIGQUIT), (None, signal.SIGTERM)])
def test_an_interrupt_gives_the_terminal_back(users, key, number):
    before = users.read_text()
    with Terminal(*QUICK, users, "alice") as terminal:
        terminal.await_text(b"New password: ")
        assert not terminal.has_echo()
        keep = os.open(os.readlink(f"/proc/{terminal.pid}/fd/0"), os.O_RDWR | os.O_NOCTTY)  # so that its settings outlive the program
        try:
            if key:
                os.write(terminal.fd, b"half" + key)
            else:
                os.kill(terminal.pid, number)
            assert os.waitstatus_to_exitcode(os.waitpid(terminal.pid, 0)[1]) == -number
            assert terminal.has_echo()
        finally:
            os.close(keep)
    assert users.read_text() == before


def test_a_stopped_prompt_asks_again(users):
    with Terminal(*QUICK, users, "bob") as terminal:
        terminal.await_text(b"New password: ")
        os.kill(terminal.pid, signal.SIGSTOP)  # a terminal without a shell: the kernel drops SIGTSTP of orphans
        os.waitpid(terminal.pid, os.WUNTRACED)
        os.kill(terminal.pid, signal.SIGCONT)
        terminal.text = b"New password: "
        terminal.type(b"New password: ", b"right\n")
        terminal.type(b"The same again: ", b"right\n")
        assert terminal.end() == 0
