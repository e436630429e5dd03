"""Fixtures of the crawler's tests."""

from __future__ import annotations

import pytest
import site_server

from dataeng.acquire import network


@pytest.fixture
def site(monkeypatch):
    """A site on loopback; every host name leads to it."""
    monkeypatch.setattr(network, "lookup", lambda host, port: ["127.0.0.1"])
    with site_server.serving() as site:
        yield site
