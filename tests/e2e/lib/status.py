"""What a daemon says of itself, read off its status socket as anybody can."""

import json
import socket


def status(path):
    """The whole document."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(path))
        with sock.makefile("rb") as file:
            return json.load(file)


def totals(path):
    """The counters of all workers together."""
    return status(path)["totals"]
