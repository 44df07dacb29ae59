"""Look at the world once: the model, the data, the device -> Facts. Imports no torch and no transformers."""
