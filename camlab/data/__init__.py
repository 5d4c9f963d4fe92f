"""Image sets that live on the training device as uint8, and the batches drawn from them."""
