//! A storage container: a folder into which messages go in batches, a file for each partition.

use std::time::Duration;

use devicebound::time::UnixTime;

/// What the name of a file is made of; all of them, in any order (Azure Resource Manager: `fileNameFormat`).
const TOKENS: [&str; 7] = ["{iothub}", "{partition}", "{YYYY}", "{MM}", "{DD}", "{HH}", "{mm}"];
/// The names where none are asked for.
pub(super) const FORMAT: &str = "{iothub}/{partition}/{YYYY}/{MM}/{DD}/{HH}/{mm}";
/// Longest format (own limit).
const FORMAT_MAX: usize = 256;

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) name: String,
    /// The folder.
    pub(super) folder: String,
    pub(super) format: String,
    /// A batch is closed so long after its first message.
    pub(super) frequency: Duration,
    /// Or when a file of it has so many bytes.
    pub(super) chunk: u64,
}

impl Container {
    /// The path of a file below the folder, with slashes.
    pub(super) fn path(&self, hub_name: &str, partition: u16, time: UnixTime) -> String {
        let time = time.to_string();
        // 2030-01-31T12:00:00.000Z
        let part = |from: usize, to: usize| time.get(from..to).unwrap_or_default();
        let partition = format!("{partition:02}");
        let values = [hub_name, &partition, part(0, 4), part(5, 7), part(8, 10), part(11, 13), part(14, 16)];
        TOKENS.iter().zip(values).fold(self.format.clone(), |path, (token, value)| path.replace(token, value))
    }
}

/// Whether files can be called so: all tokens, and no name that leads out of the folder.
pub(super) fn is_format(format: &str) -> bool {
    let rest = TOKENS.iter().fold(format.to_owned(), |rest, token| rest.replacen(token, "0", 1));
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    format.len() <= FORMAT_MAX
        && TOKENS.iter().all(|token| format.contains(token))
        && rest.bytes().all(is_allowed)
        && rest.split('/').all(|segment| segment.bytes().any(|byte| byte != b'.'))
}

/// Whether a container can be called so (Azure Storage: naming containers): it is the name of a folder.
pub(super) fn is_folder(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (3..=63).contains(&name.len())
        && name.bytes().all(is_inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_hub_partition_and_time_and_stays_in_its_folder() {
        let container = |format: &str| Container {
            name: "c".to_owned(),
            folder: "c".to_owned(),
            format: format.to_owned(),
            frequency: Duration::ZERO,
            chunk: 0,
        };
        let time = UnixTime::from_secs(1_700_000_000);
        assert_eq!(container(FORMAT).path("hub", 3, time), "hub/03/2023/11/14/22/13");
        let other = "raw/{YYYY}{MM}{DD}-{HH}{mm}/{iothub}_{partition}.json";
        assert!(is_format(FORMAT) && is_format(other));
        assert_eq!(container(other).path("hub", 0, time), "raw/20231114-2213/hub_00.json");
        for wrong in [
            "",
            "{iothub}/{partition}/{YYYY}/{MM}/{DD}/{HH}",
            "../{iothub}/{partition}/{YYYY}/{MM}/{DD}/{HH}/{mm}",
            "/{iothub}/{partition}/{YYYY}/{MM}/{DD}/{HH}/{mm}",
            "{iothub}//{partition}/{YYYY}/{MM}/{DD}/{HH}/{mm}",
            "{iothub}/{partition}/{YYYY}/{MM}/{DD}/{HH}/{mm}/",
            "{iothub}\\{partition}/{YYYY}/{MM}/{DD}/{HH}/{mm}",
            "{iothub}/{partition}/{YYYY}/{MM}/{DD}/{HH}/{mm}/{ss}",
        ] {
            assert!(!is_format(wrong), "{wrong}");
        }
        assert!(
            is_folder("cold-1")
                && !is_folder("..")
                && !is_folder("a/b")
                && !is_folder("Cold")
                && !is_folder("-ab")
        );
    }
}
