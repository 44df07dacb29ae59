"""New tokens of the vocabulary, beside LoRA: the fields of PEFT's LoraConfig that train them."""

TRAINABLE_ROWS = "trainable_token_indices"  # the new rows alone
TARGETS = "target_modules"  # LoRA on embedding and head (Hu et al. 2021 put none there)
MODULES_TO_SAVE = "modules_to_save"  # embedding and head whole
