"""Commands that need an extra say which one, and every extra that they name exists."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from blockforge.extras import MissingExtraError, import_timm, need

ROOT = Path(__file__).parent.parent


def test_what_is_installed_passes() -> None:
    need("train", "json", "torch")


def test_what_is_missing_is_named_with_its_extra() -> None:
    with pytest.raises(
        MissingExtraError, match=r"needs no_such_library, nor_this\n.*pip install 'blockforge\[train\]'"
    ):
        need("train", "json", "no_such_library", "nor_this")


def test_every_extra_that_is_named_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    files = [f for folder in ("blockforge", "kernels", "search") for f in (ROOT / folder).rglob("*.py")]
    named = {name for f in files for name in re.findall(r'\bneed\(\s*"([\w-]+)"', f.read_text())}
    assert named <= set(extras)


@pytest.mark.parametrize(
    "failure",
    ["RuntimeError('operator torchvision::nms does not exist')", "ImportError('undefined symbol: x\\nmore')"],
)
def test_a_torchvision_that_does_not_fit_is_told_in_a_line(
    failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] in ("timm", "torchvision")]:
        monkeypatch.delitem(sys.modules, name)
    for package, text in (("timm", "import torchvision\n"), ("torchvision", f"raise {failure}\n")):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(text)
        info = tmp_path / f"{package}-9.8.7.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 9.8.7\n")
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(2):  # the second time as the first
        with pytest.raises(MissingExtraError, match=r"torchvision 9\.8\.7 beside torch [0-9]") as found:
            import_timm()
        assert "\n" not in str(found.value)
        assert "pip install a torchvision" in str(found.value)
