"""The scan of a map compiled by numba for CPUs."""

from __future__ import annotations

from blockforge.kernels.cross_scan.operators import CrossScan
from blockforge.kernels.selective_scan.numba_impl import Scan

cross_scan = CrossScan("numba", Scan)
