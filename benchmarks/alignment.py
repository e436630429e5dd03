"""Fine-tuning, GRPO, PPO and DPO at the recipes' full lengths, by seed, against their floors.

    python benchmarks/alignment.py RUN OUT [seeds=0,1,2] [workers=2] [KEY=VALUE …]

RUN is a finished run (`make demo`'s runs/demo), whose pretrained model is taken; OUT gets a root for each
seed. Each seed has tasks, fine-tuning, reward model, GRPO, PPO and DPO of its own. Further overrides go to
every step. Floors: fine-tuned greedy >= 0.3 + 5 x pretrained; after GRPO, PPO and DPO sampled accuracy
above the fine-tuned by more than two standard errors of the paired difference, greedy not below by more
than two; PPO and DPO within 600 seconds. Exits 1 where one does not hold.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dataeng import stage
from dataeng.cli import UserError, run

REPOSITORY = Path(__file__).resolve().parent.parent
METHODS = {"grpo": "demo", "ppo": "ppo", "dpo": "dpo"}  # each with the recipe that holds its settings
LIMIT_SECONDS = 600


def command(module: str, recipe: str, arguments: Sequence[str], workers: int = 1) -> None:
    """Run a module on a recipe."""
    threads = max(1, (os.cpu_count() or 1) // workers) if module == "training" else 1
    distributed = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"] if workers > 1 else []
    subprocess.run(
        [sys.executable, *distributed, "-m", module, str(REPOSITORY / "configs" / f"{recipe}.toml"), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        check=True,
    )


def one_seed(run_root: str, root: str, seed: int, workers: int, more: Sequence[str]) -> dict[str, dict]:
    """Every step of one seed; what the evaluation says of each model, with the seconds that its step took."""
    common = [f"root={root}", f"seed={seed}"]
    command("dataeng.acquire.tasks", "demo", common)
    pretrained = f"sft.model={run_root}/pretrain"
    command("training", "demo", ["sft", *common, pretrained, *more], workers)
    command("training", "demo", ["reward", *common, *more], workers)
    for name, recipe in METHODS.items():
        command("training", recipe, [name, *common, *more], workers)
    models = [f"{run_root}/pretrain", "sft", *METHODS]
    looked_at = f"evaluate.models={models}".replace("'", '"')
    command("training.evaluate", "demo", [*common, looked_at, "evaluate.tokens="])
    seconds = {name: stage.need_manifest(root, name, "alignment").seconds for name in ("sft", *METHODS)}
    found = stage.need_manifest(root, "evaluate", "alignment").details["models"]
    short = {name.rpartition("/")[2]: facts for name, facts in found.items()}  # pretrain is named by its path
    return {name: {**facts, "step_seconds": seconds.get(name)} for name, facts in short.items()}


def problems(found: dict[str, dict]) -> list[str]:
    """Which floors do not hold."""
    greedy = {name: facts["tasks"]["greedy"]["accuracy"] for name, facts in found.items()}
    failed = []
    if greedy["sft"] < 0.3 + 5 * greedy["pretrain"]:
        failed.append(f"sft: greedy {greedy['sft']:.3f} < 0.3 + 5 x {greedy['pretrain']:.3f}")
    for name in METHODS:
        by = found[name]["difference"]
        if not by["sampled"]["mean"] > 2 * by["sampled"]["error"]:
            failed.append(f"{name}: sampled {by['sampled']['mean']:+.4f} +- {by['sampled']['error']:.4f}")
        if by["greedy"]["mean"] < -2 * by["greedy"]["error"]:
            failed.append(f"{name}: greedy {by['greedy']['mean']:+.4f} +- {by['greedy']['error']:.4f}")
    slow = [name for name in ("ppo", "dpo") if found[name]["step_seconds"] > LIMIT_SECONDS]
    return failed + [f"{name}: took {found[name]['step_seconds']:.0f} s" for name in slow]


def show(seed: int, found: dict[str, dict]) -> None:
    """One seed's table."""
    print(f"\nseed {seed}    greedy  sampled   greedy - sft        sampled - sft       seconds")
    for name, facts in found.items():
        tasks, by = facts["tasks"], facts.get("difference")
        parts = [f"{name:10s}", f"{tasks['greedy']['accuracy']:8.3f}", f"{tasks['sampled']['accuracy']:8.3f}  "]
        parts += (
            [f"{by[kind]['mean']:+.4f} +- {by[kind]['error']:.4f} " for kind in ("greedy", "sampled")] if by else []
        )
        parts += [f"{facts['step_seconds']:.0f}".rjust(6)] if facts["step_seconds"] else []
        print(" ".join(parts))


def main(arguments: Sequence[str]) -> None:
    """Run all seeds, print their tables, and what does not hold."""
    if len(arguments) < 2:
        raise UserError("usage: python benchmarks/alignment.py RUN OUT [seeds=0,1,2] [workers=2] [KEY=VALUE …]")
    run_root, out = (str(Path(path).resolve()) for path in arguments[:2])
    stage.need_manifest(run_root, "pretrain", "alignment")
    own = dict(argument.split("=", 1) for argument in arguments[2:] if argument.startswith(("seeds=", "workers=")))
    more = [argument for argument in arguments[2:] if not argument.startswith(("seeds=", "workers="))]
    failed: list[str] = []
    for seed in map(int, own.get("seeds", "0,1,2").split(",")):
        found = one_seed(run_root, f"{out}/seed-{seed}", seed, int(own.get("workers", "2")), more)
        show(seed, found)
        failed += [f"seed {seed}: {problem}" for problem in problems(found)]
    print("\n" + ("\n".join(failed) if failed else "every floor holds"))
    if failed:
        raise AssertionError(f"{len(failed)} floors do not hold")


if __name__ == "__main__":
    run(main)
