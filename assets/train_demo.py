"""Train the demo's tiny Llama checkpoints from nothing: one base and three fine-tunes of it.

    python assets/train_demo.py OUT_DIR [--steps-scale X]

Every checkpoint answers prompts such as ``reverse 41723 =`` with digits (``32714``).  The base is
stopped early, so it does every skill a little; each fine-tune does one of them nearly perfectly.
``reverse`` trains only the front half of the layers, ``add3`` only the back half, ``sort`` all of
them; the rest stays the base's, bit for bit.  So a map of the differences shows where to cut.

Training is friendly to layer surgery: at every step a few layers are skipped and a few run twice
(stochastic depth), so that a layer tolerates neighbours it was not trained beside.  Everything is
seeded and single-threaded: on one machine a second run writes the same bytes.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

SKILLS: dict[str, Callable[[str], str]] = {
    "reverse": lambda digits: digits[::-1],
    "sort": lambda digits: "".join(sorted(digits)),
    "add3": lambda digits: "".join(str((int(d) + 3) % 10) for d in digits),
}
LENGTHS = (4, 5, 6)
PROBES_PER_SKILL = 64
BATCH = 96
LAYERS = 8
SKIP, TWICE = 0.04, 0.04  # chance that a layer is left out of, or run twice in, one training step


@dataclass(frozen=True)
class Stage:
    """One training run: which skills it sees and how often, for how long, how fast, in which layers."""

    name: str
    mix: dict[str, float]
    steps: int
    lr: float
    seed: int
    layers: range = range(LAYERS)


BASE = Stage("base", {"reverse": 0.5, "sort": 0.15, "add3": 0.35}, steps=260, lr=2e-3, seed=1)
FINE_TUNES = (
    Stage("reverse", {"reverse": 0.92, "sort": 0.04, "add3": 0.04}, 550, 1.5e-3, 2, range(4)),
    Stage("sort", {"reverse": 0.04, "sort": 0.92, "add3": 0.04}, 300, 1e-3, 3),
    Stage("add3", {"reverse": 0.04, "sort": 0.04, "add3": 0.92}, 550, 2e-3, 4, range(4, 8)),
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any text round-trips; task words are one token, digits stand alone."""
    vocab = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>"])}
    for symbol in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocab[symbol] = len(vocab)
    merges = []
    for word in ("reverse", "sort", "add", "Ġ="):
        for end in range(2, len(word) + 1):
            merges.append((word[: end - 1], word[end - 1]))
            vocab[word[:end]] = len(vocab)
    core = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", vocab["<s>"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
        model_max_length=64,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """An untrained Llama: 8 layers of width 64, 4 heads that share 2 key/value heads."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        initializer_range=0.12,  # about 1/sqrt(64): every layer works from the start, not only the first few
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    ids = {key: getattr(config, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**ids, do_sample=False)
    return model


def held_out(digits: str) -> bool:
    """Whether a digit string is kept from training, for probes: one in eight, alike for all skills."""
    return zlib.crc32(digits.encode()) % 8 == 0


def draw_digits(rng: random.Random, probe: bool) -> str:
    """A random digit string, from the held-out ones if ``probe``, else from the others."""
    while True:
        digits = "".join(rng.choices("0123456789", k=rng.choice(LENGTHS)))
        if held_out(digits) == probe:
            return digits


def prompt_for(skill: str, digits: str) -> str:
    """The text a person would type."""
    return f"{skill} {digits} ="


def make_batch(
    tokenizer: PreTrainedTokenizerFast, rng: random.Random, mix: dict[str, float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and next-token labels; only the answer and its end token are learned (-100 elsewhere)."""
    rows, starts = [], []
    for skill in rng.choices(list(mix), weights=list(mix.values()), k=BATCH):
        digits = draw_digits(rng, probe=False)
        prompt = tokenizer(prompt_for(skill, digits))["input_ids"]
        answer = tokenizer(" " + SKILLS[skill](digits), add_special_tokens=False)["input_ids"]
        rows.append([*prompt, *answer, tokenizer.eos_token_id])
        starts.append(len(prompt))
    ids = torch.full((BATCH, max(map(len, rows))), tokenizer.pad_token_id)
    labels = torch.full_like(ids, -100)
    for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
        ids[i, : len(row)] = torch.tensor(row)
        labels[i, start - 1 : len(row) - 1] = ids[i, start : len(row)]
    return ids, labels


@contextmanager
def shuffled_depth(model: LlamaForCausalLM, rng: random.Random) -> Iterator[None]:
    """Run the model for one step with a few layers skipped and a few run twice."""
    layers, depth = model.model.layers, model.config.num_hidden_layers
    times = rng.choices((0, 1, 2), weights=(SKIP, 1 - SKIP - TWICE, TWICE), k=depth)
    run = [layer for layer, n in zip(layers, times, strict=True) for _ in range(n)]
    model.model.layers = torch.nn.ModuleList(run)
    model.config.num_hidden_layers = sum(times)
    try:
        yield
    finally:
        model.model.layers, model.config.num_hidden_layers = layers, depth


def freeze_all_but(model: LlamaForCausalLM, layers: range) -> None:
    """Leave only these layers to train; the embeddings and head train too if all layers do."""
    model.requires_grad_(len(layers) == LAYERS)
    for i in layers:
        model.model.layers[i].requires_grad_(True)


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, stage: Stage, scale: float) -> None:
    """Train in place: AdamW, a short warm-up, then a linear fall of the learning rate to a tenth."""
    freeze_all_but(model, stage.layers)
    rng, steps = random.Random(stage.seed), max(1, round(stage.steps * scale))
    optimizer = torch.optim.AdamW(model.parameters(), lr=stage.lr, betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = stage.lr * min(1.0, (step + 1) / 30) * (1 - 0.9 * step / steps)
        ids, labels = make_batch(tokenizer, rng, stage.mix)
        with shuffled_depth(model, rng):
            logits = model(input_ids=ids, use_cache=False).logits
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
            optimizer.zero_grad()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            print(f"  {stage.name}: step {step + 1}/{steps}, loss {loss.item():.3f}", flush=True)
    model.eval()


def write_probes(folder: Path) -> dict[str, list[dict[str, str]]]:
    """One file of held-out prompts and expected answers per skill; returns them too."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, probes = random.Random(0), {}
    for skill, answer in SKILLS.items():
        drawn = dict.fromkeys(draw_digits(rng, probe=True) for _ in range(4 * PROBES_PER_SKILL))
        chosen = list(drawn)[:PROBES_PER_SKILL]
        probes[skill] = [{"prompt": prompt_for(skill, d), "expected": answer(d)} for d in chosen]
        lines = "".join(json.dumps(probe) + "\n" for probe in probes[skill])
        (folder / f"{skill}.jsonl").write_text(lines, encoding="utf-8")
    return probes


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Round to bfloat16 (in place) and write, with the tokenizer, as AutoModel and AutoTokenizer read it."""
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings.pop("backend", None)
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name that older releases know too
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


@torch.inference_mode()
def exact_match(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, probes: list[dict[str, str]]) -> float:
    """The share of probes whose greedy answer, as text, is exactly the expected one."""
    right = 0
    for probe in probes:
        prompt = tokenizer(probe["prompt"], return_tensors="pt", return_token_type_ids=False)
        out = model.generate(**prompt, max_new_tokens=10, do_sample=False)
        text = tokenizer.decode(out[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
        right += text.strip() == probe["expected"]
    return right / len(probes)


def score_checkpoint(folder: Path, probes: dict[str, list[dict[str, str]]]) -> dict[str, float]:
    """Load a checkpoint from disk, as bfloat16, and score it on every skill."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return {skill: exact_match(model, tokenizer, lines) for skill, lines in probes.items()}


def make_deterministic() -> None:
    """One thread and deterministic kernels, so that a second run gives the same bytes."""
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def train_all(out: Path, scale: float) -> None:
    """Train the base, then each fine-tune from the base as it is stored (rounded to bfloat16)."""
    tokenizer = build_tokenizer()
    base = build_model(tokenizer, BASE.seed)
    train(base, tokenizer, BASE, scale)
    save(base, tokenizer, out / BASE.name)
    for stage in FINE_TUNES:
        model = AutoModelForCausalLM.from_pretrained(out / BASE.name, dtype=torch.float32)
        train(model, tokenizer, stage, scale)
        save(model, tokenizer, out / stage.name)


def print_scores(out: Path, probes: dict[str, list[dict[str, str]]]) -> None:
    """Print the exact-match table: a row per checkpoint, a column per skill."""
    print(f"{'':10}" + "".join(f"{skill:>10}" for skill in probes))
    for stage in (BASE, *FINE_TUNES):
        scores = score_checkpoint(out / stage.name, probes)
        print(f"{stage.name:10}" + "".join(f"{score:10.3f}" for score in scores.values()), flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("--steps-scale", type=float, default=1.0, help="multiply all step counts by this")
    args = parser.parse_args()
    make_deterministic()
    started = time.monotonic()
    probes = write_probes(args.out / "probes")
    train_all(args.out, args.steps_scale)
    print(f"trained in {time.monotonic() - started:.0f} s")
    print_scores(args.out, probes)


if __name__ == "__main__":
    main()
