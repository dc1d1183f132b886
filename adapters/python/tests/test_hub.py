"""What the package promises, with Azure's own SDKs."""

import json

import devicebound
import pytest
from azure.iot.device import IoTHubDeviceClient, MethodResponse
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod


@pytest.fixture
def device(iothub_device):
    client = IoTHubDeviceClient.create_from_connection_string(iothub_device.connection_string)
    client.connect()
    yield client
    client.shutdown()


def test_telemetry_of_the_device_sdk_is_read_back(iothub, iothub_device, device):
    device.send_message(json.dumps({"temperature": 21.5}))
    sent = (message for message in iothub.telemetry() if message.device_id == iothub_device.device_id)
    assert next(sent).json() == {"temperature": 21.5}


def test_a_method_of_the_service_sdk_reaches_the_device(iothub, iothub_device, device):
    def answer(request):
        device.send_method_response(MethodResponse.create_from_method_request(request, 200, request.payload))

    device.on_method_request_received = answer
    service = IoTHubRegistryManager.from_connection_string(iothub.service_connection_string)
    method = CloudToDeviceMethod(method_name="echo", payload={"a": 1}, response_timeout_in_seconds=10)
    assert service.invoke_device_method(iothub_device.device_id, method).payload == {"a": 1}


def test_two_hubs_run_side_by_side(iothub):
    with devicebound.Hub() as other:
        assert other.host != iothub.host
        other.add_device("only-here")
        with pytest.raises(devicebound.ServiceError, match="DeviceNotFound"):
            iothub.request("GET", "/devices/only-here")


def test_a_hub_that_cannot_start_says_why():
    with pytest.raises(devicebound.HubError, match="--no-such-flag"):
        devicebound.Hub(["--no-such-flag"]).start()


def test_nothing_is_left_when_the_hub_has_ended():
    with devicebound.Hub() as hub:
        ca = hub.ca
    with pytest.raises(FileNotFoundError):
        open(ca)
