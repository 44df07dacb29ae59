"""The words a reader may not know, each in one line."""

METHODS = {
    "full": "full fine-tuning",
    "lora": "LoRA",
    "qlora": "QLoRA",
    "lora-8bit": "8-bit LoRA",
    "dora": "DoRA",
    "pissa": "PiSSA",
    "rslora": "rsLoRA",
    "gptq-lora": "GPTQ-LoRA",
    "ia3": "IA3",
    "prompt": "prompt tuning",
    "prefix": "prefix tuning",
    "bottleneck": "bottleneck adapters",
    "vera": "VeRA",
    "adalora": "AdaLoRA",
    "loha": "LoHa",
    "lokr": "LoKr",
    "p_tuning": "p-tuning",
    "oft": "OFT",
    "boft": "BOFT",
}

PARALLEL = {"ddp": "data-parallel", "zero1": "ZeRO-1", "zero2": "ZeRO-2", "zero3": "ZeRO-3", "fsdp": "FSDP"}

METRICS = {
    "format": ("Format", "share of answers that have the form the job asks for"),
    "exact_match": ("Exact match", "share of answers equal to the expected one"),
    "refusals": ("Refusals", "share of prompts that it declines and the data answers, lower is better"),
    "repetition": ("Repetition", "share of runs of 4 tokens that the answer said before, lower is better"),
    "loops": ("Loops", "share of answers that end in the same words again and again, lower is better"),
    "cut_off": ("Cut off", "share of answers that run on until the limit, lower is better"),
    "judge": ("Judge", "how often another model prefers the answer, ties half"),
    "facts": ("Facts", "share of closed-book questions answered right"),
    "facts_exact": ("Facts, letter for letter", "share of answers that are the expected text and nothing else"),
    "facts_normalised": ("Facts, normalised", "the same without case, punctuation and articles (SQuAD)"),
    "facts_f1": ("Facts, F1 of words", "overlap of words with the expected answer (SQuAD)"),
    "facts_seen": ("Facts, seen phrasing", "asked in the words of a training row"),
    "facts_unseen": ("Facts, unseen phrasing", "asked in words that no training row uses"),
    "facts_reversed": ("Facts, reversed", "asked the other way round"),
    "facts_choice": ("Facts, multiple choice", "share of questions where the right choice is the likeliest"),
    "confident_wrong": ("Confident and wrong", "share of facts answered wrong and surely, lower is better"),
    "calibration_error": ("Calibration error", "distance of sureness from being right, lower is better"),
    "calibration_error_choice": ("Calibration error, choices", "the same among choices, lower is better"),
    "heldout_loss": ("Held-out loss", "cross-entropy on rows like the training rows, lower is better"),
    "general_loss": ("General loss", "cross-entropy on everyday rows, a rise is forgetting"),
}

QUANTITIES = {
    "train_seconds": "Training time",
    "step_seconds": "Time of a step",
    "validation_seconds": "Validations while training",
    "save_seconds": "Writing checkpoints",
    "watch_seconds": "Looks at general ability",
    "evaluation_seconds": "Evaluation",
    "merge_seconds": "Merge",
    "peak_memory": "Peak memory",
    "peak_device": "Peak memory",
    "checkpoint": "Checkpoint on disk",
    "trainable_params": "Trained parameters",
    "checkpoint_bytes": "Checkpoint on disk",
    "adapter_bytes": "Adapter on disk",
    "model_bytes": "Model on disk",
    "run_bytes": "Run folder on disk",
    "tokens_per_second": "Speed",
    "train_usd": "Cost",
}

BUCKETS = {
    "weights": "the model's parameters",
    "gradients": "one number for each trained parameter",
    "optimizer": "what AdamW remembers of earlier steps",
    "activations": "kept from the forward pass for the backward pass",
    "logits": "a score for every word of the vocabulary at every labelled token",
    "workspace": "the process itself: libraries, prepared kernels, the GPU's context",
}

TERMS = (
    ("Base, tuned", "The model before training, and the same model after it."),
    ("LoRA", "Trains two thin matrices (of rank r) beside each frozen weight matrix: a small file, not a new model."),
    ("r, alpha", "The rank of those matrices, how many directions they can change; alpha / r scales what they do."),
    ("Adapter", "What LoRA and its like leave behind: a small file that is loaded beside its base."),
    ("QLoRA", "LoRA beside weights that are frozen in 4 bits: less memory, slower steps."),
    ("Full fine-tuning", "Trains every weight; the result is a whole new model."),
    ("Closed-book", "Asked without any text to look the answer up in: it tests what the model itself knows."),
    ("Nats", "Unit of loss, the surprise per token: 0.7 nats less means that a right token became twice as likely."),
    ("95 % interval", "The range in which the true value plausibly lies; few questions make it wide."),
    ("Cannot tell", "The interval of the difference covers 0: the data do not show which model is better."),
    ("Points", "Percentage points: from 40 % to 50 % is +10 points."),
    ("Forgetting", "What the model could do before and does worse now, measured as a rise of loss on everyday rows."),
    ("Validation loss", "Loss on rows that were held out of training; when it rises, the model learns rows by heart."),
    ("Learning rate", "How far the weights move in one step."),
    ("Token", "The piece of text a model reads and writes, about three quarters of a word."),
    ("Expected quality", "Share of what full fine-tuning without limits would gain, from published comparisons."),
    ("Front", "Options that no other one beats in both quality and price; all others cost more for the same or less."),
    ("Flip point", "The value of one input from which on the call is another one."),
    ("ZeRO, FSDP", "Ways to split weights, gradients and optimizer state over several devices."),
    ("Key-value cache", "What a server remembers of each conversation; it grows with every token."),
    ("Peak memory", "The most that one device holds at any moment of a step."),
    (
        "Trace, meta device",
        "One step run with shapes alone and no numbers, so that what it would hold is counted without a GPU.",
    ),
    ("FLOP", "One floating-point operation; TFLOP is a million million of them."),
    ("Checkpoint", "What a run saves on the way, to go on from."),
    ("Gradient norm", "How strongly one step pulls at all weights together; a jump is a sign of trouble."),
    ("Effective rank", "In how many directions an update really goes, whatever rank it was allowed."),
    ("KL", "How far the answers' probabilities have moved from the base's, in nats per token; 0: not at all."),
    ("Proof", "Checks on the saved files: they load again, they change the answers, merged and unmerged agree."),
)


def method_name(method: str) -> str:
    """A method as people write it: LoRA, not lora."""
    return METHODS.get(method, method)


def parallel_name(parallel: str) -> str:
    """How a step is split over devices, as people write it: ZeRO-3, not zero3."""
    return PARALLEL.get(parallel, parallel)


def metric_name(metric: str) -> str:
    return METRICS[metric][0] if metric in METRICS else metric.replace("_", " ").capitalize()


def metric_meaning(metric: str) -> str:
    return METRICS[metric][1] if metric in METRICS else ""


def quantity_name(quantity: str) -> str:
    return QUANTITIES.get(quantity, quantity.replace("_", " ").capitalize())
