//! How far a job has come.

/// How far a job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// It waits for its time, or for others to end.
    Queued,
    /// Its devices are chosen.
    Running,
    /// It has dealt with each device, or its time was over.
    Completed,
    /// Somebody ended it.
    Cancelled,
}

impl Status {
    pub(super) const ALL: [Self; 4] = [Self::Queued, Self::Running, Self::Completed, Self::Cancelled];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        }
    }

    pub(super) const fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled)
    }
}
