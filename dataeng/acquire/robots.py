"""robots.txt (RFC 9309): what a host allows, how often it may be asked, and the sitemaps that it names."""

from __future__ import annotations

import re

from protego import Protego

LARGEST = 512 << 10  # bytes that are read of one: RFC 9309, 2.5 asks for 500 KiB at least
_AGENT = re.compile(r"\W*user.{0,2}agent\W*(.*)", re.IGNORECASE)
_NOBODY = "User-agent: \N{SNOWMAN}"
_MOST_LINES = 20_000


def _relevant(text: str, user_agent: str) -> str:
    """The text with groups for other crawlers put under one name.

    A group of ten thousand names before ten thousand rules would otherwise cost their product.
    """
    lines = []
    own = user_agent.lower()
    for line in text.splitlines()[:_MOST_LINES]:
        if found := _AGENT.match(line):
            name = found[1].partition("#")[0].strip().lower().strip("*")
            line = line if name in own else _NOBODY
        lines.append(line)
    return "\n".join(lines)


class Rules:
    """What one robots.txt says to ``user_agent``; ``text`` None stands for a host that must not be visited."""

    def __init__(self, text: str | None, user_agent: str) -> None:
        self.user_agent = user_agent
        self.parsed = None if text is None else Protego.parse(_relevant(text[:LARGEST], user_agent))

    def allow(self, url: str) -> bool:
        """Whether an address may be visited."""
        return self.parsed is not None and bool(self.parsed.can_fetch(url, self.user_agent))

    @property
    def delay(self) -> float:
        """Seconds between requests that the host asks for (Crawl-delay, or Request-rate)."""
        if self.parsed is None:
            return 0.0
        delay = float(self.parsed.crawl_delay(self.user_agent) or 0.0)
        rate = self.parsed.request_rate(self.user_agent)
        return max(delay, rate.seconds / rate.requests if rate and rate.requests else 0.0, 0.0)

    @property
    def sitemaps(self) -> list[str]:
        """The sitemaps that it names."""
        return [] if self.parsed is None else list(self.parsed.sitemaps)
