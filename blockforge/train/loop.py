"""The training loop."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.outputs import by_name
from blockforge.errors import DataError
from blockforge.interrupts import Interrupts
from blockforge.notes import note
from blockforge.train import checkpoint
from blockforge.train.augment import Augment, Normalize
from blockforge.train.batches import Batches
from blockforge.train.checkpoint import Parts, Position
from blockforge.train.data import Batch, Data, Want, mixed
from blockforge.train.distill import Loss
from blockforge.train.epoch_progress import EnoughError, Reporter
from blockforge.train.evaluate import measure
from blockforge.train.logs import Folder
from blockforge.train.optim import clip_gradients, lr_factor, make_average, make_optimizer
from blockforge.train.recipe import Recipe
from blockforge.train.result import EpochRecord, Evaluation

if TYPE_CHECKING:
    from accelerate import Accelerator

LOOK_EVERY = 20
"""Steps between two looks at the loss where a look waits for a GPU or for other processes."""


class NotFiniteError(ArithmeticError):
    """A loss that is no number; `fit` says it to the user."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device, or this machine, has no memory left."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator: can't allocate memory" in str(error)


class Trainer:
    """One run.

    Args:
        model: the network, which is trained in place.
        want: how images are read: size, channels, seed, process, workers, and images of a batch.
        batches: how many there are, and the parts of each.
        folder: of checkpoints and logs; None: nothing is written.
        settings: what a checkpoint must agree with.
        loss: what is gone down on.
    """

    def __init__(
        self,
        model: Backbone,
        data: Data,
        recipe: Recipe,
        normalize: Normalize,
        want: Want,
        batches: Batches,
        accelerator: Accelerator,
        *,
        folder: Folder | None,
        settings: dict[str, Any],
        reporter: Reporter,
        loss: Loss,
    ) -> None:
        self.data, self.recipe, self.normalize, self.accelerator = data, recipe, normalize, accelerator
        self.folder, self.settings, self.reporter, self.loss = folder, settings, reporter, loss
        self.writes = folder is not None and accelerator.is_main_process
        self.device = accelerator.device
        self.want = dataclasses.replace(want, batch_size=batches.size)
        self.steps_per_epoch, self.pieces, self.halved = batches.steps, batches.pieces, False
        self.total = recipe.epochs * self.steps_per_epoch
        self.augment = Augment(recipe, normalize, want.size, data.train.crops, len(data.classes))
        self.network: nn.Module = accelerator.prepare_model(model.train())
        average = make_average(model, recipe.ema) if recipe.ema is not None else None
        optimizer = make_optimizer(model, recipe)
        self.lr_factor = lr_factor(recipe, self.steps_per_epoch)
        self.parts = Parts(model, average, optimizer, LambdaLR(optimizer, self.lr_factor))
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.position = Position()
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.good: dict[str, Tensor] = {}
        self.look_every = 1 if self.device.type == "cpu" and want.world == 1 else LOOK_EVERY
        self.mark = self.saved = time.perf_counter()

    @property
    def evaluated(self) -> Backbone:
        """The network that counts: the average, where there is one."""
        return self.parts.model if self.parts.average is None else self.parts.average.module  # type: ignore[return-value]

    def resume(self) -> None:
        """Go to where the folder's checkpoint stands, if there is one. Raises: RunError if it is another run's."""
        if self.folder is not None:
            self.position = checkpoint.load(self.folder.path, self.parts, self.settings) or self.position

    def run(self) -> int | None:
        """Train to the recipe's end. Gives the signal that ended it early, or None.

        Raises: NotFiniteError, with the last good weights restored; whatever the reporter raises.
        """
        self._remember()
        self.loss_sum = torch.tensor(self.position.loss_sum, dtype=torch.float64, device=self.device)
        self.reporter.start(self.total, self.position.step, self.position.history)
        signals: Any = Interrupts() if self.folder is not None else nullcontext()
        self.mark = self.saved = time.perf_counter()
        try:
            with signals as interrupts:
                return self._epochs(interrupts)
        except NotFiniteError:
            self.evaluated.load_state_dict(self.good)
            raise
        finally:
            self.reporter.stop()

    def _epochs(self, interrupts: Interrupts | None) -> int | None:
        try:
            if self._unevaluated():
                self._end_epoch()
            while self.position.step < self.total:
                if (signal := self._epoch(interrupts)) is not None:
                    return signal
        except EnoughError:
            if interrupts is not None and interrupts.received:
                return interrupts.received
            raise
        return None

    def _epoch(self, interrupts: Interrupts | None) -> int | None:
        """Train to the end of the epoch and evaluate, or stop at a signal after a checkpoint."""
        position = self.position
        epoch, start = divmod(position.step, self.steps_per_epoch)
        want = dataclasses.replace(self.want, shuffle=True, epoch=epoch, start=start, crop=self._crop())
        signal = 0
        for images, labels in self._saving(self.data.train.batches(want)):
            self._seed(mixed(want.seed, position.step, want.rank))
            loss = self._step(images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True))
            self.loss_sum += loss
            position.step += 1
            ended = position.step % self.steps_per_epoch == 0
            if position.step % self.look_every and not ended:
                continue
            signal, due = self._look(loss, interrupts.received if interrupts else None)
            if not ended and (signal or due):
                self._save()
            if not ended and signal:
                return signal
        if missing := -position.step % self.steps_per_epoch:
            text = f"{self.data.name} gave {missing} batches less than its {len(self.data.train)} images should"
            raise DataError(text)
        self._end_epoch()
        if signal or position.step == self.total or time.perf_counter() - self.saved >= self.recipe.save_seconds:
            self._save()
        return signal or None

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        """An optimiser step on a batch of this process. Gives its mean loss."""
        x, targets = self.augment(images, labels)
        total = self._gradients(x, targets)
        if self.recipe.clip_grad is not None:
            clip_gradients(self.parameters, self.recipe.clip_grad)
        self.parts.optimizer.step()
        self.parts.scheduler.step()
        self._no_gradients()
        if self.parts.average is not None:
            self.parts.average.update_parameters(self.parts.model)
        return total

    def _gradients(self, x: Tensor, targets: Tensor) -> Tensor:
        """Leave the gradients of a batch. Gives its mean loss.

        Where memory is short, it goes through in twice as many parts from then on; that is tried once. Several
        processes wait for one another in the middle of a step, so one of them cannot begin it again.
        """
        try:
            return self._accumulated(x, targets)
        except (RuntimeError, MemoryError) as e:
            if self.halved or self.want.world > 1 or len(x) < 2 * self.pieces or not is_out_of_memory(e):
                raise
        self.halved = True
        self._no_gradients()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        at_once = -(-len(x) // self.pieces)
        self.pieces *= 2
        note(f"out of memory with {at_once} images at once: a batch goes through in {self.pieces} parts from here on")
        return self._accumulated(x, targets)

    def _accumulated(self, x: Tensor, targets: Tensor) -> Tensor:
        pieces = list(zip(x.tensor_split(self.pieces), targets.tensor_split(self.pieces), strict=True))
        total = torch.zeros((), device=self.device)
        for number, (piece, target) in enumerate(pieces, 1):
            with nullcontext() if number == len(pieces) else self.accelerator.no_sync(self.network):
                with self._autocast():
                    outputs = by_name(self.network(piece))
                    loss = self.loss(piece, outputs, target) * (len(piece) / len(x))
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def _no_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _seed(self, seed: int) -> None:
        """Set torch's generators: each step has a seed of its own, so a run goes on as if it had never stopped."""
        if self.device.type == "cpu":
            torch.default_generator.manual_seed(seed)  # a hundredth of what asking every kind of device takes
        else:
            torch.manual_seed(seed)

    def _look(self, loss: Tensor, received: int | None) -> tuple[int, int]:
        """Report, and let all processes agree on a signal and on whether a checkpoint is due.

        Raises: NotFiniteError, on all of them.
        """
        position, value, lr = self.position, float(loss), self._lr()
        self._tick()
        late = time.perf_counter() - self.saved >= self.recipe.save_seconds
        position.loss_sum = float(self.loss_sum)
        signal, due, bad = self._agreed(received or 0, int(late), int(not math.isfinite(position.loss_sum)))
        if bad:
            raise NotFiniteError(f"the loss became {value} at step {position.step}, learning rate {lr:.3g}")
        self.reporter.step(position.step, value, lr)
        if self.writes and self.folder is not None and position.step % LOOK_EVERY == 0:
            self.folder.loss(position.step, value, lr)
        return signal, due

    def _end_epoch(self) -> None:
        """Evaluate, and keep what came out."""
        position, lr = self.position, self._lr()
        self._tick()
        trained = position.epoch_seconds
        try:
            evaluation = self.evaluate()
        except DataError as e:
            raise self._saved(e) from None
        self._tick()
        if not math.isfinite(evaluation.loss):
            raise NotFiniteError(f"the validation loss became {evaluation.loss} after step {position.step}")
        images = self.steps_per_epoch * self.want.batch_size * self.want.world
        loss = float(self._total(self.loss_sum)) / (self.steps_per_epoch * self.want.world)
        number, seconds = len(position.history) + 1, position.epoch_seconds
        scores = evaluation.loss, evaluation.top1, evaluation.top5
        record = EpochRecord(number, position.step, loss, *scores, lr, seconds, images / max(trained, 1e-9))
        position.history.append(record)
        position.seconds, position.epoch_seconds, position.loss_sum = position.seconds + seconds, 0.0, 0.0
        self.loss_sum.zero_()
        self._remember()
        if self.writes and self.folder is not None:
            if evaluation.top1 >= max(r.top1 for r in position.history):
                self.folder.best(self.evaluated)
            self.folder.epoch(position.history, position.step)
        try:
            self.reporter.epoch(record)
        except EnoughError:
            self._save()
            raise

    def _unevaluated(self) -> bool:
        """Whether the run ended between an epoch's last step and its evaluation."""
        epochs, beyond = divmod(self.position.step, self.steps_per_epoch)
        return not beyond and epochs > len(self.position.history)

    def _saving(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches; an image that cannot be read ends the run after a checkpoint. Raises: DataError."""
        try:
            yield from batches
        except DataError as e:
            raise self._saved(e) from None

    def _saved(self, error: DataError) -> DataError:
        """Save the run; the error with how to go on."""
        if self.folder is None:
            return error
        position = self.position
        position.loss_sum = float(self.loss_sum)
        if not math.isfinite(position.loss_sum):
            return error
        self._tick()
        self._save()
        return DataError(
            f"{error}\n  the run is saved after step {position.step}: once that is mended, the same command goes on"
        )

    def evaluate(self) -> Evaluation:
        """The network that counts, on the evaluation images."""
        return measure(
            self.evaluated, self.data.val, self.want, self.normalize, len(self.data.classes),
            device=self.device, autocast=self._autocast, total=self._total,
        )  # fmt: skip

    def _lr(self) -> float:
        """The learning rate of the last step."""
        return self.recipe.lr * self.lr_factor(self.position.step - 1)

    def _crop(self) -> tuple[list[float], list[float]] | None:
        crop = self.recipe.crop
        return (crop.scale, crop.ratio) if crop is not None and crop.scale is not None else None

    def _autocast(self) -> AbstractContextManager[Any]:
        """torch's own: accelerate has one precision for a process, and a search trains many networks in one."""
        bf16 = self.recipe.precision == "bf16"
        if self.recipe.precision == "auto" and self.device.type == "cuda":
            bf16 = torch.cuda.is_bf16_supported()
        return torch.autocast(self.device.type, torch.bfloat16) if bf16 else nullcontext()

    def _total(self, counts: Tensor) -> Tensor:
        return counts if self.want.world == 1 else self.accelerator.reduce(counts, "sum")  # type: ignore[return-value]

    def _agreed(self, *values: int) -> list[int]:
        """The highest of all processes' values, for each."""
        if self.want.world == 1:
            return list(values)
        gathered = self.accelerator.gather(torch.tensor([values], device=self.device))
        return gathered.amax(0).tolist()  # type: ignore[union-attr]

    def _remember(self) -> None:
        self.good = {k: v.detach().clone() for k, v in self.evaluated.state_dict().items()}

    def _tick(self) -> None:
        """Add the time since the last look to the epoch's."""
        now = time.perf_counter()
        self.position.epoch_seconds += now - self.mark
        self.mark = now

    def _save(self) -> None:
        finite = all(bool(p.isfinite().all()) for p in self.parameters)  # else the next loss tells
        if self.writes and self.folder is not None and finite:
            checkpoint.save(self.folder.path, self.parts, self.position, self.settings)
        self.saved = time.perf_counter()
