//! `devicebound explain`: the rule book, and captures in the words of the live view.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use devicebound::Rule;

use crate::Failure;
use crate::capture::{self, CaptureError};

/// No capture is read beyond this: it is held in memory as a whole.
const CAPTURE_MAX: u64 = 1024 * 1024 * 1024;

const CAPTURE_ADVICE: &str = "capture whole packets of the plain port: tcpdump -i any -s 0 -w capture.pcap port 1883; or write bytes as hex, and name that file with --hex";

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The id of a rule (HUB-D2C-QOS2, MQTT-3.1.0-1), or a pcap or pcapng file with plain MQTT; without it: all rules
    #[arg(value_name = "RULE|FILE", conflicts_with = "hex")]
    what: Option<String>,
    /// Bytes as hex lines; `>` in front marks what the device sent, `<` what the hub sent; `-` reads standard input
    #[arg(long, value_name = "FILE|-")]
    hex: Option<PathBuf>,
}

pub(super) fn run(args: &ExplainArgs) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let mut is_silent = true;
    // Nobody reads any more (`| head`): what is left is told to nobody.
    let mut tell = |line: &str| {
        is_silent = false;
        drop(writeln!(out, "{line}"));
    };
    let told = match (&args.hex, &args.what) {
        (Some(path), _) => {
            let bytes = read(path)?;
            let text = String::from_utf8_lossy(&bytes);
            capture::explain_hex(&text, &mut tell).map_err(|error| unreadable(path, &error))
        }
        (None, Some(what)) => match Rule::ALL.iter().find(|rule| rule.id().eq_ignore_ascii_case(what)) {
            Some(rule) => {
                tell(&in_full(*rule));
                Ok(())
            }
            None => explain_file(what, &mut tell),
        },
        (None, None) => {
            Rule::ALL.iter().for_each(|rule| tell(&format!("{:24} {}", rule.id(), rule.says())));
            Ok(())
        }
    };
    if told.is_ok() && is_silent {
        return Err(Failure::new("there is nothing in it that could be told", CAPTURE_ADVICE));
    }
    told
}

fn in_full(rule: Rule) -> String {
    format!("{}\n  says   {}\n  mend   {}\n  source {}", rule.id(), rule.says(), rule.mend(), rule.source())
}

fn explain_file(what: &str, tell: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    let path = Path::new(what);
    if !path.is_file() {
        let near = near(what);
        let next = if near.is_empty() {
            "devicebound explain lists the rules; a capture is the name of a pcap or pcapng file".to_owned()
        } else {
            format!("did you mean {}?", near.join(", "))
        };
        return Err(Failure::new(format!("`{what}` is neither a rule nor a file"), next));
    }
    capture::explain_file(&read(path)?, tell).map_err(|error| unreadable(path, &error))
}

/// The rules whose ids contain what was typed; without any, those that begin as it does up to the last dash.
fn near(typed: &str) -> Vec<&'static str> {
    let typed = typed.to_ascii_uppercase();
    let family = typed.rsplit_once('-').map_or(typed.as_str(), |(family, _)| family);
    if family.len() < 3 {
        return Vec::new();
    }
    let ids = || Rule::ALL.iter().map(|rule| rule.id());
    let with_it: Vec<_> = ids().filter(|id| id.contains(&typed)).collect();
    if with_it.is_empty() { ids().filter(|id| id.starts_with(family)).collect() } else { with_it }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let cannot = |error: std::io::Error| {
        Failure::new(format!("cannot read {}: {error}", path.display()), "name a file that you may read")
    };
    let source: Box<dyn std::io::Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(path).map_err(cannot)?)
    };
    let mut bytes = Vec::new();
    let length = source.take(CAPTURE_MAX.saturating_add(1)).read_to_end(&mut bytes).map_err(cannot)?;
    if length as u64 > CAPTURE_MAX {
        return Err(Failure::new(
            format!("{} is larger than 1 GiB", path.display()),
            "cut out what matters: tcpdump -r FILE -w PART host ADDRESS, or editcap -c 1000000 FILE PARTS",
        ));
    }
    Ok(bytes)
}

fn unreadable(path: &Path, error: &CaptureError) -> Failure {
    let next = match error {
        CaptureError::Hex(_) => "write bytes as `10 12 00`, `101200` or `0x10, 0x12`; remarks start with #",
        CaptureError::File(_) => CAPTURE_ADVICE,
    };
    Failure::new(format!("{}: {error}", path.display()), next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_told_with_its_mend_and_its_source() {
        let text = in_full(Rule::PublishQos2);
        for part in
            ["HUB-D2C-QOS2", Rule::PublishQos2.says(), Rule::PublishQos2.mend(), "QoS 2 is not supported"]
        {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_mistyped_rule_is_answered_with_those_that_are_near() {
        let failure = explain_file("hub-d2c-qos", &mut |_| {}).unwrap_err();
        assert!(failure.next().contains("HUB-D2C-QOS2"), "{failure}");
        let failure = explain_file("HUB-D2C", &mut |_| {}).unwrap_err();
        assert!(!failure.next().contains("HUB-SAS"), "not the whole book: {failure}");
        let failure = explain_file("nothing like it", &mut |_| {}).unwrap_err();
        assert!(failure.next().contains("lists the rules"), "{failure}");
    }
}
