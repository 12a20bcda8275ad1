"""lm-evaluation-harness on a local task: the same figures for a written and an unwritten model."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from surgeon.assemble import AssembleOptions, assemble
from surgeon.checkpoint import open_checkpoint
from surgeon.errors import InputError
from surgeon.evaluate.harness import task_measures
from surgeon.plan.load import load_plan
from surgeon.probe.subject import from_checkpoint, from_plan
from tests.support.models import tiny_model, tiny_tokenizer

INSTALLED = importlib.util.find_spec("lm_eval") is not None
TASK = """task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: label
metric_list:
- {{metric: acc, aggregation: mean, higher_is_better: true}}
"""


@pytest.mark.skipif(INSTALLED, reason="lm-evaluation-harness is installed")
def test_a_missing_package_is_named_with_the_remedy(tmp_path: Path) -> None:
    tiny_model(tmp_path)
    tiny_tokenizer(tmp_path)
    with pytest.raises(InputError, match=r"lm_eval is not installed.*surgeon\[lm-eval\]"):
        task_measures(from_checkpoint(open_checkpoint(str(tmp_path)), "cpu"), ["arc_easy"])


@pytest.mark.skipif(not INSTALLED, reason="needs lm-evaluation-harness")
def test_a_written_and_an_unwritten_model_have_the_same_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for seed, name in enumerate("ab"):
        tiny_model(tmp_path / name, seed=seed)
        tiny_tokenizer(tmp_path / name)
    (tmp_path / "r.yml").write_text(
        "merge_method: linear\ndtype: float32\nmodels:\n"
        "- {model: ./a, parameters: {weight: 0.3}}\n- {model: ./b, parameters: {weight: 0.7}}\n"
    )
    rows = [{"prompt": f"{number} =", "choices": ["0", "1", "2"], "label": number % 3} for number in range(12)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "tiny.yaml").write_text(TASK.format(file=tmp_path / "data.jsonl"))
    document, plan = load_plan(tmp_path / "r.yml")
    assemble(plan, tmp_path / "out", AssembleOptions(), recipe=document.text)
    subjects = [from_plan(plan, "cpu"), from_checkpoint(open_checkpoint(str(tmp_path / "out")), "cpu")]
    capsys.readouterr()
    found = [task_measures(one, ["tiny_choice"], include=tmp_path / "tasks") for one in subjects]
    assert found[0] == found[1] and capsys.readouterr().out == ""
    (accuracy,) = found[0]
    assert accuracy.name == "tiny_choice acc" and accuracy.better == "higher" and len(accuracy.units) == 12
    (few,) = task_measures(subjects[0], ["tiny_choice"], include=tmp_path / "tasks", limit=5)
    assert few.units == accuracy.units[:5]
    with pytest.raises(InputError, match="'no_such_task' is not a task"):
        task_measures(subjects[0], ["no_such_task"])
