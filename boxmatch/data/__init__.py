"""From files to batches: readers, checks, augmentation, loaders. Only `module` imports Lightning."""
