"""A checkpoint by the real DeepSpeed, on the CPU: `python -m tests.estimate.zero_checkpoint STAGE DTYPE FOLDER` takes a
step with one rank and prints the parameters as JSON.
"""

import json
import os
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def main(stage: int, dtype: str, folder: Path) -> None:
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed

    model = LlamaForCausalLM(LlamaConfig.from_dict(json.loads((folder / "config.json").read_text())))
    params = sum(p.numel() for p in model.parameters())
    settings = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": dtype == "bf16"},
    }
    deepspeed.init_distributed("gloo", init_method=f"file://{folder / 'store'}", rank=0, world_size=1)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=torch.optim.AdamW(model.parameters(), lr=1e-4), config=settings
    )
    ids = torch.arange(3, 19).unsqueeze(0)
    engine.backward(engine(input_ids=ids, labels=ids).loss)
    engine.step()
    engine.save_checkpoint(str(folder / "saved"))
    print(json.dumps({"params": params}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
