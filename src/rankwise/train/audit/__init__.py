"""The data audit: what would make a training learn nothing, the wrong thing, or look better than it is."""
