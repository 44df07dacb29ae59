"""The decision function of the lesson that Rankwise grew out of, transcribed with its faults, as a baseline.

Nothing in `recommend_fine_tuning_method` is mended: tests hold it to the answers that were recorded of the original.
The lesson's advice on ranks is prose beside the function; `rank` puts it into code.
"""

from typing import Any


def recommend_fine_tuning_method(
    model_size_b: float,
    gpu_count: int,
    dataset_size_k: int,
    objective: str,
    need_variants: int,
    budget_usd: float,
) -> dict[str, Any]:
    """`recommendation` (full_fine_tuning, lora or qlora), `reasons`, and the GPUs that each method needs.

    Args:
        model_size_b: parameters, 10^9.
        gpu_count: A100-80GB equivalents.
        dataset_size_k: training examples, thousands.
        objective: instruction, domain_knowledge or task_specific; anything else is accepted.
        need_variants: fine-tuned variants.
        budget_usd: never used.
    """
    full_ft_gpu_gb = model_size_b * 14
    full_ft_gpus_needed = max(1, int(full_ft_gpu_gb / 80) + 1)
    lora_gpu_gb = model_size_b * 2.5
    lora_gpus_needed = max(1, int(lora_gpu_gb / 80) + 1)
    qlora_gpu_gb = model_size_b * 0.6
    qlora_gpus_needed = max(1, int(qlora_gpu_gb / 80) + 1)
    base_hours = model_size_b * dataset_size_k / 50 * 3  # noqa: F841 - the original computes it and forgets it
    recommendations = []
    reasons = []
    if objective == "domain_knowledge":
        recommendations.append("full_fine_tuning")
        reasons.append(
            "Encoding new factual knowledge requires updating weights broadly - "
            "LoRA's low-rank constraint will limit how much new knowledge is absorbed."
        )
    elif objective == "instruction":
        recommendations.append("lora")
        reasons.append(
            "Instruction following is a behavioral modification - genuinely low-rank. "
            "LoRA matches or approaches full fine-tuning quality at 10-100x lower cost."
        )
    if gpu_count < full_ft_gpus_needed and "full_fine_tuning" in recommendations:
        recommendations.remove("full_fine_tuning")
        recommendations.append("qlora")
        reasons.append(
            f"Full fine-tuning needs {full_ft_gpus_needed} A100s but you have {gpu_count}. "
            f"QLoRA needs only {qlora_gpus_needed} A100s."
        )
    if need_variants > 3:
        recommendations = ["lora"]
        reasons.append(
            f"{need_variants} variants x {model_size_b * 2:.0f} GB per model = "
            f"{need_variants * model_size_b * 2:.0f} GB storage for full fine-tuning. "
            f"LoRA: {model_size_b * 2:.0f} GB base + {need_variants * 0.15:.1f} GB adapters."
        )
    return {
        "recommendation": recommendations[-1] if recommendations else "lora",
        "reasons": reasons,
        "full_ft_gpus_needed": full_ft_gpus_needed,
        "lora_gpus_needed": lora_gpus_needed,
        "qlora_gpus_needed": qlora_gpus_needed,
    }


def rank(examples: int) -> int:
    """Under 10 K examples 4 to 8, to 500 K 16 to 32, beyond 64 to 128: the lower ends, but 8 for its "4 to 8"."""
    if examples < 10_000:
        return 8
    return 16 if examples <= 500_000 else 64
