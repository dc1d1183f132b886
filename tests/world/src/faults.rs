//! The faults that a simulation can show, by their numbers in the project's list of faults: what each is, what has to
//! come of it, and where it is seen.

use std::fmt;

use super::Marks;

/// A fault, and where it is seen to do no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its number in the list.
    pub id: &'static str,
    /// What goes wrong.
    pub what: &'static str,
    /// What has to be so all the same.
    pub passes: &'static str,
    /// What a long run reaches, each of them, because the World's dice bring it about.
    pub marks: &'static [&'static str],
    /// Tests that bring it about each time: the name of the file in `tests/suites`, and the test.
    pub scenarios: &'static [(&'static str, &'static str)],
}

impl Fault {
    /// How often the dice brought it about; `None` where only scenarios do.
    #[must_use]
    pub fn count(&self, marks: &Marks) -> Option<u64> {
        self.marks.iter().map(|mark| marks.count(mark)).min()
    }
}

/// How often each fault was reached.
#[derive(Clone, Copy, Debug)]
pub struct Reached<'m>(pub &'m Marks);

impl fmt::Display for Reached<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        FAULTS.iter().try_for_each(|fault| match fault.count(self.0) {
            Some(count) => writeln!(f, "{count:>12}  {}: {}", fault.id, fault.what),
            None => writeln!(f, "    scenario  {}: {}", fault.id, fault.what),
        })
    }
}

/// Every row that concerns machines and protocol.
pub const FAULTS: [Fault; 28] = [
    Fault {
        id: "A1",
        what: "CONNECT a byte at a time",
        passes: "closed 30 s after accept, and not before; only what came is held",
        marks: &["guest: CONNECT a byte at a time"],
        scenarios: &[
            (
                "scenarios/connection",
                "a_connection_without_connect_is_closed_after_30_seconds_and_not_before",
            ),
            ("hostile/cve", "cve_2026_58210_of_a_partial_connect_only_what_came_is_held_and_not_for_long"),
        ],
    },
    Fault {
        id: "A3",
        what: "a first packet that announces 256 MiB",
        passes: "closed on the header; nothing is allocated from the announced length",
        marks: &["guest: 256 MiB announced"],
        scenarios: &[
            ("hostile/cve", "cve_2017_7651_connect_with_huge_remaining_length_reserves_nothing"),
            ("hostile/cve", "cve_2023_0809_the_type_of_the_first_packet_is_judged_before_its_length"),
        ],
    },
    Fault {
        id: "A4",
        what: "keep alive 65535 or 0, then silence",
        passes: "closed after 1767 s",
        marks: &[],
        scenarios: &[("scenarios/connection", "a_keep_alive_of_18_hours_is_cut_at_1767_seconds")],
    },
    Fault {
        id: "A6",
        what: "another first packet, noise, TLS, HTTP; CONNECT twice",
        passes: "closed at once, with no answer but CONNACK where it is due",
        marks: &["guest: first packet is not CONNECT", "guest: a second CONNECT"],
        scenarios: &[
            ("scenarios/connection", "a_first_packet_that_is_not_connect_closes_on_its_first_byte"),
            (
                "hostile/device",
                "a_connect_that_breaks_a_rule_gets_no_connack_but_for_its_level_and_an_empty_client_id",
            ),
        ],
    },
    Fault {
        id: "B2",
        what: "flood of SUBSCRIBEs, known filters and unknown ones",
        passes: "each answered in order, or the connection closed; at most the documented filters are kept",
        marks: &["guest: flood of SUBSCRIBEs"],
        scenarios: &[(
            "hostile/faults",
            "b2_a_flood_of_subscribes_is_answered_in_order_and_leaves_no_memory_behind",
        )],
    },
    Fault {
        id: "B3",
        what: "cloud messages that are never acknowledged",
        passes: "at most 50 are held, the 51st is refused",
        marks: &["hub: queue full", "rule: caps hold"],
        scenarios: &[("scenarios/messages", "the_51st_waiting_message_is_refused")],
    },
    Fault {
        id: "B4",
        what: "packet ids used up, both ways",
        passes: "no id 0, none twice in flight, 65535 is followed by 1",
        marks: &["wire: 16 publishes in flight"],
        scenarios: &[
            ("hostile/faults", "b4_a_devices_packet_ids_start_again_at_1_and_pass_over_those_in_flight"),
            ("hostile/faults", "b4_a_hubs_packet_ids_start_again_at_1_and_pass_over_those_in_flight"),
        ],
    },
    Fault {
        id: "B5",
        what: "the same packet id again and again; PUBACK for strange ids, and twice",
        passes: "each QoS 1 PUBLISH is acknowledged once per arrival; nothing is kept of strange ids",
        marks: &["guest: packet ids again and strange"],
        scenarios: &[],
    },
    Fault {
        id: "B6",
        what: "topics of 65535 slashes, names, pairs, percent signs",
        passes: "served or closed, and nobody else notices; no deeper stack",
        marks: &["guest: topic bomb", "guest: request id bomb"],
        scenarios: &[("hostile/cve", "cve_2026_95844_a_topic_of_65535_slashes_takes_no_stack")],
    },
    Fault {
        id: "B7",
        what: "twin patches that nest, swell, or are no JSON",
        passes: "answered with 400 or 413, state unchanged",
        marks: &["guest: twin bomb"],
        scenarios: &[
            ("scenarios/requests", "what_a_twin_cannot_hold_is_answered_400_with_an_error_that_sdks_read"),
            ("hostile/faults", "b7_a_twin_patch_that_cannot_be_held_changes_nothing"),
        ],
    },
    Fault {
        id: "B10",
        what: "method answers for foreign calls, twice, late, after a reconnection",
        passes: "only the first answer of the device that was asked counts",
        marks: &["guest: answers to foreign calls", "app: method answered too late", "app: method answered"],
        scenarios: &[("scenarios/requests", "an_answer_of_another_device_does_not_count")],
    },
    Fault {
        id: "C1",
        what: "bytes cut and joined anywhere",
        passes: "the same result as whole",
        marks: &["fault: read split", "fault: short write"],
        scenarios: &[
            ("scenarios/sessions/mod", "every_session_vector_holds_against_the_hub_machine"),
            ("codec/packet_vectors", "valid_bytes_decode_to_the_same_packets_however_they_are_cut"),
            ("hostile/device", "every_invalid_packet_closes_the_connection_unanswered_however_it_is_cut"),
        ],
    },
    Fault {
        id: "C4",
        what: "every invalid packet, beside devices that work",
        passes: "exactly that connection closes",
        marks: &["guest: invalid packet"],
        scenarios: &[(
            "hostile/device",
            "every_invalid_packet_closes_the_connection_unanswered_however_it_is_cut",
        )],
    },
    Fault {
        id: "C5",
        what: "recorded sessions with bits turned, ends missing, packets twice or in another order",
        passes: "closed, or what is acknowledged was asked for, in order",
        marks: &["guest: recorded session, spoilt"],
        scenarios: &[],
    },
    Fault {
        id: "D1",
        what: "the connection ends at any point of any exchange",
        passes: "the device comes back, sends again in order with DUP and the same id; nothing accepted is lost",
        marks: &["fault: connection cut", "close: device, lost", "wire: telemetry sent again with DUP"],
        scenarios: &[],
    },
    Fault {
        id: "D2",
        what: "a hub that says what no hub says",
        passes: "the device closes or ignores it, and works on",
        marks: &["fault: hub sends what no hub sends", "close: device, hub broke a rule"],
        scenarios: &[(
            "hostile/hub",
            "every_invalid_packet_closes_the_connection_however_it_is_cut_and_an_unfinished_one_is_waited_for",
        )],
    },
    Fault {
        id: "D3",
        what: "half-open connections",
        passes: "found within keep alive and the time for a PINGRESP; then as D1",
        marks: &[
            "fault: connection half-open",
            "close: device, PINGRESP did not come",
            "close: hub, keep alive",
        ],
        scenarios: &[],
    },
    Fault {
        id: "D4",
        what: "CONNACK never comes, or refuses; no session where there was one",
        passes: "time-out; refusals do not hammer; subscriptions are made again",
        marks: &["close: device, CONNACK did not come", "wire: CONNACK, new session"],
        scenarios: &[(
            "scenarios/requests",
            "a_lost_connection_is_made_again_after_a_second_and_a_refused_one_after_minutes",
        )],
    },
    Fault {
        id: "D5",
        what: "delay of up to 30 s, stalls, what was sent arrives twice over another connection",
        passes: "at least once end to end, in order within a session",
        marks: &[
            "fault: pipe stalled",
            "wire: telemetry received twice",
            "wire: cloud message sent again with DUP",
        ],
        scenarios: &[],
    },
    Fault {
        id: "D6",
        what: "a hub restarts under all its devices",
        passes: "no second sees more than three times the mean, all are back in 5 min, one attempt a second each at most",
        marks: &["fault: hub restarted", "fault: connection refused"],
        scenarios: &[("world/scale", "devices_come_back_from_a_restart_of_their_hub_without_a_stampede")],
    },
    Fault {
        id: "D7",
        what: "tokens end during work, the wall clock is wrong or steps",
        passes: "renewed before the end, nothing acknowledged is lost",
        marks: &["close: device, token renewed", "close: hub, token expired", "fault: wall clock stepped"],
        scenarios: &[("scenarios/requests", "the_token_is_renewed_before_it_ends_and_nothing_is_lost")],
    },
    Fault {
        id: "D8",
        what: "an application that is slow, under 10000 cloud messages",
        passes: "the device holds 50 at most, PUBACK waits for the application, nothing is lost",
        marks: &["rule: completed after PUBACK", "fault: device paused"],
        scenarios: &[(
            "hostile/faults",
            "d8_a_slow_application_gets_ten_thousand_cloud_messages_and_loses_none",
        )],
    },
    Fault {
        id: "D9",
        what: "the device is killed at any instant, its outbox kept",
        passes: "each message arrives after the restart, at least once",
        marks: &["fault: device crashed, state kept", "fault: device crashed, state lost"],
        scenarios: &[],
    },
    Fault {
        id: "E6",
        what: "the wall clock steps back and forth",
        passes: "keep alive and deadlines run on; expiry follows the wall clock",
        marks: &["fault: wall clock stepped", "hub: cloud message expired"],
        scenarios: &[],
    },
    Fault {
        id: "E9",
        what: "two machines fight over one identity",
        passes: "each new one wins, a will is sent once per loss, no cloud message is lost, nobody else notices",
        marks: &["fault: rival connected", "close: hub, takeover", "hub: will sent"],
        scenarios: &[("hostile/faults", "e9_a_hundred_takeovers_a_second_lose_nothing_and_disturb_nobody")],
    },
    Fault {
        id: "F1",
        what: "random histories of all of these",
        passes: "no difference from a model of maps and lists; the same seed gives the same trace",
        marks: &["rule: answers are not crossed", "app: twin read"],
        scenarios: &[
            ("world/seeds", "nothing_that_cannot_be_happens_and_all_comes_to_rest"),
            ("world/seeds", "the_same_seed_gives_the_same_trace"),
        ],
    },
    Fault {
        id: "F2",
        what: "safety at every step",
        passes: "nothing acknowledged before it is safe, one connection per identity, caps, order, nothing of A reaches B",
        marks: &[
            "rule: acknowledged telemetry is safe",
            "rule: one live connection",
            "rule: caps hold",
            "rule: cloud messages in order",
            "rule: deadlines lie ahead",
            "rule: nothing reaches another device",
        ],
        scenarios: &[("world/seeds", "every_broken_rule_is_found")],
    },
    Fault {
        id: "F3",
        what: "the faults stop at a random time",
        passes: "all connected, all queues empty, 60 s after the last dead connection can be known",
        marks: &["rule: all comes to rest"],
        scenarios: &[],
    },
];
