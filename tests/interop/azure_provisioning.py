"""Azure's provisioning client, run once.

The argument says as JSON what to do: `{"ca", "host", "idScope", "registrationId", "transport", "aio", "payload"}` and what the
device has: `key`, or `certificate` and `certificateKey`. Prints `{"event": "done", "result": {…}}` or
`{"event": "failed", "error": CLASS, "text": …}`. With `"connect": true` the device then connects to the hub that it was told.
"""
import asyncio
import json
import sys

from azure.iot.device import IoTHubDeviceClient, ProvisioningDeviceClient, X509
from azure.iot.device.aio import ProvisioningDeviceClient as AsyncProvisioningDeviceClient


def tell(event, **details):
    sys.stdout.write(json.dumps({"event": event, **details}) + "\n")
    sys.stdout.flush()


def certificate(config):
    return X509(cert_file=config["certificate"], key_file=config["certificateKey"])


def make_client(config, authority):
    kind = AsyncProvisioningDeviceClient if config.get("aio") else ProvisioningDeviceClient
    options = {
        "provisioning_host": config["host"],
        "registration_id": config["registrationId"],
        "id_scope": config["idScope"],
        "server_verification_cert": authority,
        "websockets": config["transport"] == "websocket",
    }
    if "key" in config:
        client = kind.create_from_symmetric_key(symmetric_key=config["key"], **options)
    else:
        client = kind.create_from_x509_certificate(x509=certificate(config), **options)
    if "payload" in config:
        client.provisioning_payload = config["payload"]
    return client


def register(config, authority):
    client = make_client(config, authority)
    if config.get("aio"):
        async def run():
            return await client.register()
        return asyncio.run(run())
    return client.register()


def connect(config, authority, state):
    options = {"server_verification_cert": authority, "websockets": config["transport"] == "websocket"}
    if "key" in config:
        device = IoTHubDeviceClient.create_from_symmetric_key(
            symmetric_key=config["key"], hostname=state.assigned_hub, device_id=state.device_id, **options)
    else:
        device = IoTHubDeviceClient.create_from_x509_certificate(
            x509=certificate(config), hostname=state.assigned_hub, device_id=state.device_id, **options)
    device.connect()
    device.send_message("provisioned")
    twin = device.get_twin()
    device.shutdown()
    return twin


def main():
    config = json.loads(sys.argv[1])
    with open(config["ca"], encoding="ascii") as file:
        authority = file.read()
    try:
        result = register(config, authority)
        state = result.registration_state
        told = {"status": result.status, "hub": state.assigned_hub, "deviceId": state.device_id,
                "substatus": state.sub_status, "payload": state.response_payload}
        if config.get("connect"):
            told["twin"] = connect(config, authority, state)
        tell("done", result=told)
    except Exception as error:  # whatever it is, the test judges it
        tell("failed", error=type(error).__name__, text=f"{error} {error.__cause__}")


main()
