"""W&B that cannot be reached is said before training. The server is this machine."""

import socket
import sys
import time
from types import SimpleNamespace

import pytest

from robustforge.cli import dashboards
from robustforge.cli.dashboards import check_wandb
from robustforge.types import UserError


@pytest.fixture
def server(monkeypatch, tmp_path):
    """server(url): W&B's settings name that server; somebody has logged in to it, and nobody is at the keyboard."""
    import wandb

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    for name in (
        "WANDB_MODE",
        "WANDB_API_KEY",
        "WANDB_IDENTITY_TOKEN_FILE",
        "http_proxy",
        "https_proxy",
        "HTTPS_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("no_proxy", "nothing.example")

    def call(url):
        monkeypatch.setattr(wandb, "setup", lambda: SimpleNamespace(settings=SimpleNamespace(base_url=url)))
        host = url.partition("//")[2].partition(":")[0]
        (tmp_path / "netrc").write_text(f"machine {host} login user password made-up\n")

    return call


@pytest.fixture
def listener():
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        yield door.getsockname()[1]


def closed():
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


def test_a_server_that_answers_is_fine(server, listener):
    server(f"http://127.0.0.1:{listener}")
    check_wandb({"offline": False})


def test_a_server_that_does_not_is_said_with_the_way_out(command, server, tmp_path):
    server(f"http://127.0.0.1:{closed()}")
    began = time.monotonic()
    answer = command("logger=wandb", "defense=none", f"paths.output_dir={tmp_path / 'out'}")
    assert time.monotonic() - began < 30
    assert answer.code == 2
    (line,) = answer.err.strip().splitlines()
    assert "cannot be reached" in line
    assert "logger.offline=true" in line
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_a_name_that_nobody_looks_up_in_time(server, monkeypatch):
    server("https://wandb.example")
    monkeypatch.setattr(dashboards, "_SECONDS", 0.1)
    monkeypatch.setattr(socket, "create_connection", lambda *_: time.sleep(2))
    began = time.monotonic()
    with pytest.raises(UserError, match="wandb.example.*cannot be reached within 0.1 s"):
        check_wandb({"offline": False})
    assert time.monotonic() - began < 1.5


def test_a_proxy_is_asked_in_the_servers_place(server, listener, monkeypatch):
    server("https://wandb.example")
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listener}")
    check_wandb({"offline": False})
    monkeypatch.setenv("https_proxy", f"127.0.0.1:{closed()}")
    with pytest.raises(UserError, match="cannot be reached"):
        check_wandb({"offline": False})


def test_who_has_not_logged_in_is_told_unless_there_is_somebody_to_ask(server, listener, monkeypatch, tmp_path):
    server(f"http://127.0.0.1:{listener}")
    (tmp_path / "netrc").unlink()
    with pytest.raises(UserError, match="wandb login"):
        check_wandb({"offline": False})
    monkeypatch.setenv("WANDB_API_KEY", "made-up")
    check_wandb({"offline": False})
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    check_wandb({"offline": False})


@pytest.mark.parametrize(("settings", "mode"), [({"offline": True}, "online"), ({"offline": False}, "offline"),
                                                ({"offline": False}, "disabled")])  # fmt: skip
def test_offline_needs_nobody(server, monkeypatch, settings, mode):
    server(f"http://127.0.0.1:{closed()}")
    monkeypatch.setenv("WANDB_MODE", mode)
    check_wandb(settings)
