"""Stands before a storage that does not check signatures, and checks them as AWS' own library
makes them. Every request of ours is a signed address (AWS Signature Version 4, in the query).

s3_check.py PORT BACKEND_PORT CERTIFICATE KEY ACCESS_KEY SECRET_KEY
"""

import http.client
import http.server
import ssl
import sys
import urllib.parse

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

PORT, BACKEND, CERTIFICATE, KEY, ACCESS, SECRET = sys.argv[1:]
REFUSAL = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>SignatureDoesNotMatch</Code><Message>The request signature we calculated does not
match the signature you provided.</Message></Error>"""


def signature(method, path, query, host):
    fields = dict(query)
    date, scope = fields["X-Amz-Date"], fields["X-Amz-Credential"].split("/")
    if scope[0] != ACCESS:
        return None
    url = f"https://{host}{path}?{urllib.parse.urlencode(query, quote_via=urllib.parse.quote)}"
    request = AWSRequest(method=method, url=url, headers={"host": host})
    request.context["timestamp"] = date
    auth = S3SigV4QueryAuth(Credentials(ACCESS, SECRET), scope[3], scope[2])
    return auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path, _, query = self.path.partition("?")
        query = urllib.parse.parse_qsl(query, keep_blank_values=True)
        given = dict(query).get("X-Amz-Signature")
        rest = [pair for pair in query if pair[0] != "X-Amz-Signature"]
        wanted = signature(self.command, path, rest, self.headers["host"])
        if wanted is not None and given != wanted:
            return self.send(403, [("content-type", "application/xml")], REFUSAL)
        backend = http.client.HTTPConnection("127.0.0.1", int(BACKEND))
        backend.request(self.command, self.path, body, dict(self.headers))
        answer = backend.getresponse()
        self.send(answer.status, answer.getheaders(), answer.read())

    def send(self, status, headers, body):
        self.send_response_only(status)
        length = len(body)
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in ("connection", "content-length", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("content-length", str(length))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(PORT)), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(CERTIFICATE, KEY)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
