//! Rules that the World's own drivers can break, to see that the World notices.

/// A rule for drivers that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// The hub's driver reports a time-out before it has read what lies in the socket.
    TimeOutBeforeReading,
    /// The hub's driver reports the end of a transport and drops what it brought last.
    ClosedBeforeReading,
    /// The hub's driver does not ask which links are ready.
    ReadyLinkForgotten,
    /// The hub's driver leaves a transport open after a takeover.
    TakeoverIgnored,
    /// The store says that telemetry is safe when it was only queued.
    StoredBeforeSynced,
    /// The store says that a record is safe when it was only queued.
    CommittedBeforeSynced,
    /// The store writes a record without its last change.
    OldRecordWritten,
    /// The device's driver does not report time-outs.
    DeviceTimersIgnored,
    /// The device's driver hands answers to the wrong request.
    AnswersCrossed,
    /// The device's driver loses a notification of desired properties.
    NotificationLost,
    /// The device's driver completes a cloud message that the application was not given.
    CompletedUnseen,
    /// The device's driver does not write what is left after the end of a connection.
    LastWordsLost,
    /// The device's driver drops what a short write did not take.
    ShortWriteIgnored,
    /// The device is made anew after each connection, without what it held.
    OutboxForgotten,
    /// What the hub sends to one device reaches another.
    CrossTalk,
}

impl Canary {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::TimeOutBeforeReading,
        Self::ClosedBeforeReading,
        Self::ReadyLinkForgotten,
        Self::TakeoverIgnored,
        Self::StoredBeforeSynced,
        Self::CommittedBeforeSynced,
        Self::OldRecordWritten,
        Self::DeviceTimersIgnored,
        Self::AnswersCrossed,
        Self::NotificationLost,
        Self::CompletedUnseen,
        Self::LastWordsLost,
        Self::ShortWriteIgnored,
        Self::OutboxForgotten,
        Self::CrossTalk,
    ];
}
