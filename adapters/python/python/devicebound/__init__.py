"""An Azure IoT Hub on your own machine.

    import devicebound

    with devicebound.Hub() as hub:
        device = hub.add_device("thermostat")
        ...  # azure-iot-device connects with device.connection_string
        for message in hub.telemetry():
            ...

Each hub is a process of its own, at a loopback address of its own with the ports that Azure's SDKs know, so that any
number of them run side by side. It keeps nothing when it ends.
"""

from ._hub import Device, Hub, HubError, Message, ServiceError

__all__ = ["Device", "Hub", "HubError", "Message", "ServiceError"]
