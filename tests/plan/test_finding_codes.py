"""Codes of findings: every one is listed and documented, and none that was published goes."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from surgeon.plan.finding_codes import CODES
from tests.support.paths import ROOT

PUBLISHED = [
    "architecture", "base", "base-first", "base-member", "base-missing", "blend-dtype", "blend-shapes", "buffers",
    "buffers-copied", "chat-template", "command-option", "comments", "config", "context", "donor", "donor-warning",
    "donors", "dtype-mixed", "edges", "empty", "end-gradient", "end-missing", "end-shape", "end-tensors", "filter",
    "filter-number", "head-both", "head-ignored", "head-materialised", "head-missing", "heads", "kv-heads",
    "head-dim", "intermediate-size", "experts", "head-tied", "hidden-size", "last-layer", "layer-identity",
    "layer-range", "layer-zero", "mergekit-moe", "method", "model-code", "model-code-dropped", "model-code-missing",
    "mtp", "not-spliceable", "only-base", "other-class", "other-tensors", "other-tensors-differ",
    "other-tensors-left", "other-tensors-missing", "out-dtype", "parameter", "pattern", "quantised-differs",
    "quantised-dtype", "quantised-entry", "quantised-mixed", "quantised-scale", "range-backwards", "range-empty",
    "relative-bias", "result", "rope", "rows", "scale-no-effect", "scale-type", "scope-model", "setting", "shape",
    "slice-lengths", "sources", "special-id", "stage", "stage-circle", "stage-unused", "tensor-set", "tie",
    "tied-mixed", "token-row", "token-rows", "token-table", "tokenizer", "tokenizer-padding", "tokenizer-unknown",
    "tokens-lost", "too-large", "too-many-layers", "uncounted-layers", "unknown-key", "unsupported",
    "weights-cancel",
]  # fmt: skip


def written() -> Iterator[str]:
    """The codes that stand in the program as they are."""
    for path in sorted((ROOT / "surgeon").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and len(node.args) > 1 and isinstance(node.func, ast.Name):
                code = node.args[1]
                if node.func.id in ("Finding", "note") and isinstance(code, ast.Constant):
                    yield str(code.value)


def test_every_code_of_the_program_is_listed() -> None:
    found = set(written())
    assert len(found) > 70
    assert found <= CODES.keys()


def test_no_published_code_goes_and_none_comes_unnoticed() -> None:
    assert sorted(CODES) == sorted(PUBLISHED)


def test_the_page_of_codes_is_current() -> None:
    page = (ROOT / "docs" / "findings.md").read_text()
    assert [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")] == list(CODES)
    for code, meaning in CODES.items():
        assert f"| `{code}` | {meaning} |" in page
