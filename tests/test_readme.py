"""The README's code runs as it stands, and what it names is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def test_the_readmes_code_runs(tmp_path, monkeypatch, capsys) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(examples) == 2
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for example in examples:
        exec(compile(example, "README.md", "exec"), names)
    assert len(names["year_ahead"].values) == 12
    assert 300 < names["year_ahead"].values.mean() < 700
    assert (tmp_path / "passengers-model" / "config.json").is_file()
    assert names["output"].shape == (20, 5, 16)
    printed = capsys.readouterr().out
    assert "f = sigmoid(W.f @ x[t] + R.f @ h[t-1] + b.f)" in printed


def test_every_file_the_readme_names_is_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"\]\(([\w./-]+)\)", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"^\| `([\w./]+/)` \|", text, flags=re.MULTILINE):
        assert (ROOT / name).is_dir(), name
