"""Which packages there are; everything else is in pyproject.toml.

`blockforge/kernels`, `search` and `specs` are links to the folders at the top. Where a checkout has text files or
nothing in their place (Windows, a zip download), the folders themselves are built under the same names.
"""

from pathlib import Path

from setuptools import find_packages, setup

unlinked = [name for name in ("kernels", "search", "specs") if not Path("blockforge", name).is_dir()]
beside = find_packages(include=[pattern for name in unlinked for pattern in (name, f"{name}.*")])
setup(
    packages=[*find_packages(include=["blockforge", "blockforge.*"]), *(f"blockforge.{name}" for name in beside)],
    package_dir={f"blockforge.{name}": name for name in unlinked},
)
