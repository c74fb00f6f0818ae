"""LocalStack's DynamoDB from moto, which LocalStack brings along: its own is a download that needs AWS's licence.

Owns: one lock around every request. moto's conditional writes look first and write then; with several threads two of them
win now and then, and two workers would hold one lease.
"""

import threading

from localstack.services.plugins import Service, aws_provider


def _locked(handler, lock):
    def call(context, request):
        with lock:
            return handler(context, request)

    return call


@aws_provider(api="dynamodb", name="moto")
def dynamodb_moto():
    from localstack.aws.api.dynamodb import DynamodbApi
    from localstack.services.moto import MotoFallbackDispatcher

    class Provider(DynamodbApi):
        pass

    lock = threading.RLock()

    def dispatch(provider):
        return {operation: _locked(handler, lock) for operation, handler in MotoFallbackDispatcher(provider).items()}

    return Service.for_provider(Provider(), dispatch_table_factory=dispatch)
