"""Score the heatmaps of the same images after every epoch, beside the accuracy, in any Trainer with any module."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from camlab.attribution.classifier import Output
from camlab.attribution.layouts import Reshape
from camlab.data.any_batch import ReadBatch
from camlab.errors import UserError
from camlab.training.callbacks.heatmap_arguments import check_counts, check_scores
from camlab.training.failures import Failures
from camlab.training.heat_falls import Fall
from camlab.training.heat_images import ImageCollector, given_images, with_classes
from camlab.training.heat_session import HeatSession
from camlab.training.heat_values import HeatScorer, ScoredSet
from camlab.training.module_network import find_network, inputs_for, logits, undisturbed
from camlab.training.scored_maps import MapSource
from camlab.training.scoring_time import ScoringTime


class HeatmapScores(L.Callback):
    """Scores the heatmaps of fixed images before training and at validations, and logs the means as `val/heat/NAME`.

    Each score goes to all loggers; its chance level is logged once, as `val/heat/NAME_chance`. The maps are CAM where
    it is exact, else those of the method that suits the network. Localisation (`auroc`, `energy_gain`,
    `pointing_game`) is scored where there are masks, for the true class; `srg` removes what the map of the predicted
    class calls hot from a few images. An epoch in which the accuracy on these images rises while `auroc` or `srg` falls
    beyond the noise is named in the log, and in `falls`. What is scored does not depend on the time that it takes; if
    it adds more than 5 % to an epoch, a line says how to score less. Weights, gradients, train/eval flags and the
    random state are not changed. If scoring fails, training continues; each kind of failure is logged once. With
    several processes, the first one scores.

    Args:
        images: The network's inputs, N×C×H×W, or None for the first images of the validation batches.
        labels: True classes of `images`, N.
        masks: Masks of the objects in `images`, N×H×W, bool or zeros and ones.
        model: Name of the network in the module, as in `HeatmapCallback`.
        scores: Names of scores, or None for all that apply.
        num_images: Number of images that are taken from the batches; if there are fewer, all of them.
        srg_images: Number of images that `srg` scores, the first ones.
        every_n_epochs: Number of epochs between scorings. The last epoch is always scored.
        tolerance: Tolerance of the pointing game, in pixels of the masks.
        layers: Names of the network's layers, or None for the default.
        output: Which part of an odd output is the logits, as in `camlab.heatmaps`.
        reshape: Layout of the layers' outputs where it cannot be found out, as in `camlab.heatmaps`.
        read_batch: Function that takes the images, or a pair of the images and the labels, out of a batch.

    Raises:
        UserError: An argument makes no sense; or, at fit start, another callback logs the same scores.

    Example:
        >>> images, masks = torch.rand(4, 3, 32, 32), torch.zeros(4, 32, 32, dtype=torch.bool)
        >>> callback = HeatmapScores(images, labels=[0, 1, 1, 0], masks=masks, scores=["auroc", "drift"])
        >>> trainer = L.Trainer(callbacks=[callback], accelerator="cpu", logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        images: Tensor | None = None,
        labels: Tensor | Sequence[int] | None = None,
        masks: Tensor | None = None,
        *,
        model: str | None = None,
        scores: Sequence[str] | None = None,
        num_images: int = 100,
        srg_images: int = 16,
        every_n_epochs: int = 1,
        tolerance: int = 2,
        layers: Sequence[str] | None = None,
        output: Output | None = None,
        reshape: Reshape | None = None,
        read_batch: ReadBatch | None = None,
    ) -> None:
        check_counts(num_images=num_images, srg_images=srg_images, every_n_epochs=every_n_epochs)
        check_counts(least=0, tolerance=tolerance)
        self.scores = check_scores(scores)
        self.model, self.layers, self.output, self.reshape = model, layers, output, reshape
        self.num_images, self.srg_images, self.every_n_epochs = num_images, srg_images, every_n_epochs
        self.tolerance, self.read_batch = tolerance, read_batch
        self.given = given_images(images, labels, masks)
        self._restored: dict[str, Any] | None = None
        self._forget()

    @property
    def falls(self) -> list[Fall]:
        """Falls of `auroc` and `srg` beyond the noise in epochs in which the accuracy rose."""
        return [] if self._session is None else self._session.history.falls

    def _forget(self) -> None:
        """Forget what belongs to one training."""
        self._failures, self._gave_up = Failures("scoring"), False
        self._collector = ImageCollector(self.num_images, self.read_batch)
        self._session: HeatSession | None = None
        self._scored_at: tuple[int, frozenset[str]] = (-1, frozenset())  # steps done, and what was scored then
        self._time = ScoringTime()

    # ---- what differs in camlab's own runs

    def choose(self, trainer: L.Trainer) -> ScoredSet | None:
        """The images to score; None if they are not there yet."""
        return self.given or self._collector.images

    def make_scorer(self, trainer: L.Trainer, pl_module: L.LightningModule, images: ScoredSet) -> HeatScorer:
        """Find the network, and make what scores its maps.

        Raises:
            UserError: There is no network, or the labels do not suit it.
        """
        one = inputs_for(pl_module, images.inputs[:1])
        network = find_network(pl_module, one, self.model, self.output)
        labelled = with_classes(images, logits(network, one, self.output).shape[1])
        source = MapSource(network, self.layers, self.output, self.reshape)
        prepare, whole = functools.partial(inputs_for, pl_module), (network, self.output)
        return HeatScorer(source, labelled, whole, images.inputs[: self.srg_images], prepare, self.tolerance)

    def names_at(self, is_edge: bool) -> tuple[str, ...]:
        """The scores at a validation or, with `is_edge`, before training and after it."""
        return self.scores

    def accuracy(self, trainer: L.Trainer) -> float | None:
        """The accuracy whose rise makes a fall of a score worth telling, 0 to 1; None if it is not known."""
        return None if self._session is None else self._session.accuracy()

    def row(self, epochs_done: int) -> dict[str, float]:
        """What stands beside scores that are logged outside of a validation."""
        return {}

    @property
    def ways_to_score_less(self) -> str:
        """The arguments that make scoring take less time, in words."""
        fewer, few = max(self.num_images // 2, 1), max(self.srg_images // 2, 1)
        return f"num_images={fewer}, srg_images={few} or every_n_epochs={2 * self.every_n_epochs}"

    # ---- when to score

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if sum(isinstance(one, HeatmapScores) for one in trainer.callbacks) > 1:  # type: ignore[attr-defined]
            raise UserError("callbacks: two of them log scores of heatmaps under the same names. Leave one out.")
        self._forget()

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._collector.begin()

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.is_global_zero and self.given is None and dataloader_idx == 0 and not self._gave_up:
            collects = self._failures.succeeds(lambda: self._collector.add(batch), "No scores of heatmaps")
            self._gave_up = not collects

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == 0 and trainer.current_epoch == 0:
            self._score_alone(trainer, pl_module, 0)
        self._time.begin_epoch(pl_module.device)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._collector.end()
            self._score_with_module(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._compare(trainer, trainer.current_epoch + 1)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.enable_validation:
            self._score_with_module(trainer, pl_module)
            self._compare(trainer, trainer.current_epoch + 1)
        if trainer.should_stop and trainer.fit_loop._can_stop_early:  # now, so that the epoch's checkpoint has it
            self._score_alone(trainer, pl_module, trainer.current_epoch + 1)
        if trainer.is_global_zero:
            self._time.end_epoch(pl_module.device, self.ways_to_score_less)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step > 0:
            self._score_alone(trainer, pl_module, trainer.current_epoch)

    def state_dict(self) -> dict[str, Any]:
        return self._restored or {} if self._session is None else self._session.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict or None

    # ---- scoring

    def _score_with_module(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score if it is time to, and log through the module, so that checkpoints may be chosen by the scores."""
        done = trainer.current_epoch + 1
        is_last = done == trainer.max_epochs or 0 < trainer.max_steps <= trainer.global_step
        if done % self.every_n_epochs == 0 or is_last:  # the same on all ranks, which must meet in the broadcast
            names = functools.partial(self.names_at, is_last)
            figures = self._score(trainer, pl_module, done, names) if trainer.is_global_zero else {}
            figures = trainer.strategy.broadcast(figures)
            values = {name: torch.tensor(value, device=pl_module.device) for name, value in figures.items()}
            pl_module.log_dict(values, on_step=False, on_epoch=True, batch_size=1, rank_zero_only=True)

    @rank_zero_only
    def _score_alone(self, trainer: L.Trainer, pl_module: L.LightningModule, epochs_done: int) -> None:
        """Score before training or after it, where a module cannot log, what is not scored at this step yet."""

        def rest() -> Sequence[str]:
            step, done = self._scored_at
            return [name for name in self.names_at(True) if step != trainer.global_step or name not in done]

        figures = self._score(trainer, pl_module, epochs_done, rest)
        row, step = {**figures, **self.row(epochs_done)}, max(trainer.global_step - 1, 0)
        for logger in trainer.loggers if figures else ():
            what = f"No scores of heatmaps in {type(logger).__name__}"
            self._failures.succeeds(lambda logger=logger: logger.log_metrics(row, step), what)  # type: ignore[misc]
        self._compare(trainer, epochs_done)

    def _score(
        self, trainer: L.Trainer, pl_module: L.LightningModule, epochs_done: int, choose: Callable[[], Sequence[str]]
    ) -> dict[str, float]:
        """The figures to log; none if scoring fails, or if there are no images yet.

        Args:
            trainer: The trainer.
            pl_module: The module.
            epochs_done: Epochs done, for messages.
            choose: Names the scores; it is called when it is known which can be had at which time.
        """
        figures: dict[str, float] = {}

        def score() -> None:
            with undisturbed(pl_module), torch.inference_mode(False):
                if self._session is None:
                    begins = self._failures.succeeds(lambda: self._begin(trainer, pl_module), "No scores of heatmaps")
                    self._gave_up = not begins
                if self._session is not None and (names := choose()):
                    is_usual = set(names) == set(self.names_at(is_edge=False))
                    with self._time.spent(pl_module.device, is_usual):
                        figures.update(self._session.score(names))
                    step, before = self._scored_at
                    done = before if step == trainer.global_step else frozenset()
                    self._scored_at = trainer.global_step, done | set(names)

        if not self._gave_up:
            self._failures.succeeds(score, f"No scores of heatmaps at epoch {epochs_done}")
        return figures

    def _begin(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if isinstance(trainer.strategy, (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)):
            raise UserError("the weights are distributed over processes. Train with strategy=ddp to score heatmaps")
        if (images := self.choose(trainer)) is not None:
            scorer = self.make_scorer(trainer, pl_module, images)
            state, self._restored = self._restored, None
            self._session = HeatSession(scorer, self.scores, self._failures, state)
        elif not trainer.enable_validation:
            raise UserError("there is no validation, whose images could be scored. Give images=")

    @rank_zero_only
    def _compare(self, trainer: L.Trainer, epochs_done: int) -> None:
        session = self._session
        if session is not None:
            compare = lambda: session.compare(epochs_done, self.accuracy(trainer))  # noqa: E731
            self._failures.succeeds(compare, "No comparison of scores of heatmaps")
