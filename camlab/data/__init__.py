"""Image sets that live on the training device as uint8, and the batches drawn from them."""

from camlab.data.cifar10 import Cifar10
from camlab.data.folder import Folder
from camlab.data.image_set import ImageSet, stratified_split
from camlab.data.loader import Batch, Loader
from camlab.data.module import ImageData
from camlab.data.preprocess import Preprocess
from camlab.data.shapes import Shapes

__all__ = ["Batch", "Cifar10", "Folder", "ImageData", "ImageSet", "Loader", "Preprocess", "Shapes", "stratified_split"]
