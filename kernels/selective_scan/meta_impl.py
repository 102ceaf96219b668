"""The selective scan on the meta device as a compiled backend runs it: shapes, and what backward keeps."""

from __future__ import annotations

from blockforge.kernels.selective_scan import operators

selective_scan = operators.differentiable("meta", None)  # the shapes of the operator are all that runs
