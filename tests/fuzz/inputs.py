"""Broken and hostile inputs for the fuzzer: JSON, safetensors headers and recipes, changed a little or a lot."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.sparse import TINY, llama_tensors

SECRET = "secret"
"""A folder beside the case's own that nothing in a file may lead to."""

PATHS = (
    f"../{SECRET}/model.safetensors", f"../{SECRET}", f"{{root}}/{SECRET}/model.safetensors",
    f"a/../../{SECRET}/x.json",
    "/etc/passwd", "/dev/zero", "/proc/self/mem", "..", ".", "/", "~root/x.safetensors", "..\\x.safetensors",
    "x\0.safetensors", "file:///etc/passwd", "$HOME/x.safetensors", "con.safetensors", "model.safetensors/.",
    "a" * 300 + ".safetensors", "~nobody-here/x", "org/" + "a" * 250,
)  # fmt: skip

_ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 127, 255, 65_536, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63),
    10**30, 0.0, -0.0, 0.5, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"), "", " ", "0", "1", "-1", "1e3",
    "true", "null", "None", "A", "\n", "\x1b[2J", "\u202e", "\ud800", "\0", "é", "e\u0301", "😀", "{}", "*", "%s%n",
    [], {}, [[]], [None], [0, 1], [1, 0], [-1, 5], {"": ""}, {"value": 1}, [{}],
)  # fmt: skip


_MANY = 5_000
"""Values in a tree that is not made many times as large any more."""


def odd(rng: random.Random, words: Sequence[str] = ()) -> Any:
    """A value that nobody expects there."""
    kind = rng.random()
    if kind < 0.12:
        return rng.choice(PATHS)
    if kind < 0.3 and words:
        return rng.choice(words)
    if kind < 0.33:
        return rng.choice("aA0.*(+[") * rng.choice((50, 300, 5_000))
    if kind < 0.36:
        return nested(rng, rng.choice((3, 40, 400)))
    if kind < 0.39:
        return [copy.deepcopy(rng.choice(_ODD)) for _ in range(rng.choice((3, 30, 3_000)))]
    if kind < 0.45:
        return rng.randint(-5, 300)
    return copy.deepcopy(rng.choice(_ODD))


def nested(rng: random.Random, depth: int) -> Any:
    """Lists and tables in one another."""
    value: Any = 0
    for _ in range(depth):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in nested lists and tables."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, (dict, list)):
            keys = list(part) if isinstance(part, dict) else list(range(len(part)))
            found += [(part, key) for key in keys]
            waiting += [part[key] for key in keys]
    return found


def mutate(value: Any, rng: random.Random, words: Sequence[str] = ()) -> Any:
    """The value (a tree of lists and tables, which is overwritten) with one thing changed."""
    found = places(value)
    if not found or rng.random() < 0.01:
        return odd(rng, words)
    _change(*rng.choice(found), found, rng, words)
    return value


def _change(container: Any, key: Any, found: list[tuple[Any, Any]], rng: random.Random, words: Sequence[str]) -> None:
    kind = rng.randrange(9)
    if kind == 0:
        del container[key]
    elif kind == 1:
        other, place = rng.choice(found)
        if place in other if isinstance(other, dict) else place < len(other):
            container[key] = copy.deepcopy(other[place])
    elif kind == 2 and isinstance(container, dict):
        name = rng.choice(list(words)) if words and rng.random() < 0.7 else odd(rng)
        container[str(name)] = container.pop(key) if rng.random() < 0.5 else odd(rng, words)
    elif kind == 3 and isinstance(container, list):
        container.insert(rng.randint(0, len(container)), odd(rng, words))
    elif kind == 4 and isinstance(container, list):
        container *= rng.choice((0, 2, 50 if len(found) < _MANY else 1))
    elif kind == 5 and isinstance(container[key], (int, float)) and not isinstance(container[key], bool):
        container[key] += rng.choice((-1, 1, 0.5, -container[key], 1000))
    elif kind == 6 and isinstance(container[key], str):
        text = container[key]
        cut = rng.randint(0, len(text))
        container[key] = rng.choice((text[:cut], text[cut:], text + text, text[:cut] + str(odd(rng)) + text[cut:]))
    elif kind == 7:
        container[key] = [container[key]] if rng.random() < 0.5 else {"value": container[key]}
    else:
        container[key] = odd(rng, words)


def mutated(value: Any, rng: random.Random, words: Sequence[str] = ()) -> Any:
    """A copy of the value with some things changed."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 8))):
        value = mutate(value, rng, words)
    return value


def text_of(value: Any) -> bytes:
    """JSON in bytes, with whatever Python calls JSON."""
    return json.dumps(value, ensure_ascii=len(str(value)) % 2 == 0).encode("utf-8", "surrogatepass")


def broken(raw: bytes, rng: random.Random) -> bytes:
    """Bytes that are no longer what they were."""
    kind, place = rng.randrange(8), rng.randint(0, len(raw))
    if kind == 0:
        return raw[:place]
    if kind == 1:
        return raw[:place] + rng.randbytes(rng.choice((1, 4, 100))) + raw[place:]
    if kind == 2 and raw:
        changed = bytearray(raw)
        for _ in range(rng.choice((1, 1, 3, 10))):
            changed[rng.randrange(len(raw))] = rng.randrange(256)
        return bytes(changed)
    if kind == 3:
        stop = rng.randint(place, len(raw))
        return raw[:place] + raw[stop:]
    if kind == 4:
        stop = min(len(raw), place + rng.choice((1, 10, 80)))
        return raw[:stop] + raw[place:stop] * rng.choice((1, 3, 200)) + raw[stop:]
    if kind == 5:
        return rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 20_000, b"\0")) + raw
    if kind == 6:
        return raw + rng.choice((b"}", b"\n---\n", b"\0" * 9, raw))
    old = rng.choice((b'"', b":", b",", b"1", b"\n", b" ", b"["))
    if rng.random() < 0.2:
        return raw.replace(old, rng.choice((b"9" * 5_000, b"1e99999", b"-0", b"0x" + b"f" * 999, b"\t")), 1)
    return raw.replace(old, rng.choice((b"", b"&a ", b"*a", b"99")))


_LAUGHS = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))])
YAML = (
    _LAUGHS, "a: &a [*a]", "&a {slices: *a}", "%YAML 9.9\n---\nslices: []", "%TAG ! tag:x,1:\n---\n!y {}", "? [a]\n: b",
    "<<: {merge_method: linear}", "<<: [*a, *b]", "!!python/object/apply:os.system [id]", "!!binary aGk=", "!!set {a}",
    "slices: !!omap [a: 1]", "- - - -", "---\n---\n---", "slices: 2001-01-01T00:00:00Z", "merge_method: |\n  linear",
    "slices: >-\n  x", "{" * 70, "[" * 70 + "]" * 70, "\tslices: []", "a: b: c", "'", "dtype: \"\\ud800\"",
    "seed: 1_000", "seed: 0b1", "seed: 1:30:00", "merge_method: !!str 1", "name: \u2028", "...", "=: 1",
    "\ufeff" * 2 + "slices: []",
)  # fmt: skip
"""Recipes, or lines of one, with what YAML has and recipes do not."""


def perhaps_broken(raw: bytes, rng: random.Random, share: float = 0.2) -> bytes:
    """`broken`, now and then."""
    return broken(raw, rng) if rng.random() < share else raw


def header(rng: random.Random) -> bytes:
    """A whole safetensors file whose header is wrong in some way; sometimes it is right."""
    spec = llama_tensors(**{**TINY, "layers": rng.choice((1, 2, 3))})
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape) in spec.items():
        nbytes = 2
        for length in shape:
            nbytes *= length
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + nbytes]}
        offset += nbytes
    words = [*DTYPES, "dtype", "shape", "data_offsets", "__metadata__", *list(spec)[:12]]
    text = text_of(mutated(table, rng, words)) if rng.random() < 0.8 else text_of(table)
    text = perhaps_broken(text, rng)
    length = len(text) if rng.random() < 0.9 else rng.choice((0, 1, 7, 2**31, 2**63, 2**64 - 1, len(text) + 1))
    data = bytes(max(0, offset + (rng.choice((-1, 1, -offset, 4096)) if rng.random() < 0.1 else 0)))
    return perhaps_broken(length.to_bytes(8, "little") + text + data, rng, 0.05)


DTYPES = ("BF16", "F16", "F32", "F64", "I8", "U8", "BOOL", "F8_E4M3", "I64", "F4", "F6_E2M3", "C64", "bf16", "Q4")

CONFIG_WORDS = (
    "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "llama4_text", "phi3", "falcon", "gpt2", "mixtral",
    "nemotron_h", "exaone4", "cohere2", "smollm3", "zamba2", "qwen3_next", "deepseek_v3", "gpt_oss", "bert", "t5",
    "full_attention", "sliding_attention", "linear_attention", "mamba", "attention", "sparse", "dense", "M-*E",
    "model_type", "architectures", "num_hidden_layers", "n_layer", "layer_types", "layers_block_type", "text_config",
    "hybrid_override_pattern", "sliding_window", "sliding_window_pattern", "max_window_layers", "use_sliding_window",
    "no_rope_layers", "no_rope_layer_interval", "mlp_only_layers", "decoder_sparse_step", "first_k_dense_replace",
    "mlp_layer_types", "num_experts", "num_local_experts", "n_routed_experts", "quantization_config", "quant_method",
    "modules_to_not_convert", "config_groups", "compression_config", "rope_scaling", "rope_parameters", "rope_theta",
    "rope_type", "factor", "yarn", "llama3", "linear", "partial_rotary_factor", "tie_word_embeddings", "vocab_size",
    "head_dim", "torch_dtype", "dtype", "attn_layer_period", "moe_layer_freq", "interleave_moe_layer_step",
    "kv_shared_layers", "num_kv_shared_layers", "window_layers", "global_attn_every_n_layers", "block_types",
)  # fmt: skip

ADAPTER_WORDS = (
    "LORA", "IA3", "peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "modules_to_save", "use_dora",
    "use_rslora", "fan_in_fan_out", "target_modules", "layer_replication", "init_lora_weights", "pissa", "q_proj",
    "base_model_name_or_path", "(a+)+$", "[", "model.layers.0.self_attn.q_proj", "layers\\.[0-9]+", "lm_head",
    "ensure_weight_tying", "lora_bias", "trainable_token_indices", "embed_tokens",
)  # fmt: skip

TOKENIZER_WORDS = (
    "model", "vocab", "merges", "added_tokens", "content", "id", "special", "normalized", "type", "BPE", "Unigram",
    "WordPiece", "WordLevel", "unk_token", "a b", ["a", "b"], "chat_template", "added_tokens_decoder", "eos_token",
    "additional_special_tokens", "{% for m in messages %}{{ m }}{% endfor %}", "{{ 9**9**9 }}", "{% include '/etc' %}",
    "{{ cycler.__init__.__globals__ }}", "<unk>", "<s>", "lstrip", "normalizer", "pre_tokenizer", "byte_fallback",
)  # fmt: skip


BASE = "./base"
"""The donor that others are taken relative to."""


@dataclass(frozen=True)
class Takes:
    """What a method takes: the fewest and most donors, whether it subtracts a base, and per parameter whether it is
    one per donor, and its values (none: numbers)."""

    donors: tuple[int, int | None]
    base: bool
    parameters: Mapping[str, tuple[bool, tuple[Any, ...]]]


class RecipeMaker:
    """Random recipes, many of them right.

    Args:
        alike: donors that fit together, with their layers.
        others: names of other donors.
        methods: by name.
    """

    def __init__(self, alike: Mapping[str, int], others: Sequence[str], methods: Mapping[str, Takes]) -> None:
        self.alike, self.others, self.methods = dict(alike), tuple(others), dict(methods)
        self.parameters = sorted({name for method in methods.values() for name in method.parameters})
        self.words = [*alike, *others, *methods, *self.parameters, *_RECIPE_WORDS]

    def recipe(self, rng: random.Random) -> dict[str, Any]:
        """One document."""
        method = rng.choice(list(self.methods))
        data: dict[str, Any] = {"merge_method": method}
        if self.methods[method].base or rng.random() < 0.4:
            data["base_model"] = BASE
        if rng.random() < 0.35:
            data["models"] = [
                self._with_parameters({"model": name}, method, rng) for name in self._several(method, rng)
            ]
        else:
            data["slices"] = [self._slice(method, rng) for _ in range(rng.choice((1, 1, 2, 3)))]
        if parameters := self._parameters(method, rng, each=False):
            data["parameters"] = parameters
        if rng.random() < 0.3:
            self._ends(data, rng)
        if rng.random() < 0.3:
            self._tokens(data, rng)
        for key, values in (("dtype", _DTYPES), ("out_dtype", _DTYPES), ("seed", (0, 1, 2**40))):
            if rng.random() < 0.2:
                data[key] = rng.choice(values)
        return data

    def _donor(self, rng: random.Random) -> str:
        return rng.choice(list(self.alike)) if rng.random() < 0.97 else rng.choice(self.others)

    def _several(self, method: str, rng: random.Random) -> list[str]:
        least, most = self.methods[method].donors
        names = rng.sample(list(self.alike), rng.randint(least, min(most or 3, 3)))
        return names if rng.random() < 0.97 else [*names[1:], rng.choice(self.others)]

    def _slice(self, method: str, rng: random.Random) -> dict[str, Any]:
        part: dict[str, Any] = {}
        if rng.random() < 0.3:
            method = part["merge_method"] = rng.choice(list(self.methods))
            if self.methods[method].base:
                part["base_model"] = BASE
        span = sorted(rng.sample(range(min(self.alike.values()) + 1), 2))
        part["sources"] = [
            self._with_parameters({"model": name, "layer_range": list(span)}, method, rng)
            for name in self._several(method, rng)
        ]
        if parameters := self._parameters(method, rng, each=False):
            part["parameters"] = parameters
        return part

    def _with_parameters(self, entry: dict[str, Any], method: str, rng: random.Random) -> dict[str, Any]:
        parameters = self._parameters(method, rng, each=True)
        return {**entry, "parameters": parameters} if parameters else entry

    def _parameters(self, method: str, rng: random.Random, each: bool) -> dict[str, Any]:
        named = {name: values for name, (per, values) in self.methods[method].parameters.items() if per is each}
        return {
            name: rng.choice(values) if values else _setting(rng)
            for name, values in named.items()
            if rng.random() < 0.97
        }

    def _ends(self, data: dict[str, Any], rng: random.Random) -> None:
        for end in ("embeddings", "final_norm", "lm_head"):
            if rng.random() < 0.3:
                data[end] = {"model": self._donor(rng)}
        for edge in ("first_layers", "last_layers"):
            if rng.random() < 0.3:
                data[edge] = {"count": rng.randint(0, 3)}
                data[edge] |= rng.choice(
                    (
                        {"model": self._donor(rng)},
                        {"parameters": {"t": [0, 1]}},
                        {"parameters": {"t": 1}, "taper": True},
                    )
                )

    def _tokens(self, data: dict[str, Any], rng: random.Random) -> None:
        source = rng.choice(("union", "base", self._donor(rng)))
        if rng.random() < 0.5:
            data["tokenizer_source"] = source
        else:
            row = {"kind": "model_token", "model": self._donor(rng), "token_id": 3}
            rows = {name: {"source": rng.choice((self._donor(rng), {"kind": "zero"}, row))} for name in ("a", "<new>")}
            data["tokenizer"] = {"source": source, "tokens": rows}
            if rng.random() < 0.4:
                data["tokenizer"]["pad_to_multiple_of"] = rng.choice((1, 8, 64, 2**14, 2**20, 10**9, 10**17))
        if rng.random() < 0.2:
            data["chat_template"] = rng.choice(("auto", "chatml", "{{ messages }}", self._donor(rng), "{{ 9**9**9 }}"))


def _setting(rng: random.Random) -> Any:
    """A parameter's value in one of the forms that it may have."""
    number = rng.choice((0, 0.3, 0.5, 1, 1, 0.9))
    kind = rng.random()
    if kind < 0.6:
        return number
    if kind < 0.8:
        return [rng.choice((0, 0.5, 1)) for _ in range(rng.randint(1, 5))]
    return [{"filter": rng.choice(("mlp", "self_attn", "o_proj", "*")), "value": _setting(rng)}, {"value": number}]


_DTYPES = ("bfloat16", "float16", "float32")
_RECIPE_WORDS = (
    "merge_method", "base_model", "models", "slices", "sources", "layer_range", "parameters", "dtype",
    "tokenizer_source", "tokenizer", "embeddings", "first_layers", "last_layers", "count", "taper", "filter", "value",
    "modules", "name", "union", "base", "<<", "&a", "*a", "!!python/object/apply:os.system", "2001-01-01", "0o17",
    ".inf", "~", "yes",
)  # fmt: skip


_EDITS = (
    "insert {m}:{r} @{n}", "insert {m}:{r} {m}:{r}", "delete {r}", "move {r} @{n}", "duplicate {r} x{n}",
    "replace {r} {m}:{r}", "reverse {r}", "end {e} {m}", "end lm_head tie", "end {e} auto", "end {e} t={v}",
    "upscale {m} m={n}", "upscale {m} m={n} n={n}", "interleave {m} {m} block={n} stride={n}",
    "selfstack {m} block={n} stride={n}", "dtype {w}", "base {m}", "base auto", "blend {r} {m}:{r} method={w} t={v}",
    "blend {r} {m}:{r} method={w} base={m}", "unblend {r} {m}", "param {r} {p}={v} filter={f} donor={m}",
    "param {r} {p}={v}", "method {r} {w}", "collapse {r}", "edges first {n} model={m}", "edges last {n} {p}={v} taper",
    "scale {r} {f}={v}", "expand {r} every={n}", "expand {r} zero={f}",
)  # fmt: skip


def edit_words(rng: random.Random, maker: RecipeMaker, recipe: str, out: str) -> list[str]:
    """A command line of `surgeon edit` with one edit or several, many of them right."""
    words = ["edit", recipe, "-o", rng.choice((out, "-"))]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        words += ["--op", _edit(rng, maker)]
    if rng.random() < 0.2:
        words += ["--donor", rng.choice((*maker.others, "./c", "a"))]
    return words


def _edit(rng: random.Random, maker: RecipeMaker) -> str:
    def fill(match: re.Match[str]) -> str:
        number = rng.choice((1, 1, 1, 2, 2, 2, 2, 0, 3, 4, 8, 100, 10**6))
        low = rng.choice((0, 0, 0, 0, 1, 1, 2, 3))
        made = {
            "m": rng.choice((*"AAAABBBC", "a", "./c", "Z", "./nowhere")),
            "r": rng.choice(
                (*[str(low)] * 3, f"{low}-{low + 1}", f"[{low},{low + rng.randint(0, 3)})", rng.choice(("0-99", "3-1")))
            ),
            "n": str(number),
            "e": rng.choice(("embeddings", "final_norm", "lm_head", "head")),
            "v": rng.choice(
                ("0.5", "0.5", "0,1", ".2,.4,.6", "1", rng.choice(("nan", "1e400", "-1", ",", "true", "l1")))
            ),
            "w": rng.choice((*maker.methods, "bfloat16", "keep", "nothing")),
            "p": rng.choice(maker.parameters),
            "f": rng.choice(("mlp", "self_attn", "o_proj", "down_proj", "*", "norm", "(")),
        }
        return made[match[1]]

    text = re.sub(r"\{(\w)\}", fill, rng.choice(_EDITS))
    if rng.random() < 0.15:
        raw = broken(text.encode(), rng)[:500].decode("utf-8", "replace")
        # A command line's words hold no NUL.
        text = raw.replace("\0", "")
    return text
