"""The shapes of recipes that are often published, in their authors' way of writing, plan without an error.

Each shape also names values of some output tensors, so that a plan that reads a filter, a gradient or an anchor in
another way fails.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from surgeon.plan import Plan
from surgeon.plan.model import PlannedTensor
from surgeon.plan.operands import Blend, Convert, Copy
from tests.support.planning import found, plan_of
from tests.support.sparse import sparse_llama

DEPTH = 16
ATTENTION = "self_attn.{}_proj.weight"


@dataclass(frozen=True)
class Shape:
    """A recipe over donors a, b, c of 16 layers, and what its plan holds.

    Attributes:
        labels: provenance of some output layers.
        factors: tensor -> what it is multiplied by; 1 for copied bytes.
        values: (tensor, parameter, number of the source or None) -> its value.
    """

    text: str
    layers: int
    labels: dict[int, str] = field(default_factory=dict)
    factors: dict[str, float] = field(default_factory=dict)
    values: dict[tuple[str, str, int | None], float] = field(default_factory=dict)


def tensor(layer: int, rest: str) -> str:
    return f"model.layers.{layer}.{rest}"


OUT, DOWN, Q, K, V = "self_attn.o_proj.weight", "mlp.down_proj.weight", *(ATTENTION.format(part) for part in "qkv")
GATE, NORM = "mlp.gate_proj.weight", "input_layernorm.weight"

SHAPES = {
    # A repeat whose second copy adds less: residual scale on o_proj and down_proj, attenuation on q_proj and k_proj,
    # all four kept in anchors of the top level.
    "damped-repeat": Shape(
        """
const_tag: &MODEL a
residual_scale_factor: &RESIDUAL_SCALE_FACTOR 0.7071067812
qk_attenuation_factor: &QK_ATTENUATION_FACTOR 0.8408964153
scale-filter-env: &scale_filter_env
  parameters:
    scale:
      - filter: o_proj
        value: *RESIDUAL_SCALE_FACTOR
      - filter: down_proj
        value: *RESIDUAL_SCALE_FACTOR
      - filter: q_proj
        value: *QK_ATTENUATION_FACTOR
      - filter: k_proj
        value: *QK_ATTENUATION_FACTOR
      - value: 1.0
slices:
  - sources:
      - model: *MODEL
        layer_range: [0, 4]
  - sources:
      - model: *MODEL
        layer_range: [4, 8]
        <<: *scale_filter_env
  - sources:
      - model: *MODEL
        layer_range: [4, 12]
        <<: *scale_filter_env
  - sources:
      - model: *MODEL
        layer_range: [12, 16]
merge_method: passthrough
dtype: bfloat16
""",
        20,
        {4: "A04", 8: "A04", 19: "A15"},
        {
            tensor(3, OUT): 1, tensor(4, OUT): 0.7071067812, tensor(8, DOWN): 0.7071067812, tensor(8, Q): 0.8408964153,
            tensor(8, K): 0.8408964153, tensor(8, V): 1, tensor(8, NORM): 1, tensor(16, OUT): 1,
        },
    ),
    # Two donors joined in turns, with the scales of one of them held down at each entry, as miqu's stacks are written.
    "miqu-scales": Shape(
        """
merge_method: passthrough
slices:
- sources: [{model: a, layer_range: [0, 6]}]
- sources:
  - model: b
    layer_range: [4, 10]
    parameters:
      scale:
      - {filter: q_proj, value: [0.8, 1.0]}
      - {filter: k_proj, value: [0.8, 1.0]}
      - {filter: down_proj, value: 0.5}
      - value: 1
- sources: [{model: a, layer_range: [8, 16]}]
dtype: bfloat16
tokenizer_source: model:a
""",
        20,
        {6: "B04", 12: "A08"},
        {
            tensor(6, Q): 0.8, tensor(8, Q): 0.88, tensor(11, K): 1, tensor(9, DOWN): 0.5, tensor(9, GATE): 1,
            tensor(12, DOWN): 1,
        },
    ),
    # The gradient slerp of most notebooks, and one that also takes the norms by a filter.
    "slerp-gradient-norms": Shape(
        """
slices:
  - sources:
      - model: a
        layer_range: [0, 16]
      - model: b
        layer_range: [0, 16]
merge_method: slerp
base_model: a
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - filter: layernorm
      value: [0.25, 0.75]
    - value: 0.5 # fallback for rest of tensors
dtype: bfloat16
""",
        16,
        {0: "A00~B00"},
        values={
            (tensor(0, Q), "t", None): 0, (tensor(15, Q), "t", None): 1, (tensor(0, GATE), "t", None): 1,
            (tensor(15, DOWN), "t", None): 0, (tensor(0, NORM), "t", None): 0.25,
            (tensor(15, "post_attention_layernorm.weight"), "t", None): 0.75, (tensor(3, NORM), "t", None): 0.35,
            ("lm_head.weight", "t", None): 0.5,
        },
    ),
    "slerp-embed": Shape(
        """
models:
  - model: a
  - model: b
merge_method: slerp
base_model: a
tokenizer_source: union
parameters:
  t:
    - {filter: embed_tokens, value: 0.0}
    - {filter: lm_head, value: 0.1}
    - {filter: model.norm, value: 0.2}
    - value: [0.5, 0.9]
  embed_slerp: true
dtype: float16
out_dtype: bfloat16
""",
        16,
        values={
            ("lm_head.weight", "t", None): 0.1, ("model.norm.weight", "t", None): 0.2, (tensor(15, Q), "t", None): 0.9,
        },
    ),
    # TIES as its authors' example writes it: densities by gradient, weights by filter.
    "ties-gradients": Shape(
        """
models:
  - model: a
    parameters:
      density: [1, 0.7, 0.1] # density gradient
      weight: 1.0
  - model: b
    parameters:
      density: 0.5
      weight: [0, 0.3, 0.7, 1] # weight gradient
  - model: c
    parameters:
      density: 0.33
      weight:
        - filter: mlp
          value: 0.5
        - value: 0
merge_method: ties
base_model: base
parameters:
  normalize: true
  int8_mask: true
dtype: float16
""",
        16,
        values={
            (tensor(0, Q), "density", 0): 1, (tensor(15, Q), "density", 0): 0.1, (tensor(5, Q), "weight", 1): 0.3,
            (tensor(5, Q), "weight", 2): 0, (tensor(5, GATE), "weight", 2): 0.5,
        },
    ),
    "dare-ties-three": Shape(
        """
models:
  - model: base
    # No parameters necessary for base model
  - model: a
    parameters: {density: 0.53, weight: 0.4}
  - model: b
    parameters: {density: 0.53, weight: 0.3}
  - model: c
    parameters: {density: 0.53, weight: 0.3}
merge_method: dare_ties
base_model: base
parameters:
  int8_mask: true
dtype: bfloat16
random_seed: 0
""",
        16,
        values={(tensor(7, Q), "weight", 1): 0.4, (tensor(7, Q), "density", 3): 0.53},
    ),
    # Slices of unlike weights, one method, merge keys for what repeats.
    "slices-with-merge-keys": Shape(
        """
defaults: &half
  parameters:
    weight: 0.5
merge_method: linear
slices:
- sources:
  - {model: a, layer_range: [0, 8], <<: *half}
  - {model: b, layer_range: [0, 8], <<: *half}
- sources:
  - {model: a, layer_range: [8, 16], parameters: {weight: 0.8}}
  - {model: c, layer_range: [8, 16], parameters: {weight: 0.2}}
dtype: bfloat16
""",
        16,
        {7: "A07~B07", 8: "A08~C08"},
        values={(tensor(0, Q), "weight", 0): 0.5, (tensor(8, Q), "weight", 1): 0.2},
    ),
    # First and last layers blended from all donors, the middle stacked: two stages, the second by the first's name.
    "stages-blended-ends": Shape(
        """
name: blended
merge_method: model_stock
base_model: base
models: [{model: a}, {model: b}, {model: c}]
parameters: {filter_wise: false}
dtype: bfloat16
---
merge_method: passthrough
slices:
- sources: [{model: blended, layer_range: [0, 4]}]
- sources: [{model: a, layer_range: [4, 12]}]
- sources: [{model: b, layer_range: [8, 14]}]
- sources: [{model: blended, layer_range: [12, 16]}]
dtype: bfloat16
""",
        22,
    ),
    # Several files of one: the specialists first, then their merge by gradients, then the finish.
    "stages-three": Shape(
        """
name: one
merge_method: della_linear
base_model: base
models:
- {model: a, parameters: {weight: 0.6, density: 0.5, epsilon: 0.2, lambda: 1.1}}
dtype: bfloat16
---
name: two
merge_method: breadcrumbs
base_model: base
models:
- {model: b, parameters: {weight: 0.7, density: 0.9, gamma: 0.01}}
dtype: bfloat16
---
merge_method: slerp
base_model: one
slices:
- sources:
  - {model: one, layer_range: [0, 8]}
  - {model: two, layer_range: [0, 8]}
- sources:
  - {model: one, layer_range: [8, 16]}
  - {model: two, layer_range: [8, 16]}
parameters: {t: [0.1, 0.6]}
dtype: bfloat16
""",
        16,
        values={(tensor(0, Q), "t", None): 0.1, (tensor(8, Q), "t", None): 0.1, (tensor(15, Q), "t", None): 0.6},
    ),
    "self-stack-small": Shape(
        """
slices:
- sources:
  - layer_range: [0, 5]
    model: a
- sources:
  - layer_range: [2, 8]
    model: a
- sources:
  - layer_range: [5, 10]
    model: a
- sources:
  - layer_range: [10, 16]
    model: a
merge_method: passthrough
dtype: float16
""",
        22,
        {5: "A02", 11: "A05", 21: "A15"},
    ),
    "task-arithmetic-negated": Shape(
        """
base_model: base
merge_method: task_arithmetic
models:
  - model: a
    parameters: {weight: 1.0}
  - model: b
    parameters: {weight: -0.5}
parameters: {normalize: false, lambda: 0.9}
dtype: bfloat16
chat_template: auto
""",
        16,
        values={(tensor(1, Q), "weight", 1): -0.5, (tensor(1, Q), "lambda", None): 0.9},
    ),
    # The tail kept, the depth cut: a pruned model as its card gives it.
    "pruned": Shape(
        """
slices:
  - sources:
      - model: a
        layer_range: [0, 11]
  - sources:
      - model: a
        layer_range: [14, 16]
merge_method: passthrough
dtype: bfloat16
""",
        13,
        {11: "A14"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("donors")
    for name in ("a", "b", "c", "base"):
        sparse_llama(made / name, layers=DEPTH, tokenizer=[f"w{index}" for index in range(60)])
    return made


def plan_tensor(plan: Plan, name: str) -> PlannedTensor:
    (found,) = (planned for planned in plan.tensors if planned.name == name)
    return found


def factor(plan: Plan, name: str) -> float:
    source = plan_tensor(plan, name).source
    assert isinstance(source, Copy | Convert)
    return source.factor if isinstance(source, Convert) else 1.0


def value(plan: Plan, name: str, parameter: str, donor: int | None) -> float:
    planned = plan_tensor(plan, name)
    assert isinstance(planned.source, Blend)
    (found,) = (value for value in planned.values if (value.name, value.donor) == (parameter, donor))
    return float(found.value)


@pytest.mark.parametrize("name", SHAPES)
def test_a_published_shape_plans(name: str, folder: Path) -> None:
    shape = SHAPES[name]
    plan = plan_of(folder, shape.text)
    assert [finding.sentence() for finding in plan.findings if finding.severity == "error"] == []
    assert len(plan.layers) == shape.layers
    assert {index: plan.layers[index].label for index in shape.labels} == shape.labels
    assert {name: factor(plan, name) for name in shape.factors} == pytest.approx(shape.factors)
    assert {key: value(plan, *key) for key in shape.values} == pytest.approx(shape.values)


def test_an_option_of_the_command_line_in_a_recipe_is_a_warning(folder: Path) -> None:
    text = SHAPES["dare-ties-three"].text
    finding = found(plan_of(folder, text), "command-option")
    assert finding.severity == "warning"
    assert finding.line == text.splitlines().index("random_seed: 0") + 1
    assert "seed" in finding.remedy
    misplaced = "merge_method: passthrough\nslices:\n- {sources: [{model: a}], random_seed: 1}\n"
    assert found(plan_of(folder, misplaced), "unknown-key").severity == "error"


def test_the_tokenizer_of_a_model_may_have_the_older_prefix(folder: Path) -> None:
    plan = plan_of(folder, SHAPES["miqu-scales"].text)
    assert plan.recipe.tokenizer_source == "a"
