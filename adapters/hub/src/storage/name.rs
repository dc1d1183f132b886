//! Names of blobs: the device id, a slash, and the name that the device asked for.

/// Longest name in characters, and its parts between slashes (Azure Storage: naming and referencing containers, blobs).
pub const NAME_MAX: usize = 1024;
const SEGMENTS_MAX: usize = 254;

/// A name that no client, proxy or file system takes for another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobName(String);

/// What is wrong with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or too long.
    #[error("a blob name has 1 to {NAME_MAX} characters, the device id and its slash included")]
    Length,
    /// Too many parts.
    #[error("a blob name has at most {SEGMENTS_MAX} parts between slashes")]
    Segments,
    /// It climbs, is absolute, or has a part that clients take out.
    #[error("a part of a blob name is empty, `.` or `..`, which clients take out of URLs")]
    Path,
    /// A character that does not arrive as it was sent.
    #[error("a blob name has no control characters and no backslash, which clients turn into a slash")]
    Character,
}

impl BlobName {
    /// The name of a blob, with the device id in front.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn new(text: &str) -> Result<Self, NameError> {
        let segments = || text.split('/');
        if text.is_empty() || text.chars().count() > NAME_MAX {
            Err(NameError::Length)
        } else if segments().count() > SEGMENTS_MAX {
            Err(NameError::Segments)
        } else if segments().any(|segment| matches!(segment, "" | "." | "..")) {
            Err(NameError::Path)
        } else if text.contains(|character: char| character.is_control() || character == '\\') {
            Err(NameError::Character)
        } else {
            Ok(Self(text.to_owned()))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_climb_are_absolute_or_are_changed_on_the_way_are_none() {
        for name in
            ["dev1/a", "dev1/dir/a b.txt", "dev1/ä%+..", "dev1/...", &format!("d/{}", "x".repeat(1022))]
        {
            assert!(BlobName::new(name).is_ok(), "{name}");
        }
        for (name, expected) in [
            ("", NameError::Length),
            (&*format!("d/{}", "x".repeat(1023)), NameError::Length),
            (&*format!("d{}", "/x".repeat(254)), NameError::Segments),
            ("/etc/passwd", NameError::Path),
            ("dev1//a", NameError::Path),
            ("dev1/", NameError::Path),
            ("dev1/../dev2/a", NameError::Path),
            ("dev1/./a", NameError::Path),
            ("dev1/..\\a", NameError::Character),
            ("dev1/a\n", NameError::Character),
            ("dev1/a\0", NameError::Character),
        ] {
            assert_eq!(BlobName::new(name), Err(expected), "{name}");
        }
    }
}
