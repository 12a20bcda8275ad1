"""What `surgeon verify` does: a written model against its config, recipe, donors, hashes and transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from ..assemble.files import manifest as manifests
from ..assemble.files.manifest import Manifest
from ..assemble.files.small_files import RECIPE
from ..assemble.load_back import LoadBack, LoadBackOutcome, expectation, expectation_of, tensors_of
from ..assemble.progress_tracker import OnEvent
from ..checkpoint import Checkpoint, open_checkpoint
from ..checkpoint.locate import find
from ..errors import InputError, SurgeonError
from ..plan.load import load_plan
from ..plan.model import Plan
from ..text import plural, size
from . import audit as audits
from . import rehash
from .audit import Audit, Problem

Progress = Callable[[int], AbstractContextManager[OnEvent]]
"""Given a number of layers, shows how far the reading is."""


def verify_model(
    out: str,
    *,
    deep: bool = False,
    smoke: bool = False,
    sets: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> tuple[Audit, Checkpoint | None]:
    """Compare a checkpoint with its config, its recipe and its donors; gives the audit, and the checkpoint if it opens.

    Args:
        out: a checkpoint, such as an assembled one.
        deep: read the donors too, byte by byte.
        smoke: load it as well and run a forward pass.
        sets: donors in other places, `DONOR=PATH` each.
        progress: shows how far the reading is.

    Raises:
        InputError: there is no checkpoint of that name, or one of `sets` names no donor.
    """
    audit = Audit()
    checkpoint = _open(out, audit)
    if checkpoint is not None:
        _verify(checkpoint, audit, sets, deep, progress or _silent)
        if smoke:
            _smoke(checkpoint, audit)
    return audit, checkpoint


def _silent(layers: int) -> AbstractContextManager[OnEvent]:
    return nullcontext(lambda event: None)


def _open(out: str, audit: Audit) -> Checkpoint | None:
    """The checkpoint; None if its files are broken, which is a problem of the audit.

    Raises:
        InputError: there is no checkpoint of that name.
    """

    path = find(out)
    if not any(path.glob("*.safetensors*")) if path.is_dir() else path.suffix != ".safetensors":
        raise InputError("this holds no safetensors", where=out, remedy="give the folder of a checkpoint")
    try:
        return open_checkpoint(out)
    except InputError as error:
        where = error.where.removeprefix(f"{path}/") if error.where != str(path) else ""
        audit.problems.append(Problem(f"{error.what}, because {error.why}" if error.why else error.what, where))
        return None


def _verify(checkpoint: Checkpoint, audit: Audit, sets: Sequence[str] | None, deep: bool, progress: Progress) -> None:
    """All checks but the forward pass. transformers resolves the config while the bytes are read."""

    audit.checked.append(f"headers: {plural(len(checkpoint.files), 'file')}, whole and in order")
    plan, manifest = _plan(checkpoint, audit, sets), _manifest(checkpoint, audit)
    if checkpoint.config is None:
        audit.unchecked.append("the config: there is no config.json")
        if manifest:
            _rehash(checkpoint, manifest, plan, audit, deep, progress)
        return
    audit.take(audits.table_problems(checkpoint), "the layer table: as config.json says")
    expected = {**expectation(plan), "tensors": tensors_of(checkpoint)} if plan else expectation_of(checkpoint)
    # A config with another number of layers than the files is reported and not built: it may count a billion.
    whole = checkpoint.config.depth in (None, checkpoint.depth)
    with LoadBack(checkpoint.config.raw, expected) if whole else nullcontext() as child:
        if plan:
            done = "names, shapes, dtypes, config and tokenizer: as the recipe has them"
            audit.take(audits.plan_problems(checkpoint, plan), done)
        if manifest:
            _rehash(checkpoint, manifest, plan, audit, deep, progress)
        elif plan:
            _compare(checkpoint, plan, audit, progress)
        outcome = child.outcome() if child else LoadBackOutcome(False, "not all layers of its config are there")
    if not outcome.checked:
        audit.unchecked.append(f"what transformers makes of it: {outcome.why}")
        return
    audit.take(
        audits.load_problems(outcome.errors, list(audit.problems), checkpoint.naming),
        f"transformers {outcome.transformers} makes a {outcome.model} of it, every tensor in its place",
    )
    audit.unchecked += outcome.warnings


def _plan(checkpoint: Checkpoint, audit: Audit, sets: Sequence[str] | None) -> Plan | None:
    """The plan of the recipe next to the weights; None if it cannot be made, with the reason in `unchecked`."""

    path = checkpoint.folder / RECIPE
    if not path.is_file():
        audit.unchecked.append(f"recipe and donors: there is no {RECIPE}")
        return None
    try:
        # A donor that was named by an absolute path is published by its folder's name, and often lies beside the model.
        _, plan = load_plan(path, sets, roots=(checkpoint.folder, checkpoint.folder.absolute().parent))
    except SurgeonError as error:
        if sets:
            raise
        audit.unchecked.append(f"recipe and donors: {error.sentence().rstrip('.')}")
        return None
    if not plan.ok:
        audit.unchecked.append(
            f"recipe and donors: {plan.errors[0].sentence().rstrip('.')} (--set gives the donor another path)"
        )
        return None
    return plan


def _manifest(checkpoint: Checkpoint, audit: Audit) -> Manifest | None:
    """The manifest next to the weights; None if there is none, or if it cannot be read, which is a problem."""

    try:
        found = manifests.read(checkpoint.folder)
    except InputError as error:
        audit.problems.append(Problem(f"{error.what}, because {error.why}" if error.why else error.what, error.where))
        return None
    if found is None:
        audit.unchecked.append(f"hashes: there is no {manifests.MANIFEST}")
    return found


def _rehash(
    checkpoint: Checkpoint, manifest: Manifest, plan: Plan | None, audit: Audit, deep: bool, progress: Progress
) -> None:
    """Compare every byte with its hash, and copies with their donors, whose bytes are read if a header changed."""

    files = {problem.file for problem in audit.problems}
    tensors = {problem.tensor for problem in audit.problems}
    whole = [problem for problem in rehash.file_problems(checkpoint, manifest) if problem.file not in files]
    names = [problem for problem in rehash.name_problems(checkpoint, manifest) if problem.tensor not in tensors]
    audit.take(iter([*whole, *names]), "files: those that were written, by name, length and header")
    total = sum(checkpoint.tensors[name].nbytes for name in manifest.tensors if name in checkpoint.tensors)
    with progress(checkpoint.depth) as show:
        wrong = {problem.tensor: problem for problem in rehash.hash_problems(checkpoint, manifest, show)}
    if not wrong:
        computed = sum(record.source is None for record in manifest.tensors.values())
        finite = "" if manifest.lenient or not computed else f", and {plural(computed, 'computed one')} finite"
        count = plural(len(manifest.tensors), "tensor")
        audit.checked.append(f"{count}, {size(total)}: as written, by their hashes{finite}")
    if plan is None:
        audit.problems += wrong.values()
        return
    changed = {} if deep else rehash.changed_sources(manifest, plan)
    pairs = audits.copied(checkpoint, plan)
    again = [pair for pair in pairs if deep or pair[0].name in wrong or pair[0].entry.file in changed]
    with progress(checkpoint.depth) as show:
        # Where a byte differs from the donor's, that says more than a hash.
        different = {problem.tensor: problem for problem in audits.byte_problems(again, plan, show)}
    wrong |= different
    audit.problems += wrong.values()
    if pairs and not any(tensor.name in wrong for tensor, _ in pairs):
        total, how = sum(entry.nbytes for _, entry in pairs), "byte by byte" if deep or changed else "by hash"
        audit.checked.append(f"{plural(len(pairs), 'tensor')}, {size(total)}: their donors' to the bit, {how}")


def _compare(checkpoint: Checkpoint, plan: Plan, audit: Audit, progress: Progress) -> None:
    """Compare copies with their donors, for a model without a manifest."""

    pairs = audits.copied(checkpoint, plan)
    total = sum(entry.nbytes for _, entry in pairs)
    with progress(checkpoint.depth) as show:
        audit.take(
            audits.byte_problems(pairs, plan, show),
            f"{plural(len(pairs), 'tensor')}, {size(total)}: their donors' to the bit",
        )
    if note := audits.computed(plan):
        audit.unchecked.append(note)


def _smoke(checkpoint: Checkpoint, audit: Audit) -> None:
    """A forward pass."""
    from ..probe.subject import from_checkpoint
    from ..probe.text_measures import finite_on_ids

    try:
        subject = from_checkpoint(checkpoint, any_class=True)
        if not finite_on_ids(subject):
            audit.problems.append(Problem("a forward pass gives numbers that are not finite"))
            return
    except InputError as error:
        audit.unchecked.append(f"a forward pass: {error.sentence().rstrip('.')}")
    except SurgeonError as error:
        audit.problems.append(Problem(f"a forward pass fails: {error.sentence().rstrip('.')}"))
    else:
        audit.checked.append(f"a forward pass on {subject.device}: finite numbers")
