"""The files of a model folder that decide how text is read and written, and those of its licence; whatever is made from
a model carries them along.
"""

import shutil
from pathlib import Path

TEMPLATE = "chat_template.jinja"
MORE_TEMPLATES = "additional_chat_templates"
TEXT_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    TEMPLATE,
)
LICENCE_FILES = ("LICENSE", "LICENSE.txt", "NOTICE")


def copy_text_files(source: Path, target: Path, chat_template: Path | None = None) -> None:
    """Copy those that `source` has; a given chat template takes the place of all that the model has."""
    for name in TEXT_FILES:
        if (source / name).is_file():
            shutil.copy2(source / name, target / name)
    if chat_template is not None:
        shutil.copy2(chat_template, target / TEMPLATE)  # transformers reads it before what tokenizer_config.json holds
    elif (source / MORE_TEMPLATES).is_dir():
        shutil.copytree(source / MORE_TEMPLATES, target / MORE_TEMPLATES, dirs_exist_ok=True)


def copy_licence(source: Path, target: Path) -> None:
    """Copy those of LICENCE_FILES that `source` has."""
    for name in LICENCE_FILES:
        if (source / name).is_file():
            shutil.copy2(source / name, target / name)
