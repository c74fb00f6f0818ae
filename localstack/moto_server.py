"""DynamoDB, S3, Firehose and the rest of the light stack: moto, one request at a time.

    moto_server.py PORT

`moto_server` itself answers requests side by side, and its conditional writes then have two winners now and then. Here a
request is read whole by a thread of its own, so that a client that stalls holds up nobody, and handled under one lock.

Of an upload that was aborted it says that it is not there, as S3 does, where moto itself fails with 500.
"""

import functools
import io
import logging
import sys
import threading

from moto.s3.exceptions import NoSuchUpload
from moto.s3.models import S3Backend
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, run_simple


def of_an_upload(method):
    @functools.wraps(method)
    def checked(self, bucket_name, multipart_id, *args, **kwargs):
        if multipart_id not in self.get_bucket(bucket_name).multiparts:
            raise NoSuchUpload(upload_id=multipart_id)
        return method(self, bucket_name, multipart_id, *args, **kwargs)

    return checked


class OneAtATime:
    def __init__(self, application):
        self.application = application
        self.lock = threading.Lock()

    def __call__(self, environ, start_response):
        if environ.get("wsgi.input_terminated"):
            body = environ["wsgi.input"].read()
        else:
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        environ["wsgi.input_terminated"] = True
        with self.lock:
            return list(self.application(environ, start_response))


class Quiet(WSGIRequestHandler):
    """Keeps connections open."""

    protocol_version = "HTTP/1.1"


if __name__ == "__main__":
    S3Backend.complete_multipart_upload = of_an_upload(S3Backend.complete_multipart_upload)
    S3Backend.upload_part = of_an_upload(S3Backend.upload_part)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = OneAtATime(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", int(sys.argv[1]), application, threaded=True, request_handler=Quiet)
