"""Donors that bring code of their own: it comes along, it is never run, and what is missing is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from surgeon.plan import Plan
from tests.support.assembling import assemble, donor, passthrough, plan_of
from tests.support.planning import codes, found

MAP = {"AutoConfig": "configuration_yi.YiConfig", "AutoModelForCausalLM": "modeling_yi.YiForCausalLM"}
BOOM = "raise SystemExit('code of a donor was run')\n"


def with_code(folder: Path, files: tuple[str, ...], **config: Any) -> Plan:
    donor(folder / "a", **{"auto_map": MAP, "model_type": "yi_custom", "architectures": ["YiForCausalLM"], **config})
    for name in files:
        (folder / "a" / name).write_text(BOOM)
    return plan_of(passthrough((folder / "a", 0, 2), (folder / "a", 1, 3)))


def test_python_files_are_copied_and_named(tmp_path: Path) -> None:
    plan = with_code(tmp_path, ("configuration_yi.py", "modeling_yi.py", "helper.py"))
    assert "3 files of A are copied" in found(plan, "model-code").what
    assemble(plan, tmp_path / "out", fsync=False)
    for name in ("configuration_yi.py", "modeling_yi.py", "helper.py"):
        assert (tmp_path / "out" / name).read_text() == BOOM
    assert "trust_remote_code" in (tmp_path / "out" / "README.md").read_text()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["auto_map"] == MAP


def test_files_that_are_missing_are_a_warning(tmp_path: Path) -> None:
    plan = with_code(tmp_path, ("configuration_yi.py",))
    finding = found(plan, "model-code-missing")
    assert finding.severity == "warning"
    assert finding.what == "modeling_yi.py is not in A's folder"


def test_a_type_that_transformers_has_itself_needs_no_code(tmp_path: Path) -> None:
    plan = with_code(tmp_path, (), model_type="llama", architectures=["LlamaForCausalLM"])
    assert found(plan, "model-code-dropped").severity == "note"
    assert plan.config is not None and "auto_map" not in plan.config
    kept = with_code(tmp_path / "b", ("configuration_yi.py", "modeling_yi.py"), model_type="llama")
    assert kept.config is not None and kept.config["auto_map"] == MAP


@pytest.mark.parametrize(
    "value",
    [{"AutoModel": "org/repo--modeling_x.X"}, {"AutoModel": "../../etc/passwd.X"}, {"AutoModel": 7}, [], "x", None],
)
def test_other_repositories_and_nonsense_call_for_no_file(tmp_path: Path, value: Any) -> None:
    plan = with_code(tmp_path, ("stray.py",), auto_map=value)
    assert not [code for code in codes(plan) if "model-code" in code]
    assert "stray.py" not in plan.files


@pytest.mark.parametrize("name", ["qwen.tiktoken", "tiktoken.model"])
def test_vocabularies_of_tiktoken_come_along(tmp_path: Path, name: str) -> None:
    donor(tmp_path / "a")
    (tmp_path / "a" / name).write_bytes(b"IQ== 0\n")
    plan = plan_of(passthrough((tmp_path / "a", 0, 3)))
    assert plan.files[name] == tmp_path / "a" / name
