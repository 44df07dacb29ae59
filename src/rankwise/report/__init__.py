"""Report: what was decided and what happened, in plain sentences and on one self-contained page. Torch-free."""
