"""A web server on this machine for downloads, that can misbehave."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Web:
    """Files by path, and how they are sent.

    Attributes:
        files: path → content.
        cut: send at most so many bytes, then break off; None: all. One entry for each request to come.
        requests: (path, Range header) of those that came.
        etag: of everything; "": none, so that no download can be resumed.
        moved: path → where it is now.
        lie: added to Content-Length.
    """

    def __init__(self):
        self.files, self.cut, self.requests, self.moved = {}, [], [], {}
        self.etag, self.lie, self.address, self.says_length = '"1"', 0, "", True


@contextmanager
def serve():
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            asked = self.headers.get("Range")
            web.requests.append((self.path, asked))
            if self.path in web.moved:
                self.send_response(302)
                self.send_header("Location", web.moved[self.path])
                self.end_headers()
                return
            data = web.files.get(self.path)
            if data is None:
                self.send_error(404)
                return
            start = 0
            if asked and web.etag and self.headers.get("If-Range") == web.etag:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                self.send_response(206)
            else:
                self.send_response(200)
            if web.etag:
                self.send_header("ETag", web.etag)
            if web.says_length:
                self.send_header("Content-Length", str(len(data) - start + web.lie))
            self.end_headers()
            cut = web.cut.pop(0) if web.cut else None
            self.wfile.write(data[start:] if cut is None else data[start : start + cut])
            self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    web.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
