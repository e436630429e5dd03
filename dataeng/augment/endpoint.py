"""Questions to a server that speaks OpenAI's chat completions; each answer is kept, so that none is asked twice.

An answer stands in a file of its own, named by the hash of its request, and is written only if absent: the first
one counts for every later run and every task that is tried again. So a model's dice are thrown once.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
import unicodedata
from dataclasses import asdict, dataclass
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError, TimeoutError

from dataeng import storage
from dataeng.acquire.remote import Busy, Cut, Manners, Pauses, retry_after
from dataeng.augment import Endpoint
from dataeng.cli import Failure

MOST_BYTES = 4 << 20  # of a server's answer
GIVE_UP = 10  # requests in a row that failed with all their repetitions: no more are sent by this task
_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)


class Unanswered(Exception):
    """No usable answer came; the message is the reason in one word, such as ``timeout`` or ``http_500``."""


@dataclass(frozen=True)
class Answer:
    """A model's text, and the tokens that the server counted."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


def cleaned(text: str) -> str:
    """A model's text as plain text: NFC, no controls nor halves of surrogates, white space folded."""
    whole = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode())
    kept = (c if unicodedata.category(c) not in ("Cc", "Cs", "Co", "Cn") or c.isspace() else "" for c in whole)
    return " ".join("".join(kept).split())


def parse(data: bytes) -> Answer:
    """The answer in a response's body; raises Unanswered."""
    try:
        found = json.loads(data)
        choice = found["choices"][0]
        text, usage = choice["message"]["content"], found.get("usage") or {}
        counts = {name: int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise Unanswered("malformed") from None
    if choice.get("finish_reason") == "length":
        raise Unanswered("cut_off")
    if not isinstance(text, str) or not (text := cleaned(text)):
        raise Unanswered("empty")
    return Answer(text, **counts)


class Client:
    """Asks one endpoint, for one task; safe for threads. ``folder`` keeps answers, ``key`` is the API key."""

    def __init__(self, config: Endpoint, folder: str, key: str | None) -> None:
        self.config, self.folder, self.key = config, folder, key
        timeout = urllib3.Timeout(connect=min(config.timeout_seconds, 20.0), read=config.timeout_seconds)
        self.pool = urllib3.PoolManager(maxsize=config.parallel, timeout=timeout, retries=False)
        self.pauses = Pauses(Manners("millrace", first_pause=config.first_pause))
        self.lock, self.next_at, self.failed_in_row = threading.Lock(), 0.0, 0

    def body(self, prompt: str, seed: int) -> dict[str, Any]:
        """The request; its hash names the answer."""
        messages = [{"role": "user", "content": prompt}]
        settings = {"temperature": self.config.temperature, "max_tokens": self.config.maximum_tokens, "seed": seed}
        return {"model": self.config.model, "messages": messages, **settings}

    def ask(self, prompt: str, seed: int) -> Answer:
        """The kept answer to a request, or the server's, kept from now on; raises Unanswered."""
        data = json.dumps(self.body(prompt, seed), sort_keys=True).encode()
        name = hashlib.sha256(data).hexdigest()
        path = storage.join(self.folder, name[:2], f"{name}.json")
        kept = self._kept(path)
        if kept:
            return kept
        answer = self._asked(data)
        if storage.write_if(path, json.dumps(asdict(answer), ensure_ascii=False).encode(), None):
            return answer
        return self._kept(path) or answer

    def _kept(self, path: str) -> Answer | None:
        found = storage.read_tagged(path)
        if found is None:
            return None
        try:
            return Answer(**json.loads(found[0]))
        except (ValueError, TypeError):
            raise Failure(f"augment: {path}: is damaged: delete it, and that question is asked again") from None

    def _asked(self, data: bytes) -> Answer:
        if self.failed_in_row >= GIVE_UP:
            raise Unanswered("given_up")
        try:
            answer = self._tried(data)
        except Unanswered:
            with self.lock:
                self.failed_in_row += 1
            raise
        with self.lock:
            self.failed_in_row = 0
        return answer

    def _tried(self, data: bytes) -> Answer:
        """One request, sent again after growing pauses while that may help."""
        for failures in range(1, self.config.retries + 2):
            self._wait()
            try:
                return parse(self._sent(data))
            except (Busy, Cut) as error:
                reason = str(error)
                if failures <= self.config.retries:
                    self.pauses.after(error, failures)
            except Unanswered as error:  # another throw of the dice may do, without a pause
                reason = str(error)
                if reason.startswith("http_"):
                    break
        raise Unanswered(reason)

    def _wait(self) -> None:
        self.pauses.wait()
        if self.config.requests_per_second:
            with self.lock:
                at = max(self.next_at, time.monotonic())
                self.next_at = at + self.config.workers / self.config.requests_per_second
            time.sleep(max(0.0, at - time.monotonic()))

    def _sent(self, data: bytes) -> bytes:
        """The body of a good response; raises Busy or Cut for what may pass, Unanswered for the rest."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        until = time.monotonic() + self.config.timeout_seconds
        url = f"{self.config.base_url}/chat/completions"
        try:
            response = self.pool.request("POST", url, body=data, headers=headers, redirect=False, preload_content=False)
            try:
                if response.status in _AGAIN:
                    raise Busy(f"http_{response.status}", retry_after(response.headers.get("Retry-After")))
                if response.status != 200:
                    raise Unanswered(f"http_{response.status}")
                return _whole(response, until)
            finally:
                response.close()
        except NewConnectionError:  # a kind of timeout to urllib3
            raise Cut("unreachable") from None
        except TimeoutError:
            raise Cut("timeout") from None
        except (HTTPError, OSError):
            raise Cut("unreachable") from None


def _whole(response: urllib3.BaseHTTPResponse, until: float) -> bytes:
    found = bytearray()
    while chunk := response.read1(1 << 16):
        found += chunk
        if len(found) > MOST_BYTES:
            raise Unanswered("too_long")
        if time.monotonic() > until:
            raise Cut("timeout")
    return bytes(found)
