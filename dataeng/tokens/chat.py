"""The format of chats: special tokens, the template, and encoding with a mask over the answers.

This is the one owner of the format. ``tokenizer`` is a ``tokenizers.Tokenizer`` whose vocabulary holds
``SPECIAL_TOKENS`` as special tokens. A turn is its role's token, a space, the trimmed text, ``<|end|>``;
the space makes a word at the start of an answer the same token as in the middle of a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dataeng.cli import UserError

END_OF_TEXT = "<|endoftext|>"  # after each document of the corpus
PAD = "<|pad|>"
END = "<|end|>"  # after each turn of a chat
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
SPECIAL_TOKENS = (END_OF_TEXT, PAD, *ROLES.values(), END)
MASK = "<|mask|>"  # in place of a token that an encoder has to say; only where a tokenizer is made with it
UNKNOWN = "<|unknown|>"  # what a vocabulary of words or characters does not have


def span(number: int) -> str:
    """The token in place of a span that an encoder–decoder has to say, and before it in the answer."""
    return f"<|span_{number}|>"


CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('roles are system, user and assistant') }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|> ' + message['content'] | trim + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

Message = Mapping[str, str]


def token_id(tokenizer: Any, token: str) -> int:
    """The id of a special token; raises UserError where the vocabulary lacks it."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise UserError(f"tokenizer: has no token {token}: train it with the step `tokenizer`, which adds it")
    return int(found)


def mask_id(tokenizer: Any, path: str) -> int:
    """The mask token's id; raises UserError where a tokenizer has none."""
    if (token := _mask_token(tokenizer)) is None:
        raise UserError(
            f"{path}: has no token {MASK}, which an encoder is trained with: set tokenizer.masks = true and run "
            "`tokenizer` and `tokens` again"
        )
    return int(tokenizer.token_to_id(token))


def _mask_token(tokenizer: Any) -> str | None:
    return next((token for token in (MASK, "[MASK]", "<mask>") if tokenizer.token_to_id(token) is not None), None)


def span_ids(tokenizer: Any, path: str, count: int) -> list[int]:
    """The ids of the first ``count`` tokens of spans; raises UserError where a tokenizer has fewer."""
    for form in ("<|span_{}|>", "<extra_id_{}>"):
        found = [tokenizer.token_to_id(form.format(number)) for number in range(count)]
        if None not in found:
            return [int(number) for number in found]
    raise UserError(
        f"{path}: has no {count} tokens {span(0)} …, which an encoder_decoder is trained with: set tokenizer.spans = "
        f"{count} and run `tokenizer` and `tokens` again"
    )


def stop_ids(tokenizer: Any) -> list[int]:
    """The ids that end an answer: that of the turn's end and that of the text's end."""
    return [token_id(tokenizer, END), token_id(tokenizer, END_OF_TEXT)]


def complete(tokenizer: Any) -> int:
    """Give a tokenizer that was made elsewhere the special tokens that it lacks, at the vocabulary's end, in place;
    how many were added comes back."""
    from tokenizers import AddedToken

    missing = [token for token in SPECIAL_TOKENS if tokenizer.token_to_id(token) is None]
    return int(tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in missing]))


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """The ids of plain text; text that spells a special token never becomes one."""
    before = tokenizer.encode_special_tokens
    tokenizer.encode_special_tokens = True
    try:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    finally:
        tokenizer.encode_special_tokens = before
    return ids


def encode_chat(tokenizer: Any, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
    """The ids of a chat, and for each whether an assistant has to produce it (its text and end token).

    Equal to ``apply_chat_template`` of transformers, except that a text which spells a special token
    stays text. Raises UserError for an unknown role.
    """
    end = token_id(tokenizer, END)
    ids: list[int] = []
    mask: list[bool] = []
    for message in messages:
        role = message["role"]
        if role not in ROLES:
            raise UserError(f"messages: role {role!r}: must be one of {', '.join(ROLES)}")
        body = [*encode_text(tokenizer, " " + message["content"].strip()), end]
        ids += [token_id(tokenizer, ROLES[role]), *body]
        mask += [False, *[role == "assistant"] * len(body)]
    return ids, mask


def encode_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """The ids of a chat with the assistant's turn opened: what an answer is generated from."""
    return [*encode_chat(tokenizer, messages)[0], token_id(tokenizer, ROLES["assistant"])]


def decode_answer(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of a generated answer: up to its first stop token, without the template's white space."""
    stops = set(stop_ids(tokenizer))
    length = next((index for index, token in enumerate(ids) if token in stops), len(ids))
    return str(tokenizer.decode(list(ids[:length]), skip_special_tokens=False)).strip()


def tokenizer_config(context_length: int, tokenizer: Any = None) -> dict[str, Any]:
    """``tokenizer_config.json`` of an export; ``context_length`` in tokens; with the mask token, where there is one."""
    mask = None if tokenizer is None else _mask_token(tokenizer)
    return {
        **({"mask_token": mask} if mask else {}),
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "eos_token": END,
        "pad_token": PAD,
        "additional_special_tokens": [END_OF_TEXT, *ROLES.values()],
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
        "chat_template": CHAT_TEMPLATE,
    }
