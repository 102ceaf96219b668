"""Spec -> Plan -> graph -> Architecture -> module, one pass a file; `pipeline` says how they follow each other."""

from blockforge.compiler.architecture import Architecture
from blockforge.compiler.pipeline import compile_spec

__all__ = ["Architecture", "compile_spec"]
