CUDA_VISIBLE_DEVICES=0,1 torchrun --nproc_per_node 2 finetune.py \
    --model_name_or_path meta-llama/Llama-2-7b-hf --data_path rows.json \
    --bits 4 --lora_r 64 --lora_alpha 16 --lora_target_modules all-linear \
    --learning_rate 0.0002 --per_device_train_batch_size 1 --gradient_accumulation_steps 16 \
    --max_steps 1875 --max_seq_length 1024 --bf16 True --optim paged_adamw_32bit \
    --gradient_checkpointing --evaluation_strategy steps --source_max_len 512 --pad_token "</s>"
