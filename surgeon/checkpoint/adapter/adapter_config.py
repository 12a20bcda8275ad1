"""The settings of a LoRA adapter: peft's adapter_config.json, which is untrusted input.

The keys and their meaning are those of `LoraConfig` in https://github.com/huggingface/peft (version 0.21).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite, sqrt
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...text import one_line
from ..header import quoted
from ..locate import read_json_object

CONFIG = "adapter_config.json"

_REFUSED = {
    "layer_replication": ("it repeats layers of its base", "assemble that stack as a checkpoint first"),
    "target_parameters": ("it adapts fused parameters, such as all experts at once", "merge it with peft"),
    "trainable_token_indices": ("it holds single rows of the embedding", "merge it with peft"),
    "lora_bias": ("its factors have biases", "merge it with peft"),
    "enable_lora": ("it adapts parts of fused projections, as only early versions of peft did", "train it again"),
    "kasa_config": ("KaSA cuts components out of the base", "merge it with peft"),
    "use_bdlora": ("the factors of BD-LoRA are stored in blocks", "merge it with peft"),
    "use_qalora": ("QALoRA belongs to a quantised base", ""),
    "arrow_config": ("Arrow chooses an adapter for every token, which merged weights cannot do", ""),
    "alora_invocation_tokens": ("it acts after certain tokens only, which merged weights cannot do", ""),
}
"""Keys that, if set, make an adapter more than low-rank sums -> why it cannot be merged, and a remedy."""

_CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Values of `init_lora_weights` that change the base before training, so that the factors do not fit the original."""

_LONGEST = 200
"""Most characters of a pattern, and of a name that is matched with one."""

_REPEATS, _BRANCHES = 3, 4
"""Most `*`, `+` or `{}` of a pattern, and most of those, `?` and groups together."""


@dataclass(frozen=True)
class AdapterConfig:
    """The settings that define the meaning of an adapter's tensors.

    Attributes:
        base: the name of the model that it was trained on, as stored in the file.
        rank: the rank of modules that no pattern matches.
        alpha: the alpha of modules that no pattern matches.
        rslora: the product is scaled by alpha / sqrt(rank) instead of alpha / rank.
        dora: the sums are scaled to stored norms.
        fan_in_fan_out: weights are stored (in, out).
        saved: endings of the names of modules that were trained in full.
        tied: changes of the embedding also apply to a tied head.
    """

    base: str
    rank: int
    alpha: float
    rslora: bool
    dora: bool
    fan_in_fan_out: bool
    saved: tuple[str, ...]
    tied: bool
    rank_pattern: Patterns
    alpha_pattern: Patterns

    def rank_of(self, module: str) -> int:
        """The rank of a module's factors."""
        found = self.rank_pattern.find(module)
        return self.rank if found is None else int(found)

    def factor_of(self, module: str) -> float:
        """The factor on the product of a module's factors (rslora: https://arxiv.org/abs/2312.03732)."""
        found, rank = self.alpha_pattern.find(module), self.rank_of(module)
        return (self.alpha if found is None else found) / (sqrt(rank) if self.rslora else rank)

    def saves(self, module: str) -> bool:
        """Whether a module was trained in full, as a copy of the base's module."""
        return module.endswith(self.saved)


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Read the config in an adapter's folder.

    Raises:
        InputError: it cannot be read, is not for LoRA, or describes an adapter that cannot be merged exactly.
    """
    path = folder / CONFIG
    raw = read_json_object(path)
    kind = raw.get("peft_type")
    if kind != "LORA":
        kind_text = (
            f"a {quoted(kind)} adapter" if isinstance(kind, str) else "an adapter whose config does not state its type"
        )
        raise _bad(
            path, f"this is {kind_text}", why="only LoRA adapters can be merged", remedy="merge it with its own tools"
        )
    for key, (why, remedy) in _REFUSED.items():
        if raw.get(key) not in (None, False, [], {}):
            raise _bad(path, f"the adapter sets {key}", why=why, remedy=remedy)
    init = raw.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(_CHANGING):
        raise _bad(
            path,
            f"the adapter was initialised with {quoted(init)} (init_lora_weights)",
            why="this changes the base, and the factors only fit the changed base",
            remedy="save it as plain LoRA: peft's save_pretrained(..., path_initial_model_for_weight_conversion=...)",
        )
    base, saved = raw.get("base_model_name_or_path"), raw.get("modules_to_save") or []
    if not isinstance(saved, list) or not all(isinstance(name, str) for name in saved):
        raise _bad(path, "modules_to_save is not a list of names")
    return AdapterConfig(
        base=base if isinstance(base, str) else "",
        rank=_rank(path, "r", raw.get("r", 8)),
        alpha=_number(path, "lora_alpha", raw.get("lora_alpha", 8)),
        rslora=_flag(path, raw, "use_rslora"),
        dora=_flag(path, raw, "use_dora"),
        fan_in_fan_out=_flag(path, raw, "fan_in_fan_out"),
        saved=tuple(name for name in saved if name),
        tied=_flag(path, raw, "ensure_weight_tying"),
        rank_pattern=Patterns(
            path, "rank_pattern", {key: _rank(path, *item) for key, *item in _pairs(path, raw, "rank")}
        ),
        alpha_pattern=Patterns(
            path, "alpha_pattern", {key: _number(path, *item) for key, *item in _pairs(path, raw, "alpha")}
        ),
    )


class Patterns:
    """A number per pattern of module names; the first pattern that matches applies.

    A pattern is a regular expression that must match a whole name, or a name without its first parts. Plain names are
    looked up literally. Other patterns may have only a few branches, because an untrusted config could otherwise make
    the matching take forever.
    """

    def __init__(self, path: Path, key: str, table: Mapping[str, float]) -> None:
        self._where, self._key = path, key
        self._values = list(table.values())
        self._plain: dict[str, int] = {}
        self._others: list[tuple[int, re.Pattern[str]]] = []
        for number, pattern in enumerate(table):
            if re.fullmatch(r"[\w.-]+", pattern):
                self._plain[pattern] = number
            else:
                self._others.append((number, self._compiled(pattern)))

    def find(self, module: str) -> float | None:
        """The number of the first pattern that matches, or None; InputError if the name is too long to be matched."""
        if self._others and len(module) > _LONGEST:
            raise _bad(self._where, f"the module name {quoted(module)} is too long to be matched with {self._key}")
        starts = [0, *(place + 1 for place, char in enumerate(module) if char == ".")]
        first = min((self._plain[module[start:]] for start in starts if module[start:] in self._plain), default=None)
        for number, pattern in self._others:
            if first is not None and first < number:
                break
            if any(pattern.fullmatch(module, start) for start in starts):
                first = number
                break
        return None if first is None else self._values[first]

    def _compiled(self, pattern: str) -> re.Pattern[str]:
        rest = re.sub(r"\\.|\[[^\]]+\]", "x", pattern.replace("(?:", "("))
        repeats, branches = len(re.findall(r"[*+{]", rest)), len(re.findall(r"[*+{?(]", rest))
        nested = re.search(r"\)[*+?{]", rest)
        if len(pattern) > _LONGEST or repeats > _REPEATS or branches > _BRANCHES or nested:
            raise _bad(
                self._where,
                f"the pattern {quoted(pattern)} in {self._key} is too complex",
                why="matching it could take forever",
                remedy="write several simpler patterns, or plain names",
            )
        try:
            return re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise _bad(self._where, f"the pattern {quoted(pattern)} in {self._key} is broken: {error}") from error


def _bad(path: Path, what: str, *, why: str = "", remedy: str = "") -> InputError:
    return InputError(what, where=one_line(path), why=why, remedy=remedy)


def _pairs(path: Path, raw: Mapping[str, Any], kind: str) -> Iterator[tuple[str, str, Any]]:
    """(pattern, its name in messages, number) of a table of patterns."""
    table = raw.get(f"{kind}_pattern") or {}
    if not isinstance(table, dict):
        raise _bad(path, f"{kind}_pattern is not a table")
    for pattern, value in table.items():
        yield pattern, f"{kind}_pattern of {quoted(pattern)}", value


def _number(path: Path, key: str, value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9 and isfinite(value):
        return float(value)
    raise _bad(path, f"{key} is {quoted(value)}, not a number")


def _rank(path: Path, key: str, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31:
        return value
    raise _bad(path, f"{key} is {quoted(value)}, not a rank")


def _flag(path: Path, raw: Mapping[str, Any], key: str) -> bool:
    value = raw.get(key)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise _bad(path, f"{key} is {quoted(value)}, not true or false")
