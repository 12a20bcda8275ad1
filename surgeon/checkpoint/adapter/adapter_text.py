"""What an adapter is, in words: base, rank, alpha, targets."""

from __future__ import annotations

from collections import Counter

from ...text import one_line, plural
from .lora import Adapter


def adapter_facts(adapter: Adapter) -> dict[str, str]:
    """Facts about an adapter, by name: base, rank, alpha, kind, targets, modules trained in full."""
    config = adapter.config
    facts = {"base": one_line(config.base) or "not named"}
    ranks = Counter(config.rank_of(module) for module in adapter.factors)
    factors = Counter(round(config.factor_of(module), 6) for module in adapter.factors)
    if ranks:
        facts["rank"] = _spread(ranks)
        facts["alpha"] = f"{config.alpha:g}, so products are scaled by {_spread(factors)}"
    kinds = [name for name, wanted in (("rsLoRA", config.rslora), ("DoRA", config.dora)) if wanted]
    facts["kind"] = ", ".join(["LoRA", *kinds])
    targets = Counter(module.rpartition(".")[2] for module in adapter.factors)
    facts["targets"] = ", ".join(f"{one_line(name)} ({count})" for name, count in targets.items()) or "none"
    if adapter.stored:
        facts["stored in full"] = plural(len(adapter.stored), "tensor")
    return facts


def _spread(counts: Counter[int] | Counter[float]) -> str:
    """The values, the commonest first."""
    return " or ".join(f"{value:g}" for value, _ in counts.most_common(4))
