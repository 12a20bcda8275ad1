"""The load-back check: does transformers build exactly the planned model from the config and the files?

    python -m surgeon.verify.load_back_child FOLDER --expect FILE.json

reads FOLDER/config.json and an expectation (see `surgeon.assemble.load_back`), and prints a `LoadBackOutcome` as JSON.
The weight files are not needed: transformers' loading code gets tensors without data, so its renamings, fused experts,
tied keys and ignored names have the same effect as for the user.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..assemble.load_back import CONFIG, Expectation, LoadBackOutcome, Mismatch
from ..checkpoint.families.model_config import DEPTH_KEYS, ModelConfig
from ..checkpoint.families.naming import find_naming
from ..checkpoint.locate import read_json_object
from ..errors import InputError, SurgeonError
from ..probe.environment import transformers
from ..probe.load import read_config
from ..text import one_line
from .layer_comparison import compare
from .resolved_model import Loaded, Resolved, depth_of, load_on_meta, resolve

TIE = "tie_word_embeddings"


def check(folder: Path, expected: Expectation) -> LoadBackOutcome:
    """Compare the model of a folder's config.json with an expectation.

    Raises:
        InputError: config.json cannot be read.
    """
    raw = read_json_object(folder / CONFIG)
    version = str(transformers().__version__)
    if why := _unknown(raw):
        return LoadBackOutcome(False, why, transformers=version)
    try:
        return _checked(raw, expected, version)
    except SurgeonError as error:
        why = error.why or error.what
        if _says_nothing(error) or ModelConfig.of(raw).quantisation or not _donor_loads(expected):
            return LoadBackOutcome(False, f"transformers cannot build the model here ({why})", transformers=version)
        refused = Mismatch(None, _key_in(why, raw), None, None, f"transformers refuses the config ({why})")
        return LoadBackOutcome(True, "", "", version, (*_depth(raw, None, expected), refused))


def _unknown(raw: Mapping[str, Any]) -> str:
    kind = raw.get("model_type")
    if kind in transformers().CONFIG_MAPPING:
        return ""
    code = ", and surgeon never runs a model's own code" if raw.get("auto_map") else ""
    return f"this transformers does not know the model type {one_line(kind)!r}{code}"


def _says_nothing(error: SurgeonError) -> bool:
    """Whether a failure is due to this installation: no class for the model, or a missing library."""
    return error.__cause__ is None or isinstance(error.__cause__, ImportError)


def _key_in(why: str, raw: Mapping[str, Any]) -> str:
    """The config key that a message of transformers names, usually in backticks; else config.json."""
    keys = ModelConfig.of(dict(raw)).text
    quoted = [word for word in re.findall(r"`(\w+)`", why) if word in keys]
    return next(iter([*quoted, *(key for key in keys if re.search(rf"\b{re.escape(key)}\b", why))]), CONFIG)


def _checked(raw: Mapping[str, Any], expected: Expectation, version: str) -> LoadBackOutcome:
    config = read_config(raw, CONFIG)
    tensors = {name: (code, tuple(shape)) for name, (code, shape) in expected["tensors"].items()}
    loaded = load_on_meta(config, tensors, CONFIG)
    model = loaded.model
    found = list(_depth(raw, depth_of(config), expected))
    if not found and expected["layers"] is not None:
        out = resolve(config, model)
        if out.depth is not None:
            text = ModelConfig.of(dict(raw)).text
            found += compare(out, expected["layers"], _donors(expected), expected["base"], text)
    found += [*_head(loaded, expected), *_names(loaded, expected)]
    found.sort(key=lambda item: item.severity != "error")
    return LoadBackOutcome(True, "", type(model).__name__, version, tuple(found))


def _depth(raw: Mapping[str, Any], found: int | None, expected: Expectation) -> Iterator[Mismatch]:
    if expected["layers"] is None:
        return
    config = ModelConfig.of(dict(raw))
    wanted, key = len(expected["layers"]), config.depth_key or DEPTH_KEYS[0]
    found = config.depth if found is None else found
    if found is not None and found != wanted:
        yield Mismatch(None, key, wanted, found, f"there should be {wanted} layers, but transformers makes {found}")


def _donors(expected: Expectation) -> dict[str, Resolved]:
    """The donors as transformers resolves them, without those that it cannot build."""
    found = {}
    for letter, raw in expected["donors"].items():
        with contextlib.suppress(SurgeonError):
            config = read_config(raw, letter)
            found[letter] = resolve(config, load_on_meta(config, {}, letter).model)
    return {letter: donor for letter, donor in found.items() if donor.depth is not None}


def _donor_loads(expected: Expectation) -> bool:
    """Whether transformers can build the config's donor; if not, a failure with the output proves nothing.

    True without a donor.
    """
    raw = expected["donors"].get(expected["base"])
    if raw is None:
        return True
    try:
        load_on_meta(read_config(raw, CONFIG), {}, CONFIG)
    except SurgeonError:
        return False
    return True


def _head(loaded: Loaded, expected: Expectation) -> Iterator[Mismatch]:
    """A mismatch if the head is tied but should not be, or the reverse."""
    wanted, model = expected["tied"], loaded.model
    head = model.get_output_embeddings()
    if wanted is None or head is None:
        return
    names = {f"{path}.weight" for path, module in model.named_modules() if module is head}
    found = not names.isdisjoint(getattr(model, "all_tied_weights_keys", ()))
    if found == wanted:
        return
    if wanted:
        message = "the head should be the embedding, but transformers gives it separate weights"
    else:
        message = "the head should have separate weights, but transformers ties it to the embedding"
    yield Mismatch(None, TIE, wanted, found, message)


def _names(loaded: Loaded, expected: Expectation) -> Iterator[Mismatch]:
    """Mismatches of names and shapes, by layer."""
    naming = find_naming(loaded.model.state_dict())

    def mismatch(name: str, wanted: object, found: object, message: str) -> Mismatch:
        place = naming.place(name) if naming else None
        layer = place.index if place and place.role == "layer" else None
        return Mismatch(layer, name, wanted, found, message)

    made = type(loaded.model).__name__
    rows = [
        mismatch(name, "a tensor", None, f"the files lack it, but a {made} of this config has it")
        for name in loaded.missing
    ]
    beside = set(expected.get("beside", ()))
    rows += [
        mismatch(name, None, "a tensor", f"the files hold it, but a {made} of this config does not have it")
        for name in loaded.unexpected
        if name not in beside
    ]
    # Tensors outside layers and ends come from the donor, where transformers ignores them too.
    if ignored := sorted(beside & set(loaded.unexpected)):
        more = f" and {len(ignored) - 1:,} more" if len(ignored) > 1 else ""
        message = f"the files hold it{more}, but a {made} of this config does not have it: transformers ignores it"
        rows.append(Mismatch(None, ignored[0], None, "a tensor", message, "warning"))
    rows += [
        mismatch(name, list(given), list(place), f"its shape is {list(given)}, but the model needs {list(place)}")
        for name, (given, place) in loaded.mismatched.items()
    ]
    rows += [
        mismatch(name, None, None, f"transformers cannot combine it from its parts ({_last_line(why)})")
        for name, why in loaded.broken.items()
    ]
    yield from sorted(rows, key=lambda item: (-1 if item.layer is None else item.layer, item.key))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def main(arguments: list[str]) -> int:
    """Print the outcome for a folder; returns the exit code 0, whatever the outcome."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m surgeon.verify.load_back_child")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--expect", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    # What libraries print goes to stderr, because stdout carries the answer.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            outcome = check(chosen.folder, json.loads(chosen.expect.read_text(encoding="utf-8")))
        except InputError as error:
            outcome = LoadBackOutcome(False, error.sentence().rstrip("."))
    print(outcome.dumps())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
