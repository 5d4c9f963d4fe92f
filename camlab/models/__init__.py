"""Networks, their weights, the preparation of their input, and the device that they run on."""
