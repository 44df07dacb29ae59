"""How a run is spread over processes: one process, DDP, DeepSpeed's ZeRO, FSDP2; one small contract for all of them
(`engine.Engine`), so that the loop, the checkpoints and the worker do not know which it is."""
