//! Programs that nobody here wrote, unmodified: Azure's SDKs, Eclipse Paho and mosquitto.

mod azure_back_end;
mod azure_events;
mod azure_files;
mod azure_node_service;
mod azure_sdk;
mod azure_service;
mod mosquitto;
mod mosquitto_server;
mod paho;
mod provisioning;
