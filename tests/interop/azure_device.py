"""Azure's device SDK under remote control.

The argument says as JSON how to connect, `{"ca", "host", "transport", "identity"}`, and the identity who does: `connectionString` of
a device or a module and perhaps `tokenSeconds`, or `deviceId` with `certificate` and `key`. Then it reads one command per line from stdin, `{"do": NAME, ...}`, and answers each with
`{"event": "done", "result": ...}` or `{"event": "failed", "error": CLASS, "text": ...}`. What the hub sends is told as it
comes. The end of stdin shuts the client down; DISCONNECT is sent then.
"""
import json
import sys

from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient, Message, MethodResponse, X509
from azure.storage.blob import BlobClient


def tell(event, **details):
    sys.stdout.write(json.dumps({"event": event, **details}) + "\n")
    sys.stdout.flush()


def make_client(config):
    with open(config["ca"], encoding="ascii") as file:
        authority = file.read()
    options = {
        "server_verification_cert": authority,
        "websockets": config["transport"] == "websocket",
        "connection_retry_interval": 1,
    }
    identity = config["identity"]
    if "certificate" in identity:
        x509 = X509(cert_file=identity["certificate"], key_file=identity["key"])
        return IoTHubDeviceClient.create_from_x509_certificate(x509, config["host"], identity["deviceId"], **options)
    connection_string = identity["connectionString"]
    kind = IoTHubModuleClient if "ModuleId=" in connection_string else IoTHubDeviceClient
    return kind.create_from_connection_string(connection_string, sastoken_ttl=identity.get("tokenSeconds", 3600), **options)


class Device:
    def __init__(self, config):
        self.client = make_client(config)
        self.client.on_connection_state_change = self.on_connection_state_change
        # As a line of its own; otherwise the SDK only writes it to its log.
        self.client.on_background_exception = lambda error: tell("background", error=type(error).__name__, text=str(error))

    def on_connection_state_change(self):
        tell("connected" if self.client.connected else "disconnected")

    def connect(self):
        self.client.connect()

    def send(self, body, properties=None, **system):
        message = Message(body)
        message.custom_properties.update(properties or {})
        for name, value in system.items():
            setattr(message, name, value)
        self.client.send_message(message)

    def listen(self):
        self.client.on_message_received = self.on_message
        self.client.on_method_request_received = self.on_method
        self.client.on_twin_desired_properties_patch_received = lambda patch: tell("desired", patch=patch)

    def on_message(self, message):
        tell(
            "message",
            body=message.data.decode(),
            properties=message.custom_properties,
            message_id=message.message_id,
            correlation_id=message.correlation_id,
            user_id=message.user_id,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            ack=message.ack,
        )

    def on_method(self, request):
        """Answers with the status that the caller asked for, by default 200, and with the payload as it came."""
        tell("method", name=request.name, payload=request.payload)
        payload = request.payload
        status = payload.get("status", 200) if isinstance(payload, dict) else 200
        self.client.send_method_response(MethodResponse.create_from_method_request(request, status, payload))

    def get_twin(self):
        return self.client.get_twin()

    def upload(self, name, body, ca):
        info = self.client.get_storage_info_for_blob(name)
        url = f"https://{info['hostName']}/{info['containerName']}/{info['blobName']}{info['sasToken']}"
        with BlobClient.from_blob_url(url, connection_verify=ca) as blob:
            blob.upload_blob(body)
            read = blob.download_blob().readall().decode()
        self.client.notify_blob_upload_status(info["correlationId"], True, 200, "uploaded")
        return read

    def report(self, patch):
        self.client.patch_twin_reported_properties(patch)


def main():
    device = Device(json.loads(sys.argv[1]))
    for line in sys.stdin:
        command = json.loads(line)
        try:
            result = getattr(device, command.pop("do"))(**command)
        except Exception as error:  # whatever the SDK raises is what the test wants to know
            tell("failed", error=type(error).__name__, text=str(error))
        else:
            tell("done", result=result)
    device.client.shutdown()
    tell("end")


main()
