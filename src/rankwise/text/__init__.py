"""One reading of data for observation, training, evaluation, proof and serving. Imports no torch and no transformers.

sources     what a job names -> files (a file, a folder, a split, a dataset of the hub)
containers  files -> records with their lines (jsonl, json array, csv; by columnar: parquet, arrow)
formats     records -> rows (messages, sharegpt, alpaca, prompt/completion, text)
probes      records -> closed-book questions
turns       turns as files give them -> messages as templates take them
sandbox     a chat template -> a function, rendering as transformers renders
template    a model folder -> ChatText: render, encode, decode, stop tokens
segments    a conversation -> the texts it is trained as, and what of them is learned
leftout     what a row says and the template does not write
masks       rows -> token ids and labels
tokens      a source's rows, tokenised once and kept on disk
fitting     rows made to fit a length
dataset     a job's rows, split, tokenised and fitted
"""
