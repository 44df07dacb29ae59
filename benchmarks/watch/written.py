"""`python -m benchmarks.watch.written`: rows that the embedded base writes itself, kept beside the bench.

Writing them takes longer than the bench itself (docs/log.md), and the same rows make two benches comparable.
"""

import json
import sys
from pathlib import Path

from rankwise.files import write_text
from rankwise.model.load import load_base
from rankwise.model.locate import locate
from rankwise.text.general import Replay
from rankwise.text.template import ChatText
from rankwise.train.replay import generate

WRITTEN_ROWS = Path(__file__).parent / "written.jsonl"
ROWS, BATCH, SEED = 64, 64, 0


def main() -> None:
    """Write them anew, as the product does where a job says `self_generated`."""
    folder = locate("embedded")
    model, chat = load_base(folder, dtype="bf16", device="cpu"), ChatText.from_folder(folder)
    for written in generate(model, chat, Replay(ROWS, SEED), BATCH):
        sys.stderr.write(f"{written.sentence()}\n")
    write_text(WRITTEN_ROWS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in written.rows))


if __name__ == "__main__":
    main()
