"""timm knows the zoo: `import blockforge.timm`, then `timm.create_model("bf_smt_t", num_classes=10)`.

Every zoo spec is registered as `bf_` and its name. The model `blockforge` takes any other: a path, a zoo name or a
mapping as `spec`. See docs/integrations.md.
"""

from __future__ import annotations

from typing import Any

from blockforge.extras import import_timm

import_timm()

from blockforge.timm.models import register_zoo  # noqa: E402

__all__: list[str] = []  # timm appends the names that it registers
default_cfgs: dict[str, Any] = {}  # timm looks here for what it registers
register_zoo(__name__, default_cfgs)
