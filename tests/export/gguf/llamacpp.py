"""`python llamacpp.py GGUF`: what llama.cpp itself makes of a file, as one JSON document on standard output. Run by an
interpreter that has xllamacpp, not by the one of the tests.

Reads on standard input: {"conversations": [[message…]…], "max_tokens": n}.
"""

import json
import sys
import urllib.request

import xllamacpp


def main() -> None:
    asked = json.load(sys.stdin)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = sys.argv[1]
    parameters.n_ctx, parameters.n_parallel = 512, 1
    parameters.cpuparams.n_threads = 1
    parameters.use_jinja = True
    server = xllamacpp.Server(parameters)

    def post(path: str, body: object) -> dict:
        request = urllib.request.Request(
            server.listening_address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)

    found = []
    for messages in asked["conversations"]:
        prompt = post("/apply-template", {"messages": messages})["prompt"]
        ids = post("/tokenize", {"content": prompt, "add_special": True, "parse_special": True})["tokens"]
        told = post(
            "/completion",
            {"prompt": ids, "n_predict": asked["max_tokens"], "temperature": 0, "top_k": 1, "return_tokens": True},
        )
        found.append({"ids": ids, "answer": told["tokens"]})
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
