//! What a device record costs a hub in memory: `records [COUNT]`, of as many idle devices with keys of their own.

use std::error::Error;

use devicebound::hub::{Authentication, DeviceIdentity, DeviceRecord, Hub, HubConfig};
use devicebound::iothub::sas::SymmetricKey;
use devicebound::time::{Instant, UnixTime};
use devicebound_benches::load::process::resident;

fn main() -> Result<(), Box<dyn Error>> {
    let count: u32 = std::env::args().nth(1).map_or(Ok(1_000_000), |count| count.parse())?;
    let mut hub = Hub::new(HubConfig::default(), Instant::from_secs(1), UnixTime::from_secs(1));
    let pid = std::process::id();
    let before = resident(pid)?;
    for number in 0..count {
        let mut key = [0; 32];
        key.iter_mut().zip(number.to_le_bytes().iter().cycle()).for_each(|(byte, seed)| *byte = *seed);
        let key = || SymmetricKey::from_bytes(&key);
        let authentication = Authentication::Sas { primary: key(), secondary: key() };
        let generation_id = (637_000_000_000_000_000 + u64::from(number)).to_string();
        let identity = DeviceIdentity::new(&format!("device-{number:07}"), generation_id, authentication)?;
        hub.insert(DeviceRecord::new(identity)).map_err(|_| "two records have the same id")?;
    }
    let grown = resident(pid)?.saturating_sub(before);
    println!("{:.0} bytes for each of {count} records", grown as f64 / f64::from(count));
    drop(hub);
    Ok(())
}
