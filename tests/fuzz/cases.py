"""The kinds of input that `tests/fuzz/run.py` makes, and what surgeon does with each."""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surgeon.errors import SurgeonError
from tests.fuzz import inputs
from tests.fuzz import state as fuzz_state
from tests.fuzz.watch import OUT
from tests.support.sparse import TINY, header_bytes, sparse_llama, write_tokenizer

LONGEST = 300_000
"""Bytes of a recipe that is tried: reading one takes 5 s per megabyte, and 2 MB are the most that surgeon reads."""
SMALL = 5_000_000
"""Bytes of a model that is written."""
BY_COMMAND = 0.05
"""The share of inputs that a command line is tried with too."""

DEPTHS = {inputs.BASE: 4, "./a": 4, "./b": 4, "./c": 3, "./d": 4}
ALIKE = {"./a": 4, "./b": 4, "./a+./lora": 4}
OTHERS = ("./c", "./d", "./lora", "one", "org/name", "./nowhere")
ADAPTER = {
    "peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "../a", "target_modules": ["q_proj"],
    "rank_pattern": {"k_proj": 4}, "alpha_pattern": {}, "modules_to_save": None, "use_dora": False,
}  # fmt: skip
RECIPE = "r.yaml"
MODEL = "m"

Commands = list[list[str]]
"""Command lines, each without the program's name; the working directory is the case's folder."""


def write_adapter(folder: Path, config: bytes | None = None, weights: bytes | None = None) -> None:
    """A LoRA adapter for the donors' first query projection."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    spec = {name.format("A"): ("F32", (2, 16)), name.format("B"): ("F32", (16, 2))}
    (folder / "adapter_config.json").write_bytes(json.dumps(ADAPTER).encode() if config is None else config)
    data = header_bytes(spec) + bytes(256) if weights is None else weights
    (folder / "adapter_model.safetensors").write_bytes(data)


@dataclass
class World:
    """A folder that holds the case at hand, the donors that recipes name, and a folder that no file may lead to.

    Attributes:
        arithmetic: blends are written too.
    """

    folder: Path
    maker: inputs.RecipeMaker
    arithmetic: bool = False
    case: Path = field(init=False)
    secret: Path = field(init=False)
    donors: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()
        self.case, self.secret, self.donors = (self.folder / name for name in ("case", inputs.SECRET, "donors"))
        self.secret.mkdir()
        sparse_llama(self.secret, **TINY)
        (self.secret / "x.json").write_text("{}")
        for name, depth in DEPTHS.items():
            words = ["<unk>", *"abcdefgh"[: 3 + depth], "a b"] if name != "./d" else None
            vocab = 70 if name == "./c" else 64
            sparse_llama(self.donors / name, **{**TINY, "layers": depth, "vocab": vocab}, tokenizer=words)
        write_adapter(self.donors / "lora")
        fuzz_state.prepare(self)

    def fresh(self) -> Path:
        """An empty folder for the next case."""
        shutil.rmtree(self.case, ignore_errors=True)
        self.case.mkdir()
        return self.case

    def link_donors(self) -> None:
        """Put the donors beside the case's recipe."""
        for folder in self.donors.iterdir():
            (self.case / folder.name).symlink_to(folder)


# What is done with an input. Each gives whether it was accepted, or raises SurgeonError; the working directory is the
# case's folder.


def look(ref: str = ".") -> bool:
    """All that `surgeon inspect` does with a checkpoint, as text and as JSON."""
    from surgeon.checkpoint import open_checkpoint
    from surgeon.checkpoint.summary import layer_detail
    from surgeon.cli.common import finite
    from surgeon.cli.inspect import _as_dict
    from surgeon.cli.inspect_text import Opened, lines
    from surgeon.cli.table import Style, say

    checkpoint = open_checkpoint(ref)
    for layer in (None, 0, checkpoint.depth - 1, 10**6):
        try:
            detail = None if layer is None else layer_detail(checkpoint, layer)
        except SurgeonError:
            continue
        one = Opened("A", ref, checkpoint, detail)
        nowhere = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        for line in lines([one], 1, layer, True, Style()):
            say(line, nowhere)
        json.dumps(finite(_as_dict(one, True)), allow_nan=False)
    return True


def plan(world: World) -> bool:
    """All that `surgeon plan` does with a recipe, and where its plan is sound `surgeon assemble` as well."""
    from surgeon.cli.common import finite
    from surgeon.cli.plan import lines, to_dict
    from surgeon.cli.table import say
    from surgeon.plan import Donors, resolve
    from surgeon.recipe import document as documents

    document = documents.load(Path(RECIPE))
    made = resolve(document, Donors(document.roots))
    nowhere = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    for every in (False, True):
        for line in lines(made, Path(RECIPE), every_layer=every, values=every):
            say(line, nowhere)
    json.dumps(finite(to_dict(made, Path(RECIPE), values=True)), allow_nan=False)
    if made.ok and made.estimates.nbytes < SMALL and (world.arithmetic or not made.needs_arithmetic):
        from tests.support.assembling import assemble

        try:
            assemble(made, Path(OUT), recipe=document.text, fsync=False, workers=1)
        except SurgeonError as error:
            if "please report" in error.sentence():
                raise AssertionError(error.sentence()) from error
            raise
    return made.ok


def tokens(world: World) -> bool:
    """Reading a tokenizer and its vocabulary, and uniting that with another's."""
    from surgeon.checkpoint import open_checkpoint
    from surgeon.checkpoint.tokenizer.vocabulary import read_vocabulary

    checkpoint = open_checkpoint(MODEL)
    checkpoint.tokenizer  # noqa: B018 - reading it is what is tried
    with contextlib.suppress(SurgeonError):
        read_vocabulary(checkpoint.tokenizer)
    with contextlib.suppress(SurgeonError):
        look(MODEL)
    return plan(world)


def config(world: World) -> bool:
    """Looking at a model with this config, and splicing it."""
    with contextlib.suppress(SurgeonError):
        look(MODEL)
    return plan(world)


def command(words: list[str]) -> bool:
    """A command line, whole: its exit code, what it prints, and on which stream; whether it says 0.

    An AssertionError says what is not as it should be.
    """
    from surgeon.cli.app import run

    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(words)
    printed, said = (stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]
    assert code in (0, 1, 2), f"exit code {code} of {words}"
    if code:
        loose = [line for line in said.splitlines() if line and not line.startswith(_LEADS)]
        assert not loose, f"not a sentence on stderr: {loose[0]!r} of {words}"
        assert said or printed, f"exit code {code} without a word of {words}"
    # What export and edit print is the recipe, for a file: YAML itself has no control characters.
    assert "\x1b" not in printed + said, f"a control sequence is printed by {words}"
    if "--json" in words and printed:
        json.loads(printed, parse_constant=_not_json)
    return code == 0


_LEADS = ("surgeon: ", "error: ", "warning: ", "note: ")


def _not_json(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


# Making an input of each kind: files in the world's case.


def header(rng: random.Random, world: World) -> Commands:
    """A safetensors file."""
    (world.fresh() / "model.safetensors").write_bytes(inputs.header(rng))
    return [_inspect(rng, ".")]


def index(rng: random.Random, world: World) -> Commands:
    """The index of a sharded checkpoint."""
    sparse_llama(world.fresh(), **TINY, shards=3)
    path = world.case / "model.safetensors.index.json"
    data = json.loads(path.read_text())
    words = [*data["weight_map"].values(), "weight_map", "metadata", *list(data["weight_map"])[:5], *inputs.PATHS]
    words = [word.replace("{root}", str(world.folder)) for word in words]
    if rng.random() < 0.1:
        data["metadata"] = inputs.odd(rng, words)
    else:
        data = inputs.mutated(data, rng, words)
    path.write_bytes(inputs.perhaps_broken(inputs.text_of(data), rng))
    return [_inspect(rng, ".")]


def configs(rng: random.Random, world: World) -> Commands:
    """config.json of a model that is spliced."""
    kind = rng.choice(("llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", *inputs.CONFIG_WORDS[:21]))
    more = {key: inputs.odd(rng, inputs.CONFIG_WORDS) for key in rng.sample(inputs.CONFIG_WORDS[30:], 3)}
    sparse_llama(world.fresh() / MODEL, **TINY, model_type=kind, tokenizer=["<unk>", "a"])
    path = world.case / MODEL / "config.json"
    data = json.loads(path.read_text()) | (more if rng.random() < 0.5 else {})
    if rng.random() < 0.15:
        data = {"text_config": data, "model_type": rng.choice(("gemma3", "llava", "mistral3", "x"))}
    raw = inputs.perhaps_broken(inputs.text_of(inputs.mutated(data, rng, inputs.CONFIG_WORDS)), rng, 0.1)
    path.write_bytes(raw)
    (world.case / RECIPE).write_text(
        "slices:\n- sources: [{model: ./m, layer_range: [1, 3]}]\n- sources: [{model: ./m, layer_range: [0, 4]}]\n"
    )
    return [_inspect(rng, MODEL), *_with_recipe(rng)]


def tokenizer(rng: random.Random, world: World) -> Commands:
    """The files of a tokenizer, whose vocabulary is united with another's."""
    model = world.fresh() / MODEL
    sparse_llama(model, **TINY)
    write_tokenizer(model, ["<unk>", *"abcxyz"], added={"<s>": 7})
    document = json.loads((model / "tokenizer.json").read_text())
    if rng.random() < 0.5:
        merges = rng.choice((["a b", "x y"], [["a", "b"], ["x", "y"]]))
        document["model"] = {"type": "BPE", "vocab": {w: i for i, w in enumerate("abxy")}, "merges": merges}
    elif rng.random() < 0.4:
        document["model"] = {"type": "Unigram", "vocab": [["<unk>", 0.0], ["a", -1.5]], "unk_id": 0}
    files = {"tokenizer.json": document, "tokenizer_config.json": _TOKENIZER_SETTINGS, "special_tokens_map.json": {}}
    for name, value in files.items():
        if rng.random() < 0.4:
            value = inputs.mutated(value, rng, inputs.TOKENIZER_WORDS)  # type: ignore[arg-type]
        raw = json.dumps(value, indent=rng.choice((None, 2)), ensure_ascii=False).encode("utf-8", "surrogatepass")
        (model / name).write_bytes(inputs.perhaps_broken(raw, rng, 0.05))
    source = rng.choice(("union", "./m", "base"))
    other = f"{{model: {world.donors / 'b'}, parameters: {{weight: 1}}}}"
    (world.case / RECIPE).write_text(
        f"merge_method: linear\nmodels: [{{model: ./m, parameters: {{weight: 1}}}}, {other}]\nbase_model: ./m\n"
        f"tokenizer_source: {source}\n" + rng.choice(("", "chat_template: auto\n"))
    )
    return [_inspect(rng, MODEL), *_with_recipe(rng)]


_TOKENIZER_SETTINGS = {
    "eos_token": "<s>", "added_tokens_decoder": {"7": {"content": "<s>", "special": True}},
    "chat_template": "{{ x }}", "additional_special_tokens": ["<s>"],
}  # fmt: skip


def adapter(rng: random.Random, world: World) -> Commands:
    """An adapter's config and weights, merged into a donor."""
    sound = {**ADAPTER, "base_model_name_or_path": str(world.donors / "a")}
    data = inputs.mutated(sound, rng, inputs.ADAPTER_WORDS) if rng.random() < 0.6 else sound
    weights = None
    if rng.random() < 0.3:
        write_adapter(world.fresh())
        weights = inputs.broken((world.case / "adapter_model.safetensors").read_bytes(), rng)
    write_adapter(world.fresh() / "l", inputs.perhaps_broken(inputs.text_of(data), rng, 0.1), weights)
    ref = rng.choice((f"{world.donors / 'a'}+./l", "./l", f"{world.donors / 'a'}+./l+./l"))
    base = rng.choice(("", f"base_model: {world.donors / 'a'}\n"))
    (world.case / RECIPE).write_text(f"{base}slices: [{{sources: [{{model: {ref}, layer_range: [0, 3]}}]}}]\n")
    return [["inspect", "l"], *_with_recipe(rng)]


def recipe(rng: random.Random, world: World) -> Commands:
    """A recipe over sound donors."""
    from surgeon.recipe.yaml import writer

    documents = [world.maker.recipe(rng) for _ in range(rng.choice((1, 1, 1, 1, 2)))]
    for number, data in enumerate(documents[:-1]):
        data["name"] = ("one", "two")[number]
    texts = []
    for data in documents:
        if rng.random() < 0.6:
            data = inputs.mutated(data, rng, world.maker.words)
        try:
            texts.append(writer.dump(data) if isinstance(data, dict) and rng.random() < 0.5 else json.dumps(data))
        except RecursionError:
            texts.append(json.dumps(data))
    if rng.random() < 0.05:
        texts.insert(rng.randint(0, len(texts)), rng.choice(inputs.YAML))
    raw = rng.choice(("\n---\n", "\n---\n", "\n")).join(texts).encode("utf-8", "surrogatepass")
    world.fresh()
    world.link_donors()
    (world.case / RECIPE).write_bytes(inputs.perhaps_broken(raw, rng)[:LONGEST])
    return _with_recipe(rng)


def edit(rng: random.Random, world: World) -> Commands:
    """Edits as text, of a sound recipe."""
    from surgeon.recipe.yaml import writer

    world.fresh()
    world.link_donors()
    text = writer.dump(world.maker.recipe(rng))
    commented = "\n".join(line + ("  # why" if rng.random() < 0.2 else "") for line in text.splitlines())
    (world.case / RECIPE).write_text(rng.choice((text, f"# a recipe\n{commented}\n")))
    return [inputs.edit_words(rng, world.maker, RECIPE, f"{OUT}.yaml")]


def _inspect(rng: random.Random, ref: str) -> list[str]:
    flags = rng.choice(([], ["--json"], ["--tensors"], ["--json", "--tensors", "--layer", "1"], ["--layer", "0"]))
    return ["inspect", ref, *flags]


def _with_recipe(rng: random.Random) -> Commands:
    first = rng.choice((["plan", RECIPE], ["plan", RECIPE, "--json", "--values"], ["plan", RECIPE, "--layers"]))
    return [
        first,
        rng.choice((["export", RECIPE, "--mergekit"], ["export", RECIPE, "--mergekit", "-o", f"{OUT}.yaml"])),
    ]


def _nothing(_world: World) -> bool:
    return True


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        make: puts one into the world's case, and says which command lines are tried with it.
        check: what else is done with it.
        share: how many of all inputs are of this kind.
        always: every input is tried as a command line, not only `BY_COMMAND` of them.
        free: it may name any path, as the user's own recipe may.
    """

    make: Callable[[random.Random, World], Commands]
    check: Callable[[World], bool]
    share: float
    label: str
    always: bool = False
    free: bool = False


KINDS: Mapping[str, Kind] = {
    "header": Kind(header, lambda _: look(), 0.2, "safetensors headers"),
    "index": Kind(index, lambda _: look(), 0.12, "index files"),
    "config": Kind(configs, config, 0.2, "configs"),
    "tokenizer": Kind(tokenizer, tokens, 0.1, "tokenizers"),
    "adapter": Kind(adapter, plan, 0.08, "adapters"),
    "recipe": Kind(recipe, plan, 0.25, "recipes", free=True),
    "edit": Kind(edit, _nothing, 0.05, "edits", always=True, free=True),
    "state": Kind(fuzz_state.state, fuzz_state.read_back, 0.1, "surgeon's own files"),
}


def takes(method: Any) -> inputs.Takes:
    """What a method of the registry takes."""
    values = {"bool": (True, False), "int": (0, 1, 10)}
    parameters = {p.name: (p.each, p.words or values.get(p.kind, ())) for p in method.parameters.values()}
    return inputs.Takes(method.donors, method.subtracts, parameters)


def preload(arithmetic: bool) -> None:
    """Modules that are imported at first use write no file, and take no input's time or memory."""

    if arithmetic:
        import numpy  # noqa: F401
        import torch

        torch.set_num_threads(1)
