"""`python -m benchmarks.train.peer_litgpt`: the same rows by litgpt's LoRA script; a JSON line in, a JSON line out.

In: {"folder": of the run, "model": folder, "train", "held_out": [ids, where the answer begins] of each row,
"max_steps"}. Out: {"step_seconds", "losses", "held_out", "tokens", "version", "config"}. Runs in an interpreter that
has litgpt.

It is what `litgpt finetune lora` runs (`fit`, on one device), with rows that are encoded already. What litgpt does
otherwise than the others, and is left as it is: a step's loss is the mean of its micro-batches' means, gradients are
not clipped, one dropout mask serves q, k and v. Its schedule of warm-up and cosine is left out, since its first step
has a rate of zero.
"""

from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.train.arm import answer
from benchmarks.train.rows import LEARNING_RATE, LORA, STEP_ROWS, held_out_loss

MODEL = "SmolLM2-135M-Instruct"  # litgpt's name of the embedded model
ADAPTED = ("query", "key", "value", "projection", "mlp")  # every linear layer of a block
# The quicker of its bf16 settings at this size, see docs/log.md; its default is bf16-mixed.
USUAL: dict[str, Any] = {"precision": "bf16-true", "micro_batch_size": 1}


def converted(model: Path, place: Path) -> Path:
    """The model in litgpt's format, once for all runs."""
    from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint

    folder = place / MODEL
    if not (folder / "lit_model.pth").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for file in model.iterdir():
            (folder / file.name).symlink_to(file.resolve())
        convert_hf_checkpoint(folder, model_name=MODEL)
    return folder


def loader(rows: list[tuple[list[int], int]], size: int) -> Any:
    """Batches in the order of the rows, padded as litgpt's own data sets are."""
    import torch
    from litgpt.data.base import get_sft_collate_fn
    from torch.utils.data import DataLoader

    samples = []
    for ids, start in rows:
        counts = {"raw": len(ids), "raw_plus_prompt_template": len(ids)}
        labels = [-100] * start + ids[start:]
        samples.append({"input_ids": torch.tensor(ids), "labels": torch.tensor(labels), "token_counts": counts})
    return DataLoader(samples, batch_size=size, collate_fn=get_sft_collate_fn())  # type: ignore[arg-type]


def clock() -> Any:
    """A logger that keeps what litgpt says of each micro-batch."""
    from lightning.fabric.loggers import Logger

    class Clock(Logger):  # type: ignore[misc]
        name, version = "clock", 0

        def __init__(self) -> None:
            self.said: list[dict[str, Any]] = []

        def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
            if "iter_time" in metrics:  # the others are ThroughputMonitor's
                self.said.append(dict(metrics))

        def log_hyperparams(self, params: Any, *arguments: Any, **more: Any) -> None:
            pass  # litgpt has none for it

    return Clock()


def trained(asked: dict[str, Any]) -> dict[str, Any]:
    """One run of `max_steps` steps."""
    import lightning
    import torch
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.finetune.lora import fit
    from litgpt.lora import GPT, Config, mark_only_lora_as_trainable
    from litgpt.utils import load_checkpoint
    from torch.optim.lr_scheduler import ConstantLR

    place = Path(asked["folder"])
    source = converted(Path(asked["model"]), place)
    lora = {"lora_r": LORA["r"], "lora_alpha": LORA["lora_alpha"], "lora_dropout": LORA["lora_dropout"]}
    lora |= {f"lora_{name}": True for name in ADAPTED}
    seen = clock()
    fabric = lightning.Fabric(accelerator="cpu", devices=1, precision=USUAL["precision"], loggers=seen)
    fabric.seed_everything(0)
    with fabric.init_module():
        model = GPT(Config.from_file(source / "model_config.yaml", **lora))
    mark_only_lora_as_trainable(model)
    model = fabric.setup_module(model)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = fabric.setup_optimizers(torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0))
    load_checkpoint(fabric, model, source / "lit_model.pth", strict=False)
    fit(
        fabric=fabric,
        model=model,
        optimizer=optimizer,
        scheduler=ConstantLR(optimizer, factor=1.0),
        train_dataloader=loader(asked["train"], USUAL["micro_batch_size"]),
        val_dataloader=loader(asked["held_out"], 1),
        devices=1,
        checkpoint_dir=source,
        out_dir=place / "out",
        train=TrainArgs(
            global_batch_size=STEP_ROWS,
            micro_batch_size=USUAL["micro_batch_size"],
            max_steps=asked["max_steps"],
            epochs=1,
            save_interval=None,
        ),
        eval=EvalArgs(interval=asked["max_steps"] + 1, max_iters=1, final_validation=False),
        data=None,
    )
    return {
        **by_step(seen.said, STEP_ROWS // USUAL["micro_batch_size"]),
        "held_out": held_out_loss(Judged(model), asked["held_out"]),
        "tokens": sum(len(ids) for ids, _ in asked["train"]),
        "version": version("litgpt"),
        "config": USUAL,
    }


def by_step(said: list[dict[str, Any]], parts: int) -> dict[str, list[float]]:
    """Seconds and loss of each step out of its `parts` micro-batches; litgpt's loss is a running mean over them."""
    steps = [said[i : i + parts] for i in range(0, len(said), parts)]
    return {
        "step_seconds": [sum(float(m["iter_time"]) for m in step) for step in steps],
        "losses": [float(step[-1]["loss"]) for step in steps],
    }


class Judged:
    """litgpt's model as the judge calls one."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.eval, self.train = model.eval, model.train

    def __call__(self, input_ids: Any, use_cache: bool) -> Any:
        assert not use_cache
        return SimpleNamespace(logits=self.model(input_ids))


if __name__ == "__main__":
    answer(trained)
