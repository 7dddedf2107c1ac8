"""Images in memory, batched augmentation, and the data modules that Lightning and the evaluation read."""
