//! `devicebound demo`: a hub and two devices in one process, over real TLS sockets, each line told as it happens.

mod actor;
mod backend;
mod stage;
mod story;

use devicebound::device::{DeviceConfig, Timing};
use std::time::Duration;

use super::hub::{HubArgs, Prepared, prepare, runtime};
use crate::Failure;
use crate::observe::view::{Format, View};
use actor::Actor;
use backend::Backend;
use stage::Stage;

/// Runs the demo. Fails unless everything happened that it tells of.
pub(super) fn run() -> Result<(), Failure> {
    let folder = tempfile::tempdir()
        .map_err(|error| Failure::new(format!("cannot make a folder: {error}"), "see TMPDIR"))?;
    let runtime = runtime()?;
    let (view, lines) = View::lines(Format::Text);
    let hub = runtime.block_on(prepare(&HubArgs::private(folder.path().to_path_buf()), view))?;
    let Prepared { server, listeners, ready, lock: _lock, .. } = hub;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = runtime.spawn(server.run(listeners, async {
        // The sender is dropped where the demo fails, and that is to stop the hub, too.
        let _ = stopped.await;
    }));

    let mut stage = Stage::new(lines, &ready)?;
    stage.say(&format!("a hub: MQTT over TLS on {}, service API on https://{}", ready.mqtt, ready.https));
    let result = devices(&mut stage, &runtime);
    let _ = stop.send(());
    // The hub stops within seconds; how it ends is not part of the story.
    let _ = runtime.block_on(serving);
    result?;
    stage.finish();
    Ok(())
}

fn devices(stage: &mut Stage, runtime: &tokio::runtime::Runtime) -> Result<(), Failure> {
    for (id, adapter) in [("demo-tokio", "devicebound-tokio"), ("demo-blocking", "devicebound-blocking")] {
        stage.chapter(&format!("the device {id}, by the adapter {adapter}"));
        let config = config(&stage.backend, id)?;
        let tls = stage.tls()?;
        let connect = |config: DeviceConfig| {
            if id == "demo-tokio" {
                Actor::tokio(config, tls.clone(), runtime.handle().clone())
            } else {
                Actor::blocking(config, tls.clone())
            }
        };
        story::tell(stage, id, &config, &connect)?;
    }
    Ok(())
}

/// Registers a device; its config pings every second, so that nobody has to wait for a ping.
fn config(backend: &Backend, id: &str) -> Result<DeviceConfig, Failure> {
    let text = backend.register(id)?;
    let config = DeviceConfig::from_connection_string(&text)
        .map_err(|error| Failure::new(format!("the hub's connection string is wrong: {error}"), REPORT))?;
    let [reconnect_min, reconnect_max] = [50, 200].map(Duration::from_millis);
    Ok(config.with_keep_alive(1).with_timing(Timing { reconnect_min, reconnect_max, ..Timing::default() }))
}

/// What to do about a demo that fails.
const REPORT: &str = "this is a defect of devicebound: please report it with the lines above";
