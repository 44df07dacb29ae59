"""A real HTTP server that speaks OpenAI's protocol of chat completions, as far as a judge asks for it."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[dict[str, Any], str], tuple[int, str]]


class Server:
    """Answers /v1/chat/completions by a function of the request."""

    def __init__(self, reply: Reply):
        self.requests: list[tuple[dict[str, Any], dict[str, str]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append((body, dict(self.headers)))
                status, text = (404, "") if self.path != "/v1/chat/completions" else reply(body, said_in(body))
                content = json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]})
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:9/stolen")
                self.end_headers()
                self.wfile.write((content if text != "garbage" else "<html>").encode())

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


def said_in(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


@contextmanager
def serving(reply: Reply) -> Iterator[Server]:
    server = Server(reply)
    thread = threading.Thread(target=server.http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()


def part(text: str, name: str) -> str:
    return text.split(f"<{name}>\n")[1].split(f"\n</{name}>")[0]


def fair(body: dict[str, Any], text: str) -> tuple[int, str]:
    """Prefers the answer that holds the reference."""
    right = [part(text, "reference") in part(text, f"answer_{side}") for side in "ab"]
    verdict = "tie" if right[0] == right[1] else "A" if right[0] else "B"
    return 200, f"Let me see.\nVERDICT: A would be a guess.\n**VERDICT: {verdict}**"
