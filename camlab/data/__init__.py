"""Image sets, which are kept on the training device as uint8, and the batches taken from them."""
