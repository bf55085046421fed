"""Counts visits in Redis; greets as it is configured to."""
import os
import signal
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def redis(*words):
    """One authenticated command, as Redis' protocol wants it."""
    with socket.create_connection((os.environ["REDIS"], 6379), timeout=5) as connection:
        stream = connection.makefile("rwb")
        for command in (("AUTH", os.environ["PASSWORD"]), words):
            stream.write(b"*%d\r\n" % len(command))
            for word in command:
                stream.write(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()))
            stream.flush()
            answer = stream.readline().strip().decode()
            if answer.startswith("-"):
                raise RuntimeError(answer)
        return answer.lstrip(":+")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            text = "ok" if self.path == "/healthz" else "%s from %s, visit %s\n" % (
                open("/config/greeting").read().strip(),
                os.environ["RELEASE"],
                redis("INCR", "visits"),
            )
            status = 200
        except Exception as error:
            status, text = 500, repr(error)
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128


server = Server(("", 8000), Handler)


def leave(*_):
    """New requests may still come for a moment: the address must leave the service first."""
    def later():
        time.sleep(3)
        server.shutdown()
    threading.Thread(target=later).start()


signal.signal(signal.SIGTERM, leave)
print("serving")
server.serve_forever()
server.server_close()
