#!/bin/bash
set -euo pipefail
export MODEL=Qwen/Qwen2.5-0.5B
OUT="runs/a run"
export WANDB_API_KEY=0123456789abcdef0123456789abcdef01234567

pip install trl && echo ready

accelerate launch --config_file accelerate_fsdp.yaml \
    trl/scripts/sft.py \
    --model_name_or_path ${MODEL} \
    --dataset_name our-team/tickets \
    --learning_rate=2.0e-5 \
    --per_device_train_batch_size 2 \
    --gradient_accumulation_steps 8 \
    --use_peft \
    --lora_target_modules q_proj v_proj \
    --output_dir "$OUT" \
    --run_name ${RUN_NAME}  # nobody sets it
