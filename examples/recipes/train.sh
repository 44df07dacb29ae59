# A script around transformers' Trainer. rankwise plan --from examples/recipes/train.sh --gpu A100-80GB --tokens-per-example 500
accelerate launch --num_processes 2 finetune.py \
    --model_name_or_path meta-llama/Llama-2-7b-hf --train_file our_tickets.json \
    --load_in_4bit --lora_r 64 --lora_alpha 16 --lora_target_modules all-linear \
    --learning_rate 0.0002 --per_device_train_batch_size 1 --gradient_accumulation_steps 16 \
    --max_steps 1875 --max_length 1024 --bf16 --optim paged_adamw_32bit --gradient_checkpointing
