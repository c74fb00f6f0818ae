"""DynamoDB, S3, Firehose and the rest of the light stack: moto, one request at a time.

    moto_server.py PORT

`moto_server` itself handles requests in parallel, so that two conditional writes may both succeed. Here each request is read by a
thread of its own, so that a client that stalls delays no other, and is handled under one lock.

Three faults of moto are fixed here:

- a request for an aborted upload is an error 404, as in S3, instead of 500;
- a list of uploads says when each began. moto says 2010, so that a sweep would remove all of them;
- a request that was cut in the middle has no effect.
"""

import datetime
import functools
import io
import logging
import sys
import threading

from moto.s3 import responses
from moto.s3.exceptions import NoSuchUpload
from moto.s3.models import S3Backend
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, run_simple


def requires_upload(method):
    @functools.wraps(method)
    def checked(self, bucket_name, multipart_id, *args, **kwargs):
        if multipart_id not in self.get_bucket(bucket_name).multiparts:
            raise NoSuchUpload(upload_id=multipart_id)
        return method(self, bucket_name, multipart_id, *args, **kwargs)

    return checked


def notes_beginning(method, began):
    @functools.wraps(method)
    def noted(self, *args, **kwargs):
        upload = method(self, *args, **kwargs)
        began[upload.id] = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        return upload

    return noted


def patch_uploads():
    began = {}
    for name in ("complete_multipart_upload", "upload_part"):
        setattr(S3Backend, name, requires_upload(getattr(S3Backend, name)))
    S3Backend.create_multipart_upload = notes_beginning(S3Backend.create_multipart_upload, began)
    plain = responses.ActionResult

    def with_beginnings(result, *args, **kwargs):
        for upload in result.get("Uploads", []) if isinstance(result, dict) else []:
            upload["Initiated"] = began[upload["UploadId"]]
        return plain(result, *args, **kwargs)

    responses.ActionResult = with_beginnings


class OneAtATime:
    def __init__(self, application):
        self.application = application
        self.lock = threading.Lock()

    def __call__(self, environ, start_response):
        if environ.get("wsgi.input_terminated"):
            body = environ["wsgi.input"].read()
        else:
            length = int(environ.get("CONTENT_LENGTH") or 0)
            body = environ["wsgi.input"].read(length)
            if len(body) < length:
                # moto would take the part that arrived for the whole request.
                start_response("400 Bad Request", [("Connection", "close")])
                return []
        environ["wsgi.input"] = io.BytesIO(body)
        environ["wsgi.input_terminated"] = True
        with self.lock:
            return list(self.application(environ, start_response))


class KeepAlive(WSGIRequestHandler):
    """Keeps connections open between requests."""

    protocol_version = "HTTP/1.1"


if __name__ == "__main__":
    patch_uploads()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = OneAtATime(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", int(sys.argv[1]), application, threaded=True, request_handler=KeepAlive)
