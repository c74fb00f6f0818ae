"""DynamoDB for LocalStack from moto, which LocalStack contains. LocalStack's own DynamoDB is a download under AWS's licence.

Owns: one lock around every request. moto checks a condition first and writes later, so that with several threads two conditional
writes may both succeed, and two workers would hold one lease.
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
