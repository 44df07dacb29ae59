"""From trained weights to something others load, with proof."""
