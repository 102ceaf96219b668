"""The scan of a map on CUDA devices, by the kernels of the selective scan."""

from __future__ import annotations

from blockforge.kernels.cross_scan.operators import CrossScan
from blockforge.kernels.selective_scan.triton_impl import Scan

cross_scan = CrossScan("triton", Scan)
