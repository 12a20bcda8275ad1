"""What methods say of themselves, and that asking them costs no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from surgeon.methods.catalogue import every, find, suggestion
from surgeon.methods.registry import REQUIRED
from tests.support.paths import ROOT

MERGEKIT: dict[str, dict[str, object]] = {
    "arcee_fusion": {},
    "breadcrumbs": {"weight": REQUIRED, "density": 1, "gamma": 0.01, "normalize": False, "lambda": 1},
    "breadcrumbs_ties": {"weight": REQUIRED, "density": 1, "gamma": 0.01, "normalize": False, "lambda": 1},
    "dare_linear": {"weight": REQUIRED, "density": 1, "normalize": False, "rescale": "l1", "lambda": 1},
    "dare_ties": {"weight": REQUIRED, "density": 1, "normalize": False, "rescale": "l1", "lambda": 1},
    "della": {"weight": REQUIRED, "density": 1, "epsilon": 0.15, "normalize": True, "rescale": "l1", "lambda": 1},
    "della_linear": {"weight": REQUIRED, "density": 1, "epsilon": 0.15, "normalize": False, "rescale": "l1"},
    "karcher": {"max_iter": 10, "tol": 1e-5},
    "linear": {"weight": REQUIRED, "normalize": True},
    "model_stock": {"filter_wise": False},
    "multislerp": {"weight": REQUIRED, "normalize_weights": True, "eps": 1e-8},
    "nearswap": {"t": REQUIRED},
    "nuslerp": {"weight": REQUIRED, "nuslerp_flatten": True, "nuslerp_row_wise": False},
    "passthrough": {"scale": 1},
    "ram": {"epsilon": 1e-5},
    "ramplus_tl": {"epsilon": 1e-5, "r": 0.1, "alpha": 0.2},
    "sce": {"select_topk": 1, "int8_mask": False},
    "slerp": {"t": REQUIRED},
    "task_arithmetic": {"weight": REQUIRED, "normalize": False, "lambda": 1, "int8_mask": False},
    "ties": {"weight": REQUIRED, "density": 1, "normalize": True, "rescale": "none", "lambda": 1, "int8_mask": False},
}
"""mergekit's names and defaults."""


def test_all_methods_of_mergekit_are_there() -> None:
    assert set(every()) == set(MERGEKIT)


@pytest.mark.parametrize("name", MERGEKIT)
def test_parameters_have_mergekits_names_and_defaults(name: str) -> None:
    method = find(name)
    assert method is not None
    assert MERGEKIT[name].items() <= {p.name: p.default for p in method.parameters.values()}.items()


@pytest.mark.parametrize("name", MERGEKIT)
def test_every_method_says_what_it_and_its_parameters_do(name: str) -> None:
    method = find(name)
    assert method is not None
    assert method.summary.endswith(".") and len(method.summary) < 200 and "  " not in method.summary
    assert method.source
    for parameter in method.parameters.values():
        assert parameter.help and not parameter.help.endswith("."), parameter.name
        if not parameter.required:
            assert parameter.typed(parameter.default) == parameter.default


def test_true_and_false_are_words_too() -> None:
    for name, words in (("dare_ties", ("l1", "none")), ("ties", ("l1", "none"))):
        method = find(name)
        assert method is not None
        assert tuple(method.parameters["rescale"].typed(value) for value in (True, False)) == words


def test_a_misspelt_method_is_suggested() -> None:
    assert suggestion("dare-ties") == "dare_ties"
    assert find("nothing") is None


def test_making_kernels_imports_neither_torch_nor_numpy() -> None:
    code = """
import sys
sys.path.insert(0, "tests")
from surgeon.methods import find
from surgeon.methods.catalogue import every
from surgeon.methods.registry import REQUIRED
for method in every().values():
    values = {p.name: 0.5 if p.required else p.default for p in method.parameters.values()}
    method.kernel(values, [values] * max(2, method.donors[0]))
assert not {"torch", "numpy"} & set(sys.modules), {"torch", "numpy"} & set(sys.modules)
"""
    root = ROOT
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
