"""What a checkpoint of 100M parameters costs the training that goes on beside it.

    python benchmarks/checkpoint_stall.py OUT [rounds=3] [megabytes_a_second=100] [stores=local,s3]

A decoder of 98M parameters with AdamW's moments (1.2 GB of state in fp32) takes steps of 256 tokens on one thread. For
each store: how long a save takes that everything waits for, how long the call of an asynchronous one blocks, and how
much longer the steps beside it take in all than as many steps without a save (the call included). `local` is a folder
of the local disk, `s3` a MinIO (`make minio` builds it) behind a loopback proxy that lets so many megabytes a second
pass. Medians of the rounds; the floors: on `s3` the time lost is at most 15 % of a save that everything waits for, on
`local` the call blocks at most half of one. Exits 1 where a floor is missed.

Store and proxy stand for other machines: all their threads get only time that nothing else here wants (SCHED_IDLE).
What they take of caches, memory and the kernel's network still counts against the steps; hashing, summing and sending
are the trainer's own and count in full. How long the save beside the steps lasts is printed too; where it lasts over
1.5 times as long as the other, something else keeps this machine busy and the store from its rate: no measurement.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import statistics
import sys
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

import torch

from dataeng.cli import UserError, run
from dataeng.recipe import Recipe
from training import optim, parallel
from training.checkpoint import Checkpoints
from training.context import Context
from training.model.config import ModelConfig
from training.model.decoder import Decoder, init_weights
from training.settings import TrainerConfig

VOCABULARY, ROWS, TOKENS, CHUNK = 16_384, 2, 128, 1 << 18
SHAPE = ModelConfig.model_validate({"layers": 12, "width": 768, "heads": 12, "ffn": 2048, "context": 128})


class Trained:
    """A model, its optimiser, and short steps."""

    def __init__(self, folder: str) -> None:
        torch.set_num_threads(1)
        values = {"max_steps": 1000, "precision": "fp32", "keep": 1}
        self.settings = TrainerConfig.model_validate(values)
        self.context = Context(Recipe("bench", folder, 0, {}), "stall", self.settings)
        self.model = parallel.build(
            self.context, lambda: Decoder(SHAPE, VOCABULARY), self.settings, lambda made: init_weights(made, 0)
        )
        self.optimizer = optim.make(self.model, self.settings)
        self.saver = Checkpoints(self.context, self.settings)
        self.tokens = torch.randint(0, VOCABULARY, (ROWS, TOKENS))
        self.done = 0

    def step(self) -> float:
        """One step; its seconds."""
        begun = time.perf_counter()
        self.model(self.tokens).float().logsumexp(-1).mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        return time.perf_counter() - begun

    def save(self) -> float:
        """Start a save; the seconds that the call blocks."""
        begun = time.perf_counter()
        facts = {"step": self.done, "position": self.done, "skipped": 0, "metrics": {}}
        self.saver.save(self.model, self.optimizer, facts)
        return time.perf_counter() - begun

    def blocking(self) -> float:
        """The seconds of a save that everything waits for."""
        begun = time.perf_counter()
        self.save()
        self.saver.join()
        return time.perf_counter() - begun

    def beside(self) -> tuple[float, float, float, int]:
        """The seconds that a save's call blocks, those it costs in all, those it lasts; the steps taken beside it."""
        alone = [self.step() for _ in range(5)]
        begun = time.perf_counter()
        blocked, steps = self.save(), 0
        pending = self.saver.pending
        while pending is not None and not pending.done():
            self.step()
            steps += 1
        whole = time.perf_counter() - begun
        self.saver.join()
        alone += [self.step() for _ in range(5)]
        return blocked, whole - steps * statistics.median(alone), whole, steps


def measured(name: str, folder: str, rounds: int) -> tuple[float, float, float]:
    """Medians over the rounds: a blocking save, an asynchronous call, the time lost to it.

    Raises UserError where the store could not keep its rate beside the steps.
    """
    trained = Trained(folder)
    for _ in range(3):
        trained.step()
    trained.blocking()  # the first one also makes room for the copies
    found = []
    for _ in range(rounds):
        trained.step()
        whole = trained.blocking()
        blocked, lost, lasted, steps = trained.beside()
        found.append((whole, blocked, lost, lasted))
        print(
            f"{name}: blocking {whole:.2f} s; async: call {blocked:.2f} s, lost {lost:.2f} s beside {steps} steps "
            f"in {lasted:.2f} s",
            flush=True,
        )
    trained.saver.close()
    whole, blocked, lost, lasted = (statistics.median(values) for values in zip(*found, strict=True))
    if "s3" in name and lasted > 1.5 * whole:
        raise UserError(f"{name}: the save beside steps took {lasted:.1f} s: not measured, this machine is busy")
    print(
        f"{name}: median: blocking {whole:.2f} s, call blocks {blocked:.2f} s ({blocked / whole:.1%}), "
        f"step time lost {lost:.2f} s ({lost / whole:.1%})"
    )
    return whole, blocked, lost


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bytes_a_second: float) -> None:
    global _free_at
    while data := await reader.read(CHUNK):
        if bytes_a_second:
            _free_at = max(_free_at, time.monotonic()) + len(data) / bytes_a_second
            await asyncio.sleep(_free_at - time.monotonic())
        writer.write(data)
        await writer.drain()
    writer.close()


_free_at = 0.0


def throttle(listening: socket.socket, port: int, bytes_a_second: float) -> None:
    """Pass connections on to a port of this machine; all of them together send so many bytes a second at most."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port, limit=CHUNK)
        await asyncio.gather(_pass_on(reader, back, bytes_a_second), _pass_on(there, writer, 0), return_exceptions=True)

    async def serve() -> None:
        server = await asyncio.start_server(connected, sock=listening, limit=CHUNK)
        await server.serve_forever()

    asyncio.run(serve())


def give_way() -> None:
    """Have every thread of the processes that this one started run only where nothing else wants to."""
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in children.read_text().split():
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))


def on_s3(out: Path, rounds: int, bytes_a_second: float) -> tuple[float, float, float]:
    """The same with the checkpoints in a MinIO behind the throttle."""
    sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
    import minio
    import tools

    from dataeng import s3

    if tools.find("minio") is None:
        raise UserError("stores=s3: minio is not built: make minio (needs Go)")
    with minio.server(out / "minio") as environment, socket.create_server(("127.0.0.1", 0)) as listening:
        port = int(environment["AWS_ENDPOINT_URL"].rpartition(":")[2])
        proxy = get_context("fork").Process(target=throttle, args=(listening, port, bytes_a_second), daemon=True)
        proxy.start()
        give_way()
        os.environ |= environment | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{listening.getsockname()[1]}"}
        try:
            s3.client().create_bucket(Bucket="stall")
            return measured(f"s3 at {bytes_a_second / 1e6:.0f} MB/s", "s3://stall/run", rounds)
        finally:
            proxy.kill()
            proxy.join()


def main(arguments: Sequence[str]) -> None:
    if not arguments or "=" in arguments[0]:
        raise UserError(
            "usage: python benchmarks/checkpoint_stall.py OUT [rounds=3] [megabytes_a_second=100] [stores=…]"
        )
    settings = {"rounds": "3", "megabytes_a_second": "100", "stores": "local,s3"}
    settings |= dict(text.split("=", 1) for text in arguments[1:])
    out, rounds = Path(arguments[0]).resolve(), int(settings["rounds"])
    out.mkdir(parents=True, exist_ok=True)
    good = True
    for store in settings["stores"].split(","):
        if store == "local":
            whole, blocked, _ = measured("local", str(out / "local"), rounds)
            good &= blocked <= 0.5 * whole
        else:
            whole, _, lost = on_s3(out, rounds, float(settings["megabytes_a_second"]) * 1e6)
            good &= lost <= 0.15 * whole
        shutil.rmtree(out / ("local" if store == "local" else "minio"), ignore_errors=True)
    print("ok" if good else "MISS")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    run(main)
