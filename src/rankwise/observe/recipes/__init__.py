"""Other tools' configurations: Axolotl, LLaMA-Factory, TRL, and command lines around transformers' Trainer."""

from rankwise.observe.recipes.recipe import read_recipe

__all__ = ["read_recipe"]
