//! `devicebound explain`: the rule book, Azure's numbers, and captures in the words of the live view.

mod amqp;
mod azure;
mod lessons;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use devicebound::Rule;
use devicebound_amqp::Rule as AmqpRule;

use crate::Failure;
use crate::capture::{self, CaptureError, KeyLog};
use crate::observe::printable::printable_lines;

/// No capture is read beyond this: it is held in memory as a whole.
const CAPTURE_MAX: u64 = 1024 * 1024 * 1024;

/// A key log is larger only if it is none.
const KEY_LOG_MAX: u64 = 256 * 1024 * 1024;
/// Rules that are suggested for one that does not exist.
const NEAR: usize = 3;

const CAPTURE_ADVICE: &str = "capture whole packets: tcpdump -i any -s 0 -w capture.pcap port 8883, and give the keys with --key-log FILE (SSLKEYLOGFILE of the device, or devicebound hub --key-log FILE); or write bytes as hex, and name that file with --hex";

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The id of a rule (HUB-D2C-QOS2, MQTT-3.1.0-1), a number of Azure's (401003), an error condition of AMQP
    /// (amqp:link:stolen), or a pcap or pcapng file; without it: all
    /// rules
    #[arg(value_name = "RULE|NUMBER|FILE", conflicts_with = "hex")]
    what: Option<String>,
    /// Bytes as hex lines; `>` in front marks what the device sent, `<` what the hub sent; `-` reads standard input
    #[arg(long, value_name = "FILE|-")]
    hex: Option<PathBuf>,
    /// Session secrets of the TLS in the capture, in the format of SSLKEYLOGFILE: what devicebound hub --key-log FILE writes,
    /// curl, browsers, and SDKs on OpenSSL; may be given again
    #[arg(long = "key-log", value_name = "FILE", conflicts_with = "hex")]
    key_logs: Vec<PathBuf>,
}

pub(super) fn run(args: &ExplainArgs) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let mut is_silent = true;
    // Nobody reads any more (`| head`): what is left is told to nobody.
    let mut tell = |line: &str| {
        is_silent = false;
        drop(writeln!(out, "{}", printable_lines(line)));
    };
    let told = match (&args.hex, &args.what) {
        (Some(path), _) => {
            let bytes = read(path, CAPTURE_MAX)?;
            let text = String::from_utf8_lossy(&bytes);
            capture::explain_hex(&text, &mut tell).map_err(|error| unreadable(path, &error))
        }
        (None, Some(what)) => match in_words(what) {
            Some(text) => {
                tell(&text);
                Ok(())
            }
            None => explain_file(what, &args.key_logs, &mut tell),
        },
        (None, None) => {
            Rule::ALL.iter().for_each(|rule| tell(&format!("{:24} {}", rule.id(), rule.says())));
            AmqpRule::ALL.iter().for_each(|rule| tell(&format!("{:24} {}", rule.id(), rule.says())));
            Ok(())
        }
    };
    if told.is_ok() && is_silent {
        return Err(Failure::new("there is no frame in it", CAPTURE_ADVICE));
    }
    told
}

/// What a rule or a number of Azure's says.
fn in_words(what: &str) -> Option<String> {
    let rule = Rule::ALL.iter().find(|rule| rule.id().eq_ignore_ascii_case(what));
    rule.map(|rule| in_full(*rule)).or_else(|| amqp::explain(what)).or_else(|| azure::explain(what))
}

fn in_full(rule: Rule) -> String {
    let mut text = format!("{}\n  says   {}", rule.id(), rule.says());
    let lesson = lessons::of(rule);
    if let Some(lesson) = &lesson {
        text.push_str(&format!("\n  why    {}", lesson.why));
    }
    text.push_str(&format!("\n  fix    {}", rule.fix()));
    if let Some(lesson) = &lesson {
        text.push_str(&format!("\n  wrong  {}\n  right  {}", lesson.wrong, lesson.right));
    }
    text.push_str(&format!("\n  source {}", rule.source()));
    text
}

fn explain_file(what: &str, key_logs: &[PathBuf], tell: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    let path = Path::new(what);
    if !path.is_file() {
        let next = match near(what) {
            near if near.is_empty() => {
                "devicebound explain lists the rules; a capture is the name of a pcap or pcapng file"
                    .to_owned()
            }
            near => format!("did you mean {}?", near.join(", ")),
        };
        return Err(Failure::new(
            format!("`{what}` is neither a rule, a number of Azure's nor a file"),
            next,
        ));
    }
    let mut secrets = KeyLog::default();
    for path in key_logs {
        secrets.read(&read(path, KEY_LOG_MAX)?);
        if let Some(line) = secrets.unread_line() {
            let what = format!("{}: line {line} is no line of a key log", path.display());
            return Err(Failure::new(what, "name what SSLKEYLOGFILE or devicebound hub --key-log wrote"));
        }
    }
    let bytes = read(path, CAPTURE_MAX)?;
    capture::explain_file_with(secrets, &bytes, tell).map_err(|error| unreadable(path, &error))
}

/// The rules, or numbers of Azure's, that are most like what was typed.
fn near(typed: &str) -> Vec<String> {
    if typed.len() == 6 && typed.bytes().all(|byte| byte.is_ascii_digit()) {
        return azure::near(typed);
    }
    let typed = typed.to_ascii_uppercase();
    // What has the form of an id is one that was mistyped, anything else a file that is not there.
    if typed.len() < 3 || typed.len() > 40 || typed.contains(['.', '/', ' ']) && !typed.starts_with("MQTT-") {
        return Vec::new();
    }
    let amqp = AmqpRule::ALL.iter().map(|rule| rule.id());
    let mut ids: Vec<&str> = Rule::ALL.iter().map(|rule| rule.id()).chain(amqp).collect();
    ids.sort_by_key(|id| distance(&typed, id));
    ids.into_iter().take(NEAR).map(str::to_owned).collect()
}

/// Letters to be added, left out or changed to make the one out of the other; what contains the other is nearer.
fn distance(typed: &str, id: &str) -> (bool, usize) {
    let mut row: Vec<usize> = (0..=id.chars().count()).collect();
    for (index, typed) in typed.chars().enumerate() {
        let mut left = index.saturating_add(1);
        let mut diagonal = index;
        for (known, place) in id.chars().zip(1..) {
            let Some(cell) = row.get_mut(place) else { break };
            let above = *cell;
            let changed = diagonal.saturating_add(usize::from(typed != known));
            let next = changed.min(above.saturating_add(1)).min(left.saturating_add(1));
            diagonal = above;
            *cell = next;
            left = next;
        }
        if let Some(first) = row.first_mut() {
            *first = index.saturating_add(1);
        }
    }
    (!id.contains(typed), row.last().copied().unwrap_or_default())
}

fn read(path: &Path, max: u64) -> Result<Vec<u8>, Failure> {
    let cannot = |error: std::io::Error| {
        Failure::new(format!("cannot read {}: {error}", path.display()), "name a file that you may read")
    };
    let source: Box<dyn std::io::Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(path).map_err(cannot)?)
    };
    let mut bytes = Vec::new();
    let length = source.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(cannot)?;
    if length as u64 > max {
        return Err(Failure::new(
            format!("{} is larger than {} MiB", path.display(), max / (1024 * 1024)),
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
    fn a_rule_is_told_with_its_fix_and_its_source() {
        let text = in_full(Rule::PublishQos2);
        for part in
            ["HUB-D2C-QOS2", Rule::PublishQos2.says(), Rule::PublishQos2.fix(), "QoS 2 is not supported"]
        {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_mistyped_rule_is_answered_with_the_three_that_are_nearest() {
        let suggested = |typed: &str| explain_file(typed, &[], &mut |_| {}).unwrap_err().next().to_owned();
        for (typed, meant) in [
            ("hub-d2c-qos", "HUB-D2C-QOS2"),
            ("HUB-SAS-EXPIRD", "HUB-SAS-EXPIRED"),
            ("HUB-TAKEOVR", "HUB-TAKEOVER"),
            ("MQTT-3.1.0_1", "MQTT-3.1.0-1"),
            ("SAS-SIG", "HUB-SAS-SIG"),
            ("401004", "401003"),
        ] {
            let text = suggested(typed);
            assert!(text.contains(meant), "{typed}: {text}");
            assert_eq!(text.matches(", ").count(), 2, "three: {text}");
        }
        assert!(suggested("nothing like it.pcap").contains("lists the rules"));
    }

    #[test]
    fn a_rule_is_told_with_more_than_the_view_has() {
        let text = in_words("hub-takeover").unwrap();
        for part in ["why ", "wrong ", "right ", "fix ", "source "] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(in_words("401003").unwrap().contains("HUB-SAS-SIG"));
    }
}
