"""What the comparisons with Hugging Face's `Trainer` share: the 12M decoder, that library's model of it, its settings.

The `Trainer` needs a folder with accelerate and psutil, which are not among this project's dependencies:
``pip install --target PACKAGES --no-deps accelerate psutil``.
"""

from __future__ import annotations

from typing import Any

import torch

from training.model.config import ModelConfig

ROWS, LENGTH, VOCABULARY = 16, 256, 4096
SHAPE = ModelConfig(layers=6, width=384, heads=6, kv_heads=6, ffn=1024, context=LENGTH, tied=True)


def llama(seed: int = 0) -> Any:
    """transformers' model of that shape, with its own first weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=SHAPE.width, num_hidden_layers=SHAPE.layers,
        num_attention_heads=SHAPE.heads, num_key_value_heads=SHAPE.key_heads, intermediate_size=SHAPE.inner,
        max_position_embeddings=LENGTH, tie_word_embeddings=True, use_cache=False,
        rms_norm_eps=SHAPE.norm_eps,
    )  # fmt: skip
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def arguments(folder: str, steps: int, rate: float, compiled: bool, **more: Any) -> Any:
    """The `Trainer`'s settings: fused AdamW in bf16 on the CPU, decay and clipping as ours, nothing saved or logged."""
    from transformers import TrainingArguments

    values: dict[str, Any] = {
        "per_device_train_batch_size": ROWS, "max_steps": steps, "bf16": True, "use_cpu": True,
        "optim": "adamw_torch_fused", "learning_rate": rate, "weight_decay": 0.1, "max_grad_norm": 1.0,
        "lr_scheduler_type": "cosine", "save_strategy": "no", "report_to": [], "disable_tqdm": True,
        "torch_compile": compiled, "logging_strategy": "no",
    }  # fmt: skip
    return TrainingArguments(folder, **values | more)
