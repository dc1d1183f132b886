"""Azure's service SDK under remote control.

The argument says as JSON how to connect, `{"ca", "connectionString"}`. Then it reads one command per line from stdin,
`{"do": NAME, "arguments": [...]}`: a method of IoTHubRegistryManager, or behind `runtime.` one of IoTHubHttpRuntimeManager,
behind `jobs.` one of IoTHubJobManager, behind `configurations.` one of IoTHubConfigurationManager, behind `twins.` one of
DigitalTwinClient, or behind `messages.` one of the part of the SDK that it is made on. An argument that is `{"model": NAME, ...}` becomes that
model of the SDK, read as the SDK reads JSON. Each command is answered with `{"event": "done", "result": ...}`, models and raw
responses written as JSON, or with `{"event": "failed", "error": CLASS, "status": ..., "text": ..., "name": ...}`.
"""
import json
import os
import sys

config = json.loads(sys.argv[1])
# As any user tells the SDK's HTTP client which authority to trust; the hub is on this machine, behind no proxy.
os.environ["REQUESTS_CA_BUNDLE"] = config["ca"]
os.environ["NO_PROXY"] = "*"

from azure.iot.hub import (  # noqa: E402
    DigitalTwinClient,
    IoTHubConfigurationManager,
    IoTHubHttpRuntimeManager,
    IoTHubJobManager,
    IoTHubRegistryManager,
)
from azure.iot.hub.iothub_registry_manager import QueryResult  # noqa: E402
from msrest import Deserializer, Serializer  # noqa: E402
from msrest.exceptions import HttpOperationError  # noqa: E402
from msrest.pipeline import ClientRawResponse  # noqa: E402

import azure.iot.hub.models  # noqa: E402

CLASSES = {name: value for name, value in vars(azure.iot.hub.models).items() if isinstance(value, type)}


def tell(event, **details):
    sys.stdout.write(json.dumps({"event": event, **details}) + "\n")
    sys.stdout.flush()


def to_model(value):
    if isinstance(value, dict) and "model" in value:
        return Deserializer(CLASSES)(value.pop("model"), value)
    if isinstance(value, list):
        return [to_model(item) for item in value]
    return value


def to_json(value):
    if isinstance(value, QueryResult):
        return {"type": value.type, "items": to_json(value.items), "continuationToken": value.continuation_token}
    if isinstance(value, ClientRawResponse):
        response = value.response
        return {"status": response.status_code, "headers": dict(response.headers), "text": response.text}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if type(value).__name__ in CLASSES:
        # What the SDK's model does not know, it keeps apart.
        known = Serializer(CLASSES).body(value, type(value).__name__)
        return {**(value.additional_properties or {}), **known}
    return value


class Service:
    def __init__(self, connection_string):
        self.registry = IoTHubRegistryManager.from_connection_string(connection_string)
        self.runtime = IoTHubHttpRuntimeManager.from_connection_string(connection_string)
        self.jobs = IoTHubJobManager.from_connection_string(connection_string)
        self.configurations = IoTHubConfigurationManager.from_connection_string(connection_string)
        self.twins = DigitalTwinClient.from_connection_string(connection_string)
        self.messages = self.registry.protocol.cloud_to_device_messages

    def run(self, do, arguments):
        part, _, name = do.rpartition(".")
        method = getattr(getattr(self, part or "registry"), name)
        return to_json(method(*[to_model(argument) for argument in arguments]))


def main():
    service = Service(config["connectionString"])
    for line in sys.stdin:
        try:
            result = service.run(**json.loads(line))
        except HttpOperationError as error:
            response = error.response
            name = response.headers.get("iothub-errorcode")
            tell("failed", error="HttpOperationError", status=response.status_code, text=response.text, name=name)
        except Exception as error:  # whatever the SDK raises is what the test wants to know
            tell("failed", error=type(error).__name__, status=None, text=str(error), name=None)
        else:
            tell("done", result=result)
    tell("end")


main()
