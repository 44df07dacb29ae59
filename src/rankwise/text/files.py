"""The files of a model folder that decide how text is read and written; whatever is made from a model carries them
along.
"""

import shutil
from pathlib import Path

TEXT_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)


def copy_text_files(source: Path, target: Path) -> None:
    """Copy those that `source` has."""
    for name in TEXT_FILES:
        if (source / name).is_file():
            shutil.copy2(source / name, target / name)
