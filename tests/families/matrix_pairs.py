"""The matrix of model families with two donors: their blend, and a stack of one's first and the other's last layers.

    python tests/families/matrix_pairs.py [NAME...]    tries every case, or those named, and tells what came out

A blend comes out right when every floating-point tensor of the output is the mean of the donors', rounded once. A
join comes out right when its files hold what runs before the layers from the donor of the first layers, what runs after
them from the donor of the last ones, and when it computes what those parts compute together in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.families.matrix import (
    CASES,
    DEPTH,
    Case,
    Outcome,
    find_stacks,
    load,
    logits,
    make_donor,
    written,
)
from tests.support.planning import stack_of

BLEND = """
merge_method: linear
models:
- {model: a, parameters: {weight: 0.5}}
- {model: b, parameters: {weight: 0.5}}
"""
JOINED = DEPTH // 2


def tensors_of(folder: Path) -> dict[str, Any]:
    """Every tensor of a checkpoint's files, by name."""
    from safetensors.torch import load_file

    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def outcomes(case: Case, folder: Path) -> Iterator[tuple[str, Outcome]]:
    """What becomes of the blend and of the join of two donors of a case, of which `a` may be there."""
    for seed, name in enumerate("ab"):
        if not (folder / name).is_dir():
            make_donor(case, folder / name, seed)
    yield "blend", _blended(folder)
    yield "join", _joined(folder)


def _blended(folder: Path) -> Outcome:
    _, problem = written(folder, "blend", BLEND)
    if problem:
        return problem
    return compare_means(*(tensors_of(folder / name) for name in ("a", "b", "blend")))


def compare_means(first: dict[str, Any], second: dict[str, Any], made: dict[str, Any]) -> Outcome:
    """Whether every floating-point tensor of `made` is the mean of the two others', and none is missing."""
    import torch

    if made.keys() != first.keys():
        return Outcome("wrong", f"other tensors: {sorted(made.keys() ^ first.keys())[:5]}")
    for name, tensor in made.items():
        if tensor.is_floating_point():
            mean = (first[name].double() + second[name].double()) / 2
            if not torch.equal(tensor, mean.to(tensor.dtype)):
                which = [k for k, donor in (("A", first), ("B", second)) if torch.equal(tensor, donor[name])]
                return Outcome("wrong", f"{name} is {which[0] + chr(39) + 's' if which else 'no mean'}")
            if torch.equal(first[name], second[name]):
                return Outcome("wrong", f"{name} is the same in both donors, which proves nothing")
    return Outcome("right")


def _joined(folder: Path) -> Outcome:
    import torch

    made, problem = written(folder, "join", stack_of(("a", 0, JOINED), ("b", JOINED, DEPTH)))
    if problem:
        return problem
    (one, _), (other, _) = load(folder / "a"), load(folder / "b")
    after = runs_after(one)
    wanted = combined(one, other, after)
    for name, tensor in made.state_dict().items():
        if name in wanted and not torch.equal(tensor, wanted[name]):
            whose = "after" if name in after else "elsewhere"
            return Outcome("wrong", f"{name} ({whose}) is not the right donor's")
    # The output's own class computes it, from tensors put together here.
    plain, found = logits(one), logits(made)
    made.load_state_dict(wanted, strict=False)
    if not torch.equal(found, logits(made)):
        return Outcome("wrong", "the logits differ")
    if torch.equal(found, plain) or torch.equal(found, logits(other)):
        return Outcome("wrong", "the stack computes what a donor does, which proves nothing")
    return Outcome("right")


def combined(one: Any, other: Any, after: set[str]) -> dict[str, Any]:
    """The tensors of a join: those of the last layers and of what runs after them are the other donor's."""
    prefixes = [f"{path}." for path, _ in find_stacks(one, DEPTH)]
    theirs = other.state_dict()
    found = {}
    for name, tensor in one.state_dict().items():
        index = next((name[len(prefix) :].partition(".")[0] for prefix in prefixes if name.startswith(prefix)), "")
        last = int(index) >= JOINED if index.isdigit() else name in after
        found[name] = (theirs[name] if last else tensor).clone()
    return found


def runs_after(model: Any) -> set[str]:
    """Names of the tensors whose modules run after the last layer and not before it, a tied head's among them."""
    stacks = [layer for _, stack in find_stacks(model, DEPTH) for layer in stack]
    inside = {id(module) for layer in stacks for module in layer.modules()}
    # mllama skips layers without images.
    ran: set[int] = set()
    counted = [layer.register_forward_hook(lambda layer, *_: ran.add(id(layer))) for layer in stacks]
    logits(model)
    for handle in counted:
        handle.remove()
    done, most = 0, min(DEPTH, len(ran))
    before: set[str] = set()
    after: set[str] = set()
    handles = []

    def count(*_: Any) -> None:
        nonlocal done
        done += 1

    def note(path: str) -> Any:
        def hook(*_: Any) -> None:
            (after if done >= most else before).add(path)

        return hook

    for layer in stacks:
        handles.append(layer.register_forward_hook(count))
    for path, module in model.named_modules():
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        if own and id(module) not in inside:
            handles.append(module.register_forward_pre_hook(note(path)))
    logits(model)
    for handle in handles:
        handle.remove()
    found = {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if path in after - before
        for name, _ in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    }
    # Added by the outermost module itself, at its end.
    found.add("final_logits_bias")
    return found & model.state_dict().keys()


def main(arguments: Sequence[str]) -> int:
    """Try the cases named, or all."""
    import tempfile

    import torch
    from transformers import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    for name in arguments or list(CASES):
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = dict(outcomes(CASES[name], Path(folder)))
            except Exception as error:
                print(f"{name}: {type(error).__name__} {str(error)[:300]}", flush=True)
                continue
        told = [f"{kind}: {outcome.state} {outcome.why[:300]}" for kind, outcome in found.items()]
        print(f"{name}:", " | ".join(told), flush=True)
    return 0
