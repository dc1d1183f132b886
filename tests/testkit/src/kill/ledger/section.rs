//! A section of a twin: reported or desired properties.

use serde_json::{Map, Value, json};

use super::{Violation, violation};

/// How many members a section has at most, besides the number of the last change.
const SLOTS: u64 = 4;
/// Each change with such a number removes a member.
const REMOVES: u64 = 5;

/// What a section holds for certain, and a change that may have been made. There is one change at a time.
#[derive(Debug)]
pub struct Section {
    members: Map<String, Value>,
    version: u64,
    last: u64,
    doubt: Option<Map<String, Value>>,
}

impl Default for Section {
    fn default() -> Self {
        Self { members: Map::new(), version: 1, last: 0, doubt: None }
    }
}

impl Section {
    /// The next change, in doubt until it is answered; `None` while another is.
    pub fn change(&mut self) -> Option<Map<String, Value>> {
        if self.doubt.is_some() {
            return None;
        }
        self.last += 1;
        let slot = format!("slot{}", self.last % SLOTS);
        let value = if self.last.is_multiple_of(REMOVES) { Value::Null } else { self.last.into() };
        let patch = Map::from_iter([("last".to_owned(), json!(self.last)), (slot, value)]);
        self.doubt = Some(patch.clone());
        Some(patch)
    }

    /// The hub has answered that the change is made, and that the section has this version now.
    ///
    /// # Errors
    /// When the version is not the next.
    pub fn accepted(&mut self, version: u64) -> Result<(), Violation> {
        if version != self.version + 1 {
            return violation(format!("a change made version {version} of {}", self.version));
        }
        self.settle();
        Ok(())
    }

    /// The hub has answered that the change is not made.
    pub fn refused(&mut self) {
        self.doubt = None;
    }

    /// How many changes are known to be made.
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.version - 1
    }

    /// The hub was started again, and shows the section so.
    ///
    /// # Errors
    /// When it is neither what it was, nor what the change in doubt makes of it.
    pub fn check(&mut self, shown: &Value) -> Result<(), Violation> {
        let version = shown["$version"].as_u64().unwrap_or_default();
        let mut members = shown.as_object().cloned().unwrap_or_default();
        members.retain(|name, _| !name.starts_with('$'));
        if (&members, version) == (&self.members, self.version) {
            self.doubt = None;
            return Ok(());
        }
        let changed = self.doubt.as_ref().map(|patch| merged(&self.members, patch));
        if version == self.version + 1 && Some(members) == changed {
            self.settle();
            return Ok(());
        }
        let safe = Value::Object(self.members.clone());
        let doubt =
            self.doubt.clone().map_or_else(|| "none".to_owned(), |patch| Value::Object(patch).to_string());
        violation(format!(
            "version {} of {safe}, change in doubt: {doubt}; the hub has {shown}",
            self.version
        ))
    }

    fn settle(&mut self) {
        if let Some(patch) = self.doubt.take() {
            self.members = merged(&self.members, &patch);
            self.version += 1;
        }
    }
}

fn merged(members: &Map<String, Value>, patch: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = members.clone();
    for (name, value) in patch {
        if value.is_null() {
            merged.remove(name);
        } else {
            merged.insert(name.clone(), value.clone());
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(count: u64) -> Section {
        let mut section = Section::default();
        for number in 1..=count {
            section.change().unwrap();
            section.accepted(number + 1).unwrap();
        }
        section
    }

    #[test]
    fn what_was_accepted_is_there_with_its_version() {
        let good = json!({"$version": 3, "last": 2, "slot1": 1, "slot2": 2, "$metadata": {}});
        changed(2).check(&good).unwrap();
        let older = json!({"$version": 2, "last": 1, "slot1": 1});
        assert!(changed(2).check(&older).is_err());
        let newer = json!({"$version": 4, "last": 2, "slot1": 1, "slot2": 2});
        assert!(changed(2).check(&newer).is_err());
        let half = json!({"$version": 3, "last": 2, "slot1": 1});
        assert!(changed(2).check(&half).is_err());
    }

    #[test]
    fn what_is_in_doubt_is_there_whole_or_not_at_all() {
        let before = json!({"$version": 2, "last": 1, "slot1": 1});
        let after = json!({"$version": 3, "last": 2, "slot1": 1, "slot2": 2});
        let half = json!({"$version": 3, "last": 2, "slot1": 1});
        let in_doubt = || {
            let mut section = changed(1);
            section.change().unwrap();
            assert_eq!(section.change(), None, "one at a time");
            section
        };
        in_doubt().check(&before).unwrap();
        assert!(in_doubt().check(&half).is_err());
        let mut settled = in_doubt();
        settled.check(&after).unwrap();
        assert!(settled.check(&before).is_err(), "the hub had shown that it was made");
    }

    #[test]
    fn a_removed_member_is_gone() {
        let section = json!({"$version": 6, "last": 5, "slot0": 4, "slot2": 2, "slot3": 3});
        changed(5).check(&section).unwrap();
    }

    #[test]
    fn versions_grow_by_one() {
        let mut section = Section::default();
        section.change().unwrap();
        assert!(section.accepted(3).is_err());
    }
}
