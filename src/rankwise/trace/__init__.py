"""One training step on the meta device, metered, and replayed through the allocator of a GPU."""
