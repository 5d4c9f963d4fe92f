"""The views of the training images: what augmentation makes of each image in each epoch."""

from typing import Any

import torch
from torch import Tensor

from camlab.data.augment_steps import steps_of
from camlab.data.augmentation import Augmentation
from camlab.data.image_set import Pictures
from camlab.data.loader import Batch
from camlab.errors import UserError
from camlab.models.preprocess import Preprocess


class TrainingViews:
    """Makes views of training images, which depend on the seed, the epoch and the image only.

    Args:
        augment: A preset or a list of steps, see `camlab.data.augment_steps.steps_of`; None for `flip` and `max_shift`.
        fixed: Number of augmented views of each image, which the epochs use in turn; None for new ones in every epoch.
            Features of a frozen backbone can be cached of a fixed number of views.
        flip: Probability that an image is flipped horizontally.
        max_shift: Largest shift of an image, in pixels.
        seed: Seed of the augmentation.
        preprocess: What turns the views into the network's input.

    Attributes:
        augmentation: What makes the views.
        mixes: Whether images are mixed with others.
        count: Number of views of an image that the epochs choose from: the image alone, the image and its mirror
            image, or what `fixed` asks for. None if every epoch makes new ones.

    Raises:
        UserError: A step is unknown, or needs a package that is not installed; or images are to be mixed with others in
            a fixed number of views.
    """

    def __init__(
        self, augment: Any, fixed: int | None, flip: float, max_shift: int, seed: int, preprocess: Preprocess
    ) -> None:
        try:
            steps = steps_of(augment, flip, max_shift)
        except ValueError as error:
            raise UserError(f"data.augment: {error}.") from error
        self.is_chosen = augment is not None
        self.fixed, self.seed = fixed, seed
        self.augmentation = Augmentation(steps, seed, preprocess.image_size, preprocess.mean, max(2, fixed or 0))
        self.mixes = self.augmentation.mixes
        if fixed is not None and self.mixes:
            raise UserError(
                f"data.augment_views={fixed}: mixup and cutmix make new pairs in every epoch. Leave them out, or give"
                " data.augment_views=null."
            )
        new_ones = steps.keys() - {"flip"}
        self.count = fixed if fixed is not None else None if new_ones else 1 + len(steps)

    def augmented(self, batch: Batch, n: int, epoch: int) -> Batch:
        """Augment a batch on the device. If images are mixed, the partner of the last image is taken off.

        Args:
            batch: The batch, as the loader gives it.
            n: Number of images in the training set.
            epoch: The epoch.
        """
        epoch = self._epoch_of_view(epoch)
        images, masks = self.augmentation(batch.images, batch.masks, batch.image_idx, n, epoch)
        if not self.mixes:
            return batch._replace(images=images, masks=masks)
        own = slice(max(0, len(images) - 1))
        index, own_masks = batch.image_idx[own], None if masks is None else masks[own]
        mixed = self.augmentation.mix(images[own], own_masks, images[1:], index, n, epoch)
        return batch._replace(
            images=mixed.images,
            labels=batch.labels[own],
            image_idx=index,
            masks=mixed.masks,
            partner_labels=batch.labels[1:],
            own_share=mixed.own_share,
        )

    def index_of(self, image_idx: Tensor, n: int, epoch: int) -> Tensor | int:
        """Index of the view of each of some images in an epoch, if their number is limited."""
        if self.fixed is not None:
            return self._epoch_of_view(epoch)
        flipped = self.augmentation.flips(image_idx, n, epoch)
        return 0 if flipped is None else flipped

    def all(self, images: Tensor, index: Tensor, n: int) -> Tensor:
        """Make all views of some images, if their number is limited.

        Args:
            images: uint8, N×3×H×W.
            index: Their indices in the training set, int64, N, on the same device.
            n: Number of images in the training set.

        Returns:
            uint8, V·N×3×…: the first view of each image, then the second ….
        """
        if self.fixed is None:
            return images if self.count == 1 else torch.cat([images, images.flip(-1)])
        return torch.cat([self.augmentation(images, None, index, n, epoch)[0] for epoch in range(self.fixed)])

    def examples(
        self, train: Pictures, index: Tensor, epoch: int, order: Tensor
    ) -> tuple[Tensor, Tensor | None, list[tuple[int, float]]]:
        """Make views of a few images, to look at.

        Args:
            train: The training set.
            index: Indices of the images, int64, N, on the CPU.
            epoch: The epoch.
            order: Indices of all images in the order of the epoch, int64, on the CPU. An image that it lacks is shown
                with the first one of the epoch as its partner.

        Returns:
            The views, uint8, N×3×…; the masks of their objects, bool N×…, or None if the images have none; and for each
            view the index of its partner and its own share, which is 1 if the image is not mixed.
        """
        n, epoch = len(train), self._epoch_of_view(epoch)
        place = {image: at for at, image in reversed(list(enumerate(order.tolist())))}
        partners = order.roll(-1)[torch.tensor([place.get(image, -1) for image in index.tolist()])]
        chosen = torch.cat([index, partners])
        taken = train.subset(chosen)
        views, masks = self.augmentation(taken.images, taken.masks, chosen, n, epoch)
        own, others = views.chunk(2)
        own_masks = None if masks is None else masks[: len(own)]
        if not self.mixes:
            return own, own_masks, [(int(partner), 1.0) for partner in partners]
        mixed = self.augmentation.mix(own, own_masks, others, index, n, epoch)
        return mixed.images, mixed.masks, list(zip(partners.tolist(), mixed.own_share.tolist(), strict=True))

    def _epoch_of_view(self, epoch: int) -> int:
        return epoch if self.fixed is None else epoch % self.fixed
