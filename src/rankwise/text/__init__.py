"""One reading of data for observation, training, evaluation, proof and serving. Imports no torch and no transformers.

sources     what a job names -> files (a file, a folder, a split, a dataset of the hub)
containers  files -> records with their lines (jsonl, json array, csv; by columnar: parquet, arrow)
formats     records -> rows (messages, sharegpt, alpaca, prompt/completion, text)
probes      records -> closed-book questions
sandbox     a chat template -> a function, rendering as transformers renders
template    a model folder -> ChatText: render, encode, decode, stop tokens
masks       rows -> token ids and labels; lengths made to fit
"""
