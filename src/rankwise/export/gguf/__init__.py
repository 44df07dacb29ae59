"""A merged model as GGUF, for llama.cpp and Ollama.

converter    llama.cpp's own converter, run as a process of its own
readback     the file read again: text, tensors, logits against the model it was made of
gotemplate   a chat template as a Go template, where it can be one
modelfile    Ollama's Modelfile
"""
