"""Buffers that follow from a module's options (positions, masks, rotations), which no file of weights holds.

A model that is laid out on the meta device and given memory afterwards has weights from its file, but nothing fills
such buffers. Here they are computed again wherever they may have been left as the memory was.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Computed(nn.Module):
    """A module with such buffers: `computed` says them, the constructor ends with `hold_computed()`, and `forward`
    reads them by `held`."""

    @abstractmethod
    def computed(self, device: torch.device | None) -> dict[str, Tensor]:
        """Each buffer by its name, from the module's options alone. `device`: where; None: torch's default."""

    def hold_computed(self) -> None:
        """Register the buffers, as none that are saved."""
        values = self.computed(None)
        self.names_computed = tuple(values)
        for name, value in values.items():
            self.register_buffer(name, value, persistent=False)

    def reset_parameters(self) -> None:
        """What FSDP calls on each module that it gave memory; a module with parameters starts them here."""

    def init_non_persistent_buffers(self) -> None:
        """Compute the buffers again, each where it is; timm and transformers call it so. Those that are still on the
        meta device follow the module's own parameters."""
        for name in self.names_computed:
            held = self.get_buffer(name)
            of_meta = next((p.device for p in self.parameters(recurse=False)), held.device)
            self._compute(name, of_meta if held.is_meta else held.device)

    def held(self, name: str, like: Tensor) -> Tensor:
        """The buffer `name`. One that was left on the meta device is first computed where `like` is."""
        value: Tensor = getattr(self, name)  # `get_buffer` takes many times as long, and this is asked at every call
        if value.is_meta and not like.is_meta:
            self._compute(name, like.device)
            value = getattr(self, name)
        return value

    def _compute(self, name: str, device: torch.device) -> None:
        held, value = self.get_buffer(name), self.computed(device)[name]
        if held.is_meta:
            self._buffers[name] = value.to(held.dtype)
            return
        with torch.inference_mode(held.is_inference()):
            held.copy_(value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """What `to`, `to_empty`, `half` and their like do to every tensor. From the meta device torch copies nothing,
        so that a model of which only these buffers are there still could not be moved."""
        own = [id(self.get_buffer(name)) for name in self.names_computed]

        def of_tensor(t: Tensor) -> Tensor:
            if not t.is_meta or id(t) not in own:
                return fn(t)
            try:
                return fn(t)
            except NotImplementedError:
                return fn(torch.empty_like(t, device="cpu"))

        super()._apply(of_tensor, recurse)  # type: ignore[no-untyped-call]
        self.init_non_persistent_buffers()
        return self
