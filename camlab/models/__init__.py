"""Networks, their weights, the preparation of their input, and the devices that they run on."""
